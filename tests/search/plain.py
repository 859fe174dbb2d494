"""Trials that only say that they ran, or end as they are told: no torch.

As a program, ``plain.py STUDY``: a worker for such trials.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bocb_mm.errors import UserError
from bocb_mm.runs import exit_codes
from bocb_mm.runs.record import RunRecord


def note(task: Any, text: str) -> None:
    """One line in the study's diary; appending is atomic."""
    line = f'{task.cell.lr:g} {task.cell.seed} {text}\n'
    diary = os.open(Path(task.plan.work_dir, 'diary.txt'), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(diary, line.encode())
    os.close(diary)


def record(task: Any, status: str, value: float | None = None) -> None:
    cell = task.cell
    run = RunRecord('classification', 'd', cell.stem, cell.optimizer, cell.lr, cell.weight_decay)
    run.seed, run.status, run.metric = cell.seed, status, 'tiny/accuracy'
    if value is not None:
        run.add_evaluation(1, 1, {run.metric: value})
    run.save(task.work_dir)


def nothing(task: Any) -> int:
    """A trial that only says that it ran."""
    note(task, 'ran')
    time.sleep(task.plan.cfg_options.get('seconds', 0.0))
    record(task, 'completed', task.cell.lr * 100 + task.cell.seed)
    return exit_codes.COMPLETED


def learning(task: Any) -> int:
    """Nine evaluations, better with a larger rate; ends on SIGUSR1 as a training does."""
    note(task, 'ran')
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(exit_codes.INTERRUPTED))
    run = RunRecord('classification', 'd', task.cell.stem, 'SGD', task.cell.lr, metric='accuracy')
    for epoch in range(1, 10):
        run.add_evaluation(epoch, epoch, {run.metric: task.cell.lr * epoch})
        run.save(task.work_dir)
        time.sleep(0.3)
    run.status = 'completed'
    run.save(task.work_dir)
    return exit_codes.COMPLETED


def ending(task: Any) -> int:
    """A trial that ends in the way its rate stands for."""
    note(task, 'ran')
    lr = task.cell.lr
    attempts = (
        Path(task.plan.work_dir, 'diary.txt').read_text().count(f'{lr:g} {task.cell.seed} ran')
    )
    if lr == 2:
        raise MemoryError('stand-in')
    if lr == 3:
        record(task, 'diverged')
        return exit_codes.DIVERGED
    if lr == 4:
        raise UserError('no such thing; take another')
    if lr == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    if lr == 6 and attempts < 3:
        raise OSError(28, 'No space left on device')
    if lr == 7:
        raise ZeroDivisionError('a fault in the code')
    if lr == 8:
        record(task, 'completed')  # without an evaluation
        return exit_codes.COMPLETED
    if lr == 9 and attempts < 2:
        return exit_codes.INTERRUPTED
    record(task, 'completed', lr)
    return exit_codes.COMPLETED


if __name__ == '__main__':
    from bocb_mm.search.place import parse
    from bocb_mm.search.queue import Queue
    from bocb_mm.search.worker import Worker

    sys.exit(Worker(Queue(parse(sys.argv[1])), train=nothing).run())
