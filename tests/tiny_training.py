"""A training of some milliseconds on mmengine alone, with everything random that a real one has."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook as Hook
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset


class TinyData(Dataset):
    """24 points whose 'augmentation' draws from all three generators."""

    metainfo = {'classes': ('a', 'b')}

    def __init__(self, n: int = 24) -> None:
        self.x = torch.from_numpy(np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Any]:
        noise = np.random.normal(scale=0.1) + random.random() * 0.1 + float(torch.rand(())) * 0.1
        return {'inputs': self.x[index] + noise, 'y': (self.x[index].sum() > 0).long()}


class TinyModel(BaseModel):
    """A convolution, batch norm and dropout, so that every kind of state is there."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(24, 2)

    def forward(self, inputs: torch.Tensor, y: torch.Tensor, mode: str = 'tensor') -> Any:
        z = self.conv(inputs[:, None])
        z = self.head(self.drop(torch.relu(self.norm(z))).flatten(1))
        if mode == 'loss':
            return {'loss': nn.functional.cross_entropy(z.float(), y)}
        return [z.argmax(1) == y] if mode == 'predict' else z


class TinyMetric(BaseMetric):
    default_prefix = 'tiny'

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(float(data_samples[0].float().mean()))

    def compute_metrics(self, results: list) -> dict[str, float]:
        return {'accuracy': float(np.mean(results))}


class BriefConfig(Config):
    """mmengine lays a config's text out with yapf for every checkpoint: most of a tiny run's time."""

    @property
    def pretty_text(self) -> str:
        return '\n'.join(f'{key} = {value!r}' for key, value in self.items())


def config(work_dir: Any, **changes: Any) -> dict[str, Any]:
    """Arguments of a Runner; ``changes`` replace whole entries."""
    base: dict[str, Any] = {
        'model': TinyModel(),
        'work_dir': str(work_dir),
        'train_dataloader': loader(),
        'train_cfg': {'by_epoch': True, 'max_epochs': 3, 'val_interval': 1},
        'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 0.05, 'momentum': 0.9}},
        'param_scheduler': [
            {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'begin': 0, 'end': 4},
            {'type': 'CosineAnnealingLR', 'T_max': 18, 'by_epoch': False, 'begin': 0, 'end': 18},
        ],
        'val_dataloader': loader(dataset=TinyData(8)),
        'val_cfg': {},
        'val_evaluator': Evaluator(TinyMetric()),
        'default_hooks': {
            'checkpoint': {'type': 'bocb_mm.SafeCheckpointHook', 'interval': 1},
            'logger': {'type': 'LoggerHook', 'interval': 1000},
        },
        'randomness': {'seed': 1},
        'log_level': 'ERROR',
        'visualizer': {'type': 'Visualizer', 'vis_backends': []},
        'experiment_name': f'tiny{np.random.default_rng().integers(1 << 60)}',
        'default_scope': 'mmengine',
    }
    base.update(changes)
    return base


def runner(work_dir: Any, kind: type = Runner, **changes: Any) -> Any:
    """A runner whose model starts from the same weights each time."""
    torch.manual_seed(0)
    arguments = config(work_dir, **changes)
    init_default_scope('mmengine')
    told = {k: arguments[k] for k in ('optim_wrapper', 'param_scheduler')}
    if 'model_wrapper_cfg' in arguments:  # the Runner looks for it in the config only
        told['model_wrapper_cfg'] = arguments.pop('model_wrapper_cfg')
    return kind(**arguments, cfg=BriefConfig(told))


def loader(workers: int = 0, sampler: str = 'DefaultSampler', **changes: Any) -> dict[str, Any]:
    """A training data loader."""
    return {
        'dataset': TinyData(),
        'sampler': {'type': sampler, 'shuffle': True},
        'batch_size': 4,
        'num_workers': workers,
        'collate_fn': {'type': 'default_collate'},
        **changes,
    }


def weights(run: Runner) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in run.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def saving(**settings: Any) -> dict[str, Any]:
    """Default hooks with a SafeCheckpointHook; by iteration unless told otherwise."""
    settings = {'interval': 3, 'by_epoch': False, **settings}
    return {
        'checkpoint': {'type': 'bocb_mm.SafeCheckpointHook', **settings},
        'logger': {'type': 'LoggerHook', 'interval': 1000},
    }


def resumed(work_dir: Any, start: Any, **settings: Any) -> Any:
    """A runner that has gone on from a checkpoint to its end."""
    run = runner(work_dir, resume=True, load_from=str(start), **settings)
    run.train()
    return run


def whole_and_resumed(tmp_path: Any, iteration: int, make: Callable[[], dict]) -> tuple[dict, dict]:
    """Final weights of a whole run and of one resumed from the whole run's checkpoint.

    Args:
        make: Gives the settings of the runs, anew each time.
    """
    whole = runner(tmp_path / 'whole', **make())
    whole.train()
    start = tmp_path / 'whole' / f'iter_{iteration}.pth'
    again = resumed(tmp_path / 'again', start, **make())
    assert again.iter == whole.iter
    return weights(whole), weights(again)
