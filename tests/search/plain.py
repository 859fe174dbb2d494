"""Trials without torch: they count, save what they have counted, and do what their rate stands for.

As a program, ``plain.py STUDY TRAIN [JOBS [ADDRESS]]``: a driver for such trials.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bocb_mm.errors import UserError
from bocb_mm.launch.trial import wait_for_lock
from bocb_mm.runs import exit_codes
from bocb_mm.runs.files import atomic_write_text
from bocb_mm.runs.record import RunRecord

STEPS = 40


def note(task: Any, text: str) -> None:
    """One line in the study's diary; appending is atomic."""
    line = f'{task.lr:g} {task.seed} {text}\n'
    diary = os.open(task.directory.parents[2] / 'diary.txt', os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(diary, line.encode())
    os.close(diary)


def record(task: Any, status: str, value: float | None = None, iterations: int = 1) -> None:
    run = RunRecord('classification', 'd', 'net', task.optimizer, task.lr, task.weight_decay)
    run.seed, run.status, run.iterations = task.seed, status, iterations
    run.metric = 'tiny/accuracy'
    if value is not None:
        run.add_evaluation(1, iterations, {run.metric: value})
    run.save(task.directory)


def counting(task: Any) -> int:
    """Counts to 40, saves every second step, and saves and ends on a signal as a training does.

    The result depends on every step, so that one which were left out or done twice would show. It
    stays at step 10 as long as the study has a file `hold`, so that no test depends on how fast
    the machine is.
    """
    wait_for_lock(task.directory)
    asked = []
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: asked.append(1))
    file = task.directory / 'count.json'
    state = json.loads(file.read_text()) if file.exists() else {'step': 0, 'value': task.lr}
    note(task, f'starts {os.getpid()} at {state["step"]}')
    hold = task.directory.parents[2] / 'hold'
    while state['step'] < STEPS:
        time.sleep(0.01)
        while state['step'] == 10 and hold.exists() and not asked:
            time.sleep(0.02)
        step = state['step'] + 1
        state = {'step': step, 'value': (1.1 * state['value'] + step) % 97}
        if step % 2 == 0 or asked:
            atomic_write_text(file, json.dumps(state))
        if asked:
            record(task, 'interrupted', iterations=step)
            note(task, f'interrupted {os.getpid()} at {step}')
            return exit_codes.INTERRUPTED
    record(task, 'completed', state['value'], STEPS)
    note(task, f'ended {os.getpid()} at {STEPS}')
    return exit_codes.COMPLETED


def result(lr: float) -> float:
    """What counting comes to."""
    value = lr
    for step in range(1, STEPS + 1):
        value = (1.1 * value + step) % 97
    return value


def quick(task: Any) -> int:
    """Only says that it ran."""
    note(task, 'ran')
    record(task, 'completed', task.lr * 100 + task.seed)
    return exit_codes.COMPLETED


def ending(task: Any) -> int:
    """Ends in the way its rate stands for."""
    note(task, f'ran with {tempfile.gettempdir()}')
    lr = task.lr
    diary = (task.directory.parents[2] / 'diary.txt').read_text()
    attempts = diary.count(f'{lr:g} {task.seed} ran')
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
    if lr == 9 and attempts < 3:
        record(task, 'interrupted', iterations=attempts)
        return exit_codes.INTERRUPTED
    if lr == 10:
        return exit_codes.INTERRUPTED  # again and again, and never further
    record(task, 'completed', lr)
    return exit_codes.COMPLETED


if __name__ == '__main__':
    # Trainings run functions of an importable module, not of this script.
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import plain

    from bocb_mm.search.driver import work
    from bocb_mm.search.engine import Engine
    from bocb_mm.search.study import Study

    study, train = sys.argv[1:3]
    jobs = sys.argv[3] if len(sys.argv) > 3 else '2'
    address = sys.argv[4] if len(sys.argv) > 4 else ''
    engine = Engine(
        jobs=int(jobs), threads=1, most_rest=0.2, address=address or None,
        gpus_per_trial=0 if address else 1,
    )  # fmt: skip

    def say(progress: Any) -> None:
        if progress.ended is not None or progress.said:
            print(progress.said or progress.ended, flush=True)

    sys.exit(work(Study.open(study), engine, train=getattr(plain, train), on_progress=say))
