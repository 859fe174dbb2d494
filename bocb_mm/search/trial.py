"""One trial, in the process a worker forked for it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bocb_mm.compat import stay_on_cpu
from bocb_mm.config.describe import type_name
from bocb_mm.launch.fork import LOG_FILE, run_forked
from bocb_mm.runs import exit_codes, lock
from bocb_mm.runs.record import RunRecord
from bocb_mm.search.outcomes import of_error
from bocb_mm.search.plan import Cell, Plan

LOCK_SECONDS = 600  # an attempt before this one saves its checkpoint in far less


@dataclass(frozen=True)
class Task:
    """What a trial's process is told.

    Attributes:
        cell: What to train.
        plan: What all trials of the study have in common.
        work_dir: The trial's directory.
        threads: Threads to compute with.
        device: Number of the GPU, ``None`` on a CPU.
    """

    cell: Cell
    plan: Plan
    work_dir: Path
    threads: int = 1
    device: str | None = None


Train = Callable[[Task], int]
"""Trains a task and returns an exit status of :mod:`bocb_mm.runs.exit_codes`, or raises."""


def train_cell(task: Task) -> int:
    """Train a trial, from its last good checkpoint where an attempt before left one.

    A directory whose run is finished is taken as the result: the worker that trained it was lost
    before it could say so.
    """
    done = finished(task.work_dir)
    if done is not None:
        return exit_codes.COMPLETED if done.status == 'completed' else exit_codes.DIVERGED
    import torch

    from bocb_mm.compat import lay_out_config_once
    from bocb_mm.launch.train import TrainOptions, prepare, train

    lay_out_config_once()
    torch.set_num_threads(task.threads)
    cell, plan = task.cell, task.plan
    options = TrainOptions(
        optimizer=cell.optimizer,
        lr=cell.lr,
        weight_decay=cell.weight_decay,
        pretrained=plan.pretrained,
        seed=cell.seed,
        work_dir=str(task.work_dir),
        resume='auto',
        amp=plan.amp,
        cfg_options=dict(plan.cfg_options),
        searched=True,
    )
    cfg = prepare(cell.config, options)
    guard(cfg)
    return train(cfg, options)


def finished(work_dir: Path) -> RunRecord | None:
    """The record of a run that has a result, good or bad."""
    run = RunRecord.find(work_dir)
    return run if run is not None and run.status in ('completed', 'diverged') else None


def guard(cfg: Any) -> None:
    """Give a config the hooks a search relies on, where it has not got them.

    Checkpoints that a crash cannot spoil, an end for runs that diverge, and one for signals.
    """
    hooks = cfg.default_hooks
    present = [*hooks.values(), *(cfg.get('custom_hooks') or [])]
    types = {type_name(hook).rpartition('.')[2] for hook in present}
    if 'SafeCheckpointHook' not in types:
        saver = hooks.get('checkpoint') or {'interval': 1, 'max_keep_ckpts': 1}
        hooks['checkpoint'] = {**saver, 'type': 'bocb_mm.SafeCheckpointHook'}
    for name in ('DivergenceHook', 'SignalHook'):
        if name not in types:
            hooks[name.removesuffix('Hook').lower()] = {'type': f'bocb_mm.{name}'}


def run(task: Task, train: Train, error_pipe: int, parent: int) -> NoReturn:
    """All that the forked process does; it never returns.

    Args:
        task: What to train.
        train: Does it.
        error_pipe: File descriptor for one line to the worker on why it failed.
        parent: The worker's process.
    """

    def body() -> int:
        if task.device is None:
            stay_on_cpu()
        else:
            os.environ['CUDA_VISIBLE_DEVICES'] = task.device
        _wait_for_lock(task.work_dir)
        return train(task)

    run_forked(body, task.work_dir / LOG_FILE, parent, error_pipe, _status)


def _status(error: BaseException) -> int:
    status = of_error(error).exit_status
    assert status is not None
    return status


def _wait_for_lock(work_dir: Path) -> None:
    """Lock the directory; the process of a worker that was lost may still be saving there."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            lock.acquire(work_dir)
            return
        except lock.DirectoryInUse as error:
            if time.monotonic() > until:
                raise TimeoutError(errno.ETIMEDOUT, str(error)) from None  # the machine's fault
        time.sleep(0.2)
