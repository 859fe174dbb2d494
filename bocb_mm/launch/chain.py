"""A chain of trainings, each in a clean process (:mod:`bocb_mm.launch.process`).

A training starts as soon as there is room and the checkpoint that it starts from.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bocb_mm.errors import UserError
from bocb_mm.launch import process
from bocb_mm.launch.process import LOG_FILE, MOST_THREADS, Setup, Training
from bocb_mm.runs.record import RunRecord

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """One training of a chain.

    Attributes:
        name: Unique in the chain; also the run's folder below the chain's.
        config: Path of the config.
        optimizer: Name in the catalog.
        lr: Base learning rate.
        weight_decay: Weight decay.
        weight: Its share of the progress bar, about its seconds.
        after: Job whose last checkpoint the backbone starts from; ``''`` for none.
        options: Further overrides of the config.
        pretrained: What the backbone of a job without ``after`` starts from.
    """

    name: str
    config: str
    optimizer: str
    lr: float
    weight_decay: float
    weight: float = 1.0
    after: str = ''
    options: tuple[tuple[str, Any], ...] = ()
    pretrained: str = 'none'


def check(jobs: Sequence[Job]) -> None:
    """Refuse a chain that cannot be run.

    Raises:
        UserError: Two jobs of one name, or one that waits for a job that does not stand before it.
    """
    seen: set[str] = set()
    for job in jobs:
        if job.name in seen:
            raise UserError(f'job {job.name!r} is twice in the chain; names must be unique')
        if job.after and job.after not in seen:
            raise UserError(
                f'job {job.name!r} waits for {job.after!r}, which is not before it; put it there'
            )
        seen.add(job.name)


Train = Callable[[Job, Path, str], int]
"""Trains (job, folder, pre-trained checkpoint or ``'none'``); returns an exit status.

