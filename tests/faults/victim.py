"""What the fork server has loaded and its children do: killing twenty of them costs no imports.

The server imports this module by its bare name (PYTHONPATH is tests and tests/faults).
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tiny_training as tiny
import torch

from bocb_mm.resume.find import find_resumable
from bocb_mm.runs import lock


class Started(tiny.Hook):
    """Says that the training proper has begun."""

    priority = 'LOWEST'

    def __init__(self, event: Any) -> None:
        self.event = event

    def before_train(self, runner: Any) -> None:
        self.event.set()


def train(work_dir: str, epochs: int, keep: int, started: Any = None, die_before: int = 0) -> None:
    """Train from where the directory stands to the end, and leave the weights in ``final``.

    Args:
        die_before: Number of the call that changes the disk before which the process dies.
    """
    sys.stdout = sys.stderr = open(os.devnull, 'w')  # noqa: PTH123, SIM115
    start = find_resumable(work_dir)
    run = tiny.runner(
        work_dir,
        default_hooks={
            'checkpoint': {
                'type': 'bocb_mm.SafeCheckpointHook',
                'interval': 2,
                'by_epoch': False,
                'max_keep_ckpts': keep,
            },
            'logger': {'type': 'LoggerHook', 'interval': 1000},
        },
        custom_hooks=[Started(started)] if started is not None else [],
        train_cfg={'by_epoch': True, 'max_epochs': epochs, 'val_interval': 5},
        param_scheduler=[{'type': 'CosineAnnealingLR', 'T_max': epochs, 'by_epoch': True}],
        **({'resume': True, 'load_from': str(start)} if start else {}),
    )
    if die_before:
        _die_before(die_before)
    run.train()
    torch.save(tiny.weights(run), Path(work_dir, 'final'))


class Send(tiny.Hook):
    """Sends this process SIGTERM in one iteration."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_train_iter(self, runner: Any, **_: Any) -> None:
        if runner.iter + 1 == self.iteration:
            os.kill(os.getpid(), signal.SIGTERM)


def train_together(rank: int, port: int, work_dir: str, send_at: int = 0) -> None:
    """One of two processes of a distributed training; ``send_at`` is the end it comes to."""
    sys.stdout = sys.stderr = open(os.devnull, 'w')  # noqa: PTH123, SIM115
    torch.distributed.init_process_group(
        'gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2
    )
    os.environ['LOCAL_RANK'] = str(rank)
    start = find_resumable(work_dir)
    torch.distributed.barrier()
    run = tiny.runner(
        work_dir,
        default_hooks={
            'checkpoint': {'type': 'bocb_mm.SafeCheckpointHook', 'interval': 100},
            'signals': {'type': 'bocb_mm.SignalHook', 'interval': 2},
        },
        custom_hooks=[Send(send_at)] if send_at else [],
        randomness={'seed': 1, 'diff_rank_seed': True},
        launcher='pytorch',
        model_wrapper_cfg={'type': 'MMDistributedDataParallel', 'device_ids': None},
        **({'resume': True, 'load_from': str(start)} if start else {}),
    )
    run.train()
    if rank == 0:
        torch.save(dict(run.model.module.state_dict()), Path(work_dir, 'final'))


def _die_before(number: int) -> None:
    """Count the calls that change what is on the disk; SIGKILL before one of them."""
    calls = 0

    def counted(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)
    Path.replace, Path.unlink = counted(Path.replace), counted(Path.unlink)  # type: ignore


def hold_lock(work_dir: str, held: Any) -> None:
    """Hold the directory's lock, with a child process that outlives this one for a while."""
    lock.acquire(work_dir)
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
    held.set()
    time.sleep(60)


torch.set_num_threads(1)
if __name__ == 'victim' and os.environ.get('BOCB_WARM_VICTIM'):
    with tempfile.TemporaryDirectory() as directory:  # the server pays for what is imported late
        tiny.runner(directory, train_cfg={'by_epoch': True, 'max_epochs': 1}).train()
