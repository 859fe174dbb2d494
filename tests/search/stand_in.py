"""Workers whose trainings are real and tiny; a fork server has this loaded.

The behaviour of a training stands in the study's ``cfg_options``, so that it survives whatever
happens to the worker.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from typing import Any

import tiny_training as tiny
import torch
from plain import note

from bocb_mm.hooks.stopping import StoppedRun
from bocb_mm.resume.find import find_resumable
from bocb_mm.runs import exit_codes
from bocb_mm.search.place import parse
from bocb_mm.search.queue import Queue
from bocb_mm.search.worker import Worker

EPOCHS = 3  # of 6 iterations, a checkpoint every 2


class Mischief(tiny.Hook):
    """What a test wants to go wrong in a training; once a trial, unless it is a property of it."""

    priority = 'LOWEST'

    def __init__(self, task: Any, parent: int) -> None:
        self.task, self.parent = task, parent
        self.wishes = task.plan.cfg_options

    def once(self, name: str) -> bool:
        mark = self.task.work_dir / f'.{name}'
        if self.wishes.get(name) != self.task.cell.lr or mark.exists():
            return False
        mark.touch()
        return True

    def before_train_iter(self, runner: Any, **_: Any) -> None:
        time.sleep(self.wishes.get('seconds', 0.0))
        if runner.iter == 9 and self.once('term'):
            os.kill(os.getpid(), signal.SIGTERM)
        if runner.iter == 9 and self.once('kill_all'):
            os.kill(self.parent, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        if runner.iter == 8 and self.wishes.get('nan') == self.task.cell.lr:
            with torch.no_grad():
                runner.model.head.bias.fill_(float('nan'))

    def before_save_checkpoint(self, runner: Any, **_: Any) -> None:
        """Let the next flush of a file be the last thing that worker and training do."""
        if runner.iter >= 7 and self.once('kill_in_save'):
            parent = self.parent

            def die(*_: Any) -> None:
                os.kill(parent, signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)

            os.fsync = die


def training(task: Any) -> int:
    """The real thing, tiny: every hook of a search, on mmengine alone."""
    from bocb_mm.search.trial import finished

    note(task, 'ran')
    done = finished(task.work_dir)
    if done is not None:
        return exit_codes.COMPLETED if done.status == 'completed' else exit_codes.DIVERGED
    torch.set_num_threads(1)
    start = find_resumable(task.work_dir)
    run = tiny.runner(
        task.work_dir,
        default_hooks={
            'checkpoint': {
                'type': 'bocb_mm.SafeCheckpointHook', 'interval': 2, 'by_epoch': False,
                'max_keep_ckpts': 2,
            },
            'logger': {'type': 'LoggerHook', 'interval': 1000},
            'divergence': {'type': 'bocb_mm.DivergenceHook'},
            'signals': {'type': 'bocb_mm.SignalHook'},
        },
        custom_hooks=[
            {
                'type': 'bocb_mm.RunRecordHook', 'task': 'classification', 'dataset': 'tiny',
                'backbone': 'tiny', 'metric': 'tiny/accuracy',
            },
            Mischief(task, os.getppid()),
        ],
        train_cfg={'by_epoch': True, 'max_epochs': EPOCHS, 'val_interval': 1},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': task.cell.lr, 'momentum': 0.9}},
        randomness={'seed': task.cell.seed},
        **({'resume': True, 'load_from': str(start)} if start else {}),
    )  # fmt: skip
    try:
        run.train()
    except StoppedRun as stopped:
        return stopped.exit_status
    # Accuracy on eight points is coarse: the last weights are the result that must not change.
    total = sum(float(p.double().sum()) for p in run.model.parameters())
    note(task, f'ended {total!r}')
    return exit_codes.COMPLETED


def work(study: str, slots: int = 1) -> None:
    """A worker's process."""
    sys.stdout = sys.stderr = open(os.devnull, 'w')  # noqa: PTH123, SIM115
    worker = Worker(Queue(parse(study)), [f'cpu{k}' for k in range(slots)], train=training)
    sys.exit(worker.run())


torch.set_num_threads(1)
if __name__ == 'stand_in' and os.environ.get('BOCB_WARM_STAND_IN'):
    with tempfile.TemporaryDirectory() as directory:  # the server pays for what is imported late
        tiny.runner(directory, train_cfg={'by_epoch': True, 'max_epochs': 1}).train()
