"""An attempt at a trial, where Ray has placed it: claim, train in a clean process, judge."""

from __future__ import annotations

import functools
import os
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from bocb_mm.errors import UserError
from bocb_mm.launch import outcomes
from bocb_mm.launch.outcomes import BY_NAME, Outcome
from bocb_mm.launch.process import LOG_FILE, Setup, Training
from bocb_mm.launch.trial import Task, Train
from bocb_mm.runs import lock
from bocb_mm.runs.files import remove_leftovers
from bocb_mm.search.plan import Cell, Plan
from bocb_mm.search.state import CLAIM, Row, note_attempt
from bocb_mm.search.study import Study

MOST_REST = 300.0  # seconds without a new trial after failures of the machine
_failures = 0  # of the machine, one after the other, in this process


@dataclass(frozen=True)
class Job:
    """What Ray places: one attempt at a trial.

    Attributes:
        cell: The trial.
        study: Directory of the study.
        identity: Of the study.
        train: Trains it.
        threads: To compute with.
        on_gpu: Whether Ray gives it a GPU.
        environment: Variables of the driver that trainings read.
        most_rest: Longest rest in s.
    """

    cell: Cell
    study: str
    identity: str
    train: Train
    threads: int = 1
    on_gpu: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    most_rest: float = MOST_REST


@dataclass(frozen=True)
class Ended:
    """How an attempt ended.

    Attributes:
        row: What has become of the trial.
        ran: Whether it was trained; else somebody else trains it or has done so.
        refused: Why this node cannot work on the study; ``''`` if it can.
        node: Host name.
        node_id: As Ray names the node.
        seconds: It took.
        cpu_seconds: Processor time; 0 for one that was killed.
    """

    row: Row
    ran: bool = True
    refused: str = ''
    node: str = ''
    node_id: str = ''
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def attempt(job: Job, node_id: str = '') -> Ended:
    """Train a trial unless it is trained elsewhere or has a result.

    After a failure of the machine it keeps its place for a while: a full disk or a broken GPU would
    use up the retries of all trials in no time.
    """
    host = socket.gethostname()
    ended = functools.partial(Ended, node=host, node_id=node_id)
    try:
        study = _study(job.study)
        study.reload()
        if study.plan.identity != job.identity:
            raise UserError(f'{job.study} holds another study than where the driver runs')
    except Exception as error:
        return ended(Row(job.cell), False, f'{host}: {error}')
    directory = study.directory_of(job.cell)
    try:
        lock.acquire(directory, CLAIM)
        row = study.row(job.cell)
        if row.column in ('done', 'diverged', 'failed'):
            return ended(row, False)
        outcome, message, seconds, cpu_seconds = _train(job, study.plan, directory)
        notes = {'node': host, 'seconds': round(seconds, 2), 'cpu_seconds': round(cpu_seconds, 2)}
        with suppress(OSError):  # a full disk; the driver remembers
            note_attempt(directory, outcome.name, message, **notes)
    except lock.DirectoryInUse:
        return ended(Row(job.cell, 'running'), False)
    except (OSError, EOFError, UserError) as error:  # no directory or no process to be had
        outcome, message, seconds, cpu_seconds = BY_NAME['machine'], str(error), 0.0, 0.0
    finally:
        lock.release(directory, CLAIM)
    row = study.row(job.cell)
    if row.column in ('waiting', 'running') and row.outcome != outcome.name:  # not written down
        row = replace(row, outcome=outcome.name, message=message, failures=row.failures + 1)
    _rest(outcome, job.most_rest)
    return ended(row, seconds=seconds, cpu_seconds=cpu_seconds)


_study = functools.lru_cache(maxsize=1)(Study.open)  # a plan of 20,000 trials takes a second


def _train(job: Job, plan: Plan, directory: Path) -> tuple[Outcome, str, float, float]:
    """Run the trial's process: how it ended, why, its seconds, its processor's seconds."""
    remove_leftovers(directory / 'run.json')
    cell = job.cell
    task = Task(
        config=plan.path_of(cell.config),
        directory=directory,
        optimizer=cell.optimizer,
        lr=cell.lr,
        weight_decay=cell.weight_decay,
        seed=cell.seed,
        options={**plan.options, **cell.options},
        pretrained=cell.pretrained if cell.pretrained is not None else plan.pretrained,
        amp=plan.amp,
        processes=plan.processes,
        on_gpu=job.on_gpu,
    )
    setup = Setup(
        log=directory / LOG_FILE,
        folder=plan.folder if Path(plan.folder).is_dir() else '',
        devices=os.environ.get('CUDA_VISIBLE_DEVICES') if job.on_gpu else '-1',
        threads=job.threads,
        processes=plan.processes,
        environment=job.environment,
        status_of=outcomes.exit_status_of,
    )
    toolboxes = sorted({str(note['toolbox']) for note in plan.configs.values()})
    training = Training(job.train, (task,), setup, toolboxes)
    training.wait()
    return *_judge(training), training.seconds, training.cpu_seconds


def _judge(training: Training) -> tuple[Outcome, str]:
    """How a training ended, and why."""
    status = training.exit_status
    assert status is not None
    outcome, message = outcomes.of_exit(status), training.message
    if outcome.name == 'killed' and not message:
        with suppress(ValueError):
            message = f'ended by {signal.Signals(-status).name}'
        if status == outcomes.SERVER_GONE:
            message = 'the process that had started it is gone'
    elif outcome.name == 'interrupted' and not message:
        message = 'asked to end'
    return outcome, message


def _rest(outcome: Outcome, most: float) -> None:
    """Keep this place busy after a failure of the machine, twice as long each time."""
    global _failures
    if not outcome.retried or outcome.name == 'interrupted':
        _failures = 0
        return
    time.sleep(min(2.0**_failures, most))
    _failures += 1
