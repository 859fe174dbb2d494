"""A training of some seconds on scikit-learn's digits, for the stages that start trainings."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

EPOCHS, IMAGES, BATCH = 2, 256, 32
STEPS_AN_EPOCH = IMAGES // BATCH
DEVICE_FILE = 'device.txt'


@HOOKS.register_module(force=True)
class SignalAt(Hook):
    """Sends one process of a run a signal after an iteration, as a scheduler would.

    Args:
        iteration: After which; 0 for never.
        rank: Of which process.
    """

    def __init__(self, iteration: int = 0, rank: int = 0) -> None:
        self.iteration = iteration
        self.rank = rank

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        """Send it once."""
        if runner.iter + 1 == self.iteration and runner.rank == self.rank:
            os.kill(os.getpid(), signal.SIGTERM)


@HOOKS.register_module(force=True)
class DeviceFile(Hook):
    """Writes down which device a run trains on."""

    def before_train(self, runner: Any) -> None:
        """Ask the model's first parameter."""
        device = next(runner.model.parameters()).device.type
        (Path(runner.work_dir) / DEVICE_FILE).write_text(device)


def write_config(folder: Path, root: Path, settings: Mapping[str, Any] = {}) -> Path:
    """A config beside its data: two epochs of 256 images, nothing random, the same bits each time.

    Args:
        folder: Gets ``short.py`` and ``data``.
        root: The checkout.
        settings: Further overrides, dots in a key go into nested dicts.
    """
    from mmengine.config import Config

    from bocb_mm.datasets import prepare_quickstart

    os.environ['BOCB_DATA_ROOT'] = str(folder / 'data')
    prepare_quickstart()
    cfg = Config.fromfile(root / 'configs' / 'quickstart' / 'digits_r18-xs.py')
    loader = cfg.train_dataloader
    loader.batch_size, loader.dataset.indices = BATCH, IMAGES
    loader.dataset.pipeline = cfg.val_dataloader.dataset.pipeline
    cfg.val_dataloader.dataset.indices = IMAGES
    cfg.train_cfg.update(max_epochs=EPOCHS, val_interval=EPOCHS)
    cfg.randomness = {'seed': 0, 'deterministic': True}
    cfg.custom_imports = {'imports': [__name__]}
    cfg.custom_hooks = [{'type': 'SignalAt'}, {'type': 'DeviceFile'}]
    cfg.default_hooks.signals = {'type': 'bocb_mm.SignalHook', 'interval': 1}
    cfg.merge_from_dict(dict(settings))
    path = folder / 'short.py'
    cfg.dump(path)
    return path


def difference(one: Path, other: Path) -> float:
    """Greatest difference of two runs' last weights."""
    a, b = weights(one), weights(other)
    if a.keys() != b.keys():
        return float('inf')
    return max((a[k].double() - b[k].double()).abs().max().item() for k in a)


def weights(work_dir: Path) -> dict[str, torch.Tensor]:
    """The model of a run's last checkpoint."""
    from bocb_mm.checkpoints.read import load_checkpoint

    checkpoint = Path((work_dir / 'last_checkpoint').read_text().strip())
    return load_checkpoint(checkpoint, map_location='cpu')['state_dict']
