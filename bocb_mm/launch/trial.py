"""One trial of a search, in the process that was started for it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bocb_mm.runs import lock
from bocb_mm.runs.record import FILE_NAME, RunRecord

LOCK_SECONDS = 900  # an attempt before this one saves its checkpoint in far less


@dataclass(frozen=True)
class Task:
    """What a trial's process is told.

    Attributes:
        config: Path of its config.
        directory: The trial's directory.
        optimizer: Any name that ``tools/train.py --optimizer`` takes.
        lr: Base learning rate.
        weight_decay: Weight decay.
        seed: Random seed.
        options: Overrides of the config.
        pretrained: As ``tools/train.py --pretrained``.
        amp: Mixed precision.
        processes: That train together.
        on_gpu: Whether it has a GPU, rather than the CPU.
    """

    config: str
    directory: Path
    optimizer: str
    lr: float
    weight_decay: float
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    pretrained: str | None = None
    amp: bool = False
    processes: int = 1
    on_gpu: bool = False


Train = Callable[[Task], int]
"""Trains a task and returns an exit status of :mod:`bocb_mm.runs.exit_codes`, or raises."""


def train_trial(task: Task) -> int:
    """Train a trial, from its last good checkpoint where an attempt before left one."""
    wait_for_lock(task.directory)
    start_anew_if_damaged(task.directory)
    import torch

    from bocb_mm.compat import lay_out_config_once
    from bocb_mm.launch.train import TrainOptions, prepare, train

    if task.on_gpu:
        torch.zeros(1, device='cuda')  # a GPU that is gone must not become a training on the CPU
    lay_out_config_once()
    options = TrainOptions(
        optimizer=task.optimizer,
        lr=task.lr,
        weight_decay=task.weight_decay,
        pretrained=task.pretrained,
        seed=task.seed,
        work_dir=str(task.directory),
        resume='auto',
        amp=task.amp,
        launcher='pytorch' if task.processes > 1 else 'none',
        cfg_options=dict(task.options),
        searched=True,
    )
    cfg = prepare(task.config, options)
    guard(cfg)
    return train(cfg, options)


def guard(cfg: Any) -> None:
    """Give a config the hooks a search relies on, where it has not got them.

    Checkpoints that a crash cannot spoil, an end for runs that diverge, and one for signals.
    """
    from bocb_mm.config.describe import type_name

    hooks = cfg.default_hooks
    present = [*hooks.values(), *(cfg.get('custom_hooks') or [])]
    types = {type_name(hook).rpartition('.')[2] for hook in present}
    if 'SafeCheckpointHook' not in types:
        saver = hooks.get('checkpoint') or {'interval': 1, 'max_keep_ckpts': 1}
        hooks['checkpoint'] = {**saver, 'type': 'bocb_mm.SafeCheckpointHook'}
    for name in ('DivergenceHook', 'SignalHook'):
        if name not in types:
            hooks[name.removesuffix('Hook').lower()] = {'type': f'bocb_mm.{name}'}


def wait_for_lock(directory: Path) -> None:
    """Lock the directory; the training of a driver that was lost may still be saving there."""
    if os.environ.get('RANK', '0') != '0':
        return
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            lock.acquire(directory)
            return
        except lock.DirectoryInUse as error:
            if time.monotonic() > until:
                raise TimeoutError(errno.ETIMEDOUT, str(error)) from None  # the machine's fault
        time.sleep(0.2)


def start_anew_if_damaged(directory: Path) -> None:
    """Remove the checkpoints of a run whose record cannot be read.

    Its results so far are lost, and the best of the rest would be another one than that of an
    undisturbed run.
    """
    file = directory / FILE_NAME
    if os.environ.get('RANK', '0') != '0' or not file.exists() or RunRecord.find(directory):
        return
    print(f'warning: {file} cannot be read; the trial starts anew', flush=True)
    start_anew(directory, '.damaged')


def start_anew(directory: Path, suffix: str) -> None:
    """Remove a run's checkpoints, and keep its record under another name."""
    for checkpoint in directory.glob('*.pth'):
        checkpoint.unlink()
    file = directory / FILE_NAME
    file.replace(file.with_name(f'{FILE_NAME}{suffix}'))