A function that can be imported: it runs in a process of its own.
"""

TOOLBOXES = {'classification': 'mmpretrain', 'detection': 'mmdet', 'pose': 'mmpose'}


def warm_up(tasks: Iterable[str] = tuple(TOOLBOXES)) -> None:
    """Let the imports that a training needs begin, in the server that trainings are forked from.

    Args:
        tasks: What is going to be trained; the toolboxes of other tasks are left out.
    """
    process.warm_up(TOOLBOXES[task] for task in tasks)


def train_job(job: Job, folder: Path, pretrained: str) -> int:
    """Train one job; returns an exit status of :mod:`bocb_mm.runs.exit_codes`."""
    from bocb_mm.launch.train import TrainOptions, prepare, train

    options = TrainOptions(
        optimizer=job.optimizer,
        lr=job.lr,
        weight_decay=job.weight_decay,
        pretrained=pretrained,
        work_dir=str(folder),
        cfg_options=dict(job.options),
    )
    return train(prepare(job.config, options), options)


def run_chain(
    jobs: Sequence[Job],
    folder: Path,
    workers: int = 2,
    console: Console | None = None,
    train: Train = train_job,
) -> dict[str, RunRecord]:
    """Train all jobs, each as soon as a worker and its predecessor's checkpoint are there.

    Args:
        jobs: Predecessors stand before those that wait for them.
        folder: Holds one folder a job, with ``run.json``, checkpoints and ``log.txt``.
        workers: Trainings at a time; the processor's cores are shared among them.
        console: Where the bar goes; standard output by default. Without a terminal, one line is
            printed when a job ends.
        train: Trains one job, in a process of its own.

    Returns:
        The record of every job that completed, by name.

    Raises:
        UserError: The chain is no chain, see :func:`check`.
    """
    check(jobs)
    console = console or Console()
    chain = _Chain(jobs, folder, workers, train)
    with _Bar(console, sum(job.weight for job in jobs)) as bar:
        try:
            while chain.advance(bar):
                time.sleep(POLL_SECONDS)
        finally:
            chain.stop()
    return chain.records


class _Chain:
    """Which jobs wait, run and are done."""

    def __init__(self, jobs: Iterable[Job], folder: Path, workers: int, train: Train) -> None:
        self.waiting = list(jobs)
        self.running: dict[str, tuple[Job, Training]] = {}
        self.records: dict[str, RunRecord] = {}
        self.failed: set[str] = set()
        self.folder, self.workers, self.train = folder, workers, train
        cores = (os.cpu_count() or 1) // workers
        self.threads = min(max(1, cores), MOST_THREADS)

    def advance(self, bar: _Bar) -> bool:
        """Collect what ended, start what can; False when nothing is left."""
        for name, (job, training) in list(self.running.items()):
            bar.show(job, RunRecord.find(self.folder / name))
            if training.wait(0):
                del self.running[name]
                self._ended(job, training, bar)
        for job in list(self.waiting):
            if job.after in self.failed:
                self.waiting.remove(job)
                self.failed.add(job.name)
                bar.end(job, f'left out: {job.after} did not complete')
            elif len(self.running) < self.workers and (not job.after or job.after in self.records):
                self.waiting.remove(job)
                self.running[job.name] = job, self._start(job)
        return bool(self.running or self.waiting)

    def stop(self) -> None:
        """End trainings that still run (after an interrupt)."""
        for _, training in self.running.values():
            training.kill()
            training.wait()
        self.running.clear()

    def _ended(self, job: Job, training: Training, bar: _Bar) -> None:
        record = RunRecord.find(self.folder / job.name)
        code = training.exit_status
        if code == 0 and record is not None and record.status == 'completed':
            self.records[job.name] = record
            bar.end(job, summary(record))
            return
        self.failed.add(job.name)
        log = self.folder / job.name / LOG_FILE
        why = training.message or process.last_line(log) or 'its log is empty'
        bar.end(job, f'failed (exit status {code}): {why} - see {log}')

    def _start(self, job: Job) -> Training:
        pretrained = job.pretrained
        if job.after:
            before = self.folder / job.after
            pretrained = (before / 'last_checkpoint').read_text(encoding='utf-8').strip()
        folder = self.folder / job.name
        setup = Setup(folder / LOG_FILE, threads=self.threads)
        toolboxes = TOOLBOXES.values() if self.train is train_job else ()
        return Training(self.train, (job, folder, pretrained), setup, toolboxes)


def summary(record: RunRecord) -> str:
    """The headline result of a run in a few words."""
    if record.last is None:
        return record.status
    return f'{record.metric.rpartition("/")[2]} {record.last:.3g}'


class _Bar:
    """A bar over the whole chain and one below it for each running job."""

    def __init__(self, console: Console, total: float) -> None:
        self.console = console
        self.total = total
        self.done = 0.0
        self.parts: dict[str, TaskID] = {}
        self._shares: dict[str, float] = {}  # of running jobs, in units of their weight
        # No refreshing thread: the process forks, and a lock held by a thread would stay held.
        self.progress = Progress(
            TextColumn('{task.description:<44}'),
            BarColumn(),
            TextColumn('{task.percentage:>3.0f} %'),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=False,
            disable=not console.is_terminal,
        )
        self.whole = self.progress.add_task('whole chain', total=total)

    def __enter__(self) -> _Bar:
        self.started = time.monotonic()
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.refresh()
        self.progress.stop()

    def show(self, job: Job, record: RunRecord | None) -> None:
        """Draw the share of a running job that is done."""
        if job.name not in self.parts:
            self.parts[job.name] = self.progress.add_task(f'  {job.name}', total=1.0)
        share = record.epochs / record.max_epochs if record and record.max_epochs else 0.0
        self.progress.update(self.parts[job.name], completed=share)
        self._update_whole({job.name: share * job.weight})

    def end(self, job: Job, text: str) -> None:
        """Print the line of a job that ended and drop its bar."""
        if job.name in self.parts:
            self.progress.remove_task(self.parts.pop(job.name))
        self.done += job.weight
        self._shares.pop(job.name, None)
        self._update_whole({})
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        share = 100 * self.done / self.total
        line = f'{share:3.0f} % {minutes}:{seconds:02d} {job.name}: {text}'
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _update_whole(self, news: dict[str, float]) -> None:
        self._shares.update(news)
        self.progress.update(self.whole, completed=self.done + sum(self._shares.values()))
        self.progress.refresh()
