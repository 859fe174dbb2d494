"""The driver: it hands a study's trials to Ray, a few at a time, until none is left."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from bocb_mm.errors import UserError
from bocb_mm.launch.trial import Train, train_trial
from bocb_mm.runs import exit_codes, lock
from bocb_mm.search.engine import Engine, EngineLost, RunningEngine
from bocb_mm.search.plan import Cell
from bocb_mm.search.state import CLAIM, COLUMNS, Row, note_attempt
from bocb_mm.search.study import Study
from bocb_mm.search.worker import Ended, Job

POLL_SECONDS = 0.5
LOOK_SECONDS = 3.0  # between two looks at what other drivers train
SAVE_SECONDS = 600.0  # for trials to save after a signal
_AHEAD = 2  # submitted attempts, as a multiple of the places there are
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@dataclass(frozen=True)
class Progress:
    """How far a study is.

    Attributes:
        rows: Every trial, by its cell.
        counts: Number of trials in each of :data:`bocb_mm.search.state.COLUMNS`.
        ended: The attempt that has just ended; ``None`` if it is only time for a sign of life.
        said: A line for people; ``''`` if there is none.
    """

    rows: dict[Cell, Row]
    counts: Counter[str]
    ended: Ended | None = None
    said: str = ''


def work(
    study: Study,
    engine: Engine | None = None,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    shard: tuple[int, int] = (1, 1),
    wait: bool = True,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    train: Train = train_trial,
) -> int:
    """Train what waits; any number of drivers may work on a study.

    Args:
        study: The study.
        engine: Where trials are placed; default: one at a time on the CPU.
        trials: End after so many.
        minutes: End after so long, saving.
        shard: (i, n): take every n-th trial from the i-th on.
        wait: Stay while other drivers train, to take over what they may lose.
        on_progress: Is told about twice a second, and of every end.
        train: Trains a trial; tests give their own.

    Returns:
        An exit status of :mod:`bocb_mm.runs.exit_codes`: completed or interrupted.

    Raises:
        UserError: A config has changed, or there is no place for a trial.
    """
    if train is train_trial:
        from bocb_mm.config.changes import check

        for config, note in study.plan.configs.items():
            check(study.plan.path_of(config), study.plan.options, note)
    driver = _Driver(study, engine or Engine(), shard, on_progress, train)
    driver.left = sys.maxsize if trials is None else trials
    driver.until = time.monotonic() + (float('inf') if minutes is None else 60 * minutes)
    driver.stays = wait
    return driver.run()


class _Driver:
    """Which trials wait, which are submitted, and what is known of each."""

    def __init__(
        self,
        study: Study,
        engine: Engine,
        shard: tuple[int, int],
        on_progress: Callable[[Progress], None],
        train: Train,
    ) -> None:
        self.study, self.engine, self.shard = study, engine, shard
        self.on_progress, self.train = on_progress, train
        self.plan = study.plan
        self.rows: dict[Cell, Row] = {}
        self.counts: Counter[str] = Counter(dict.fromkeys(COLUMNS, 0))
        self.queue: deque[Cell] = deque()
        self.submitted: dict[Any, Cell] = {}
        self.elsewhere: set[Cell] = set()  # trained by another driver
        self.avoid: dict[Cell, set[str]] = {}  # nodes whose failure ended an attempt
        self.signals = 0
        self.left, self.until, self.stays = sys.maxsize, float('inf'), True
        self.next_look, self.places = 0.0, 0
        self.running: RunningEngine | None = None
        self.environment = {k: v for k, v in os.environ.items() if k.startswith('BOCB_')}
        if self.engine.address is None:
            self.environment['TMPDIR'] = tempfile.gettempdir()  # Ray's processes have their own

    def run(self) -> int:
        """Work until nothing is left, the limit is reached, or a signal comes."""
        self._take_in()
        if not self.queue and not (self.stays and self.elsewhere):
            return exit_codes.COMPLETED
        with _handlers_kept():
            lost = True
            while lost:
                with RunningEngine(self.engine, self.study.plan.processes) as self.running:
                    self._catch_signals()  # Ray has just set its own
                    lost = self._until_it_is_over(self.running)
                if lost:
                    self._take_back()
            self._wait_for_saving()
        return exit_codes.INTERRUPTED if self.signals else exit_codes.COMPLETED

    def _until_it_is_over(self, running: RunningEngine) -> bool:
        """Advance; True if Ray is lost on the way."""
        self.next_look = 0.0
        try:
            while self._advance(running):
                pass
        except EngineLost as error:
            self._tell(said=f'{error}: starting Ray anew')
            return not self.signals
        return False

    def _advance(self, running: RunningEngine) -> bool:
        """Submit what there is room for, collect what ended; False when it is over."""
        if time.monotonic() > self.until and not self.signals:
            self._tell(said='time limit: ending the trainings')
            self.signals += 1
        if self.signals:
            return False
        if time.monotonic() > self.next_look or not (self.queue or self.submitted):
            self._look_around(running)
        while self.queue and self.left > 0 and len(self.submitted) < _AHEAD * self.places + 1:
            self._submit(running, self.queue.popleft())
        if not self.submitted:
            if self.left <= 0 or not (self.stays and self.elsewhere):
                return False
            time.sleep(POLL_SECONDS)
            self._tell()
            return True
        for reference in running.wait(list(self.submitted), POLL_SECONDS):
            self._ended(self.submitted.pop(reference), running.result(reference))
        self._tell()
        return True

    # -- trials -----------------------------------------------------------------------------

    def _take_in(self) -> None:
        """Read what has become of the trials that are not known yet."""
        self.plan = self.study.plan
        index, of = self.shard
        for cell in self.study.plan.cells[index - 1 :: of]:
            if cell in self.rows:
                continue
            row = self.study.row(cell)
            self._set(row)
            if row.column == 'waiting':
                self.queue.append(cell)
            elif row.column == 'running':
                self.elsewhere.add(cell)

    def _look_around(self, running: RunningEngine) -> None:
        """Notice new nodes, new trials, and what other drivers have finished or lost."""
        self.places = running.places()
        self.next_look = time.monotonic() + LOOK_SECONDS
        self.study.reload()
        if self.study.plan is not self.plan:
            self._take_in()
        for cell in list(self.elsewhere):
            row = self.study.row(cell)
            if row.column != 'running':
                self.elsewhere.discard(cell)
                self._set(row)
                if row.column == 'waiting':
                    self.queue.append(cell)

    def _submit(self, running: RunningEngine, cell: Cell) -> None:
        job = Job(
            cell,
            str(self.study.directory),
            self.study.plan.identity,
            self.train,
            self.engine.threads_each,
            self.engine.on_gpu,
            self.environment,
            self.engine.most_rest,
        )
        reference = running.submit(job, frozenset(self.avoid.get(cell, ())))
        self.submitted[reference] = cell
        self.left -= 1

    def _ended(self, cell: Cell, ended: Ended | None) -> None:
        if ended is None:
            ended = self._lost(cell)
        if ended.refused:
            raise UserError(
                f'{ended.refused}; the study must be on a file system that all nodes share, under '
                'the same path'
            )
        row = ended.row
        if ended.ran and row.column in ('waiting', 'running'):
            # What the driver knows counts too: on a full disk nothing is written down.
            failures = max(row.failures, self.rows[cell].failures + (row.outcome != 'interrupted'))
            given_up = failures > self.study.plan.retries
            row = replace(row, column='failed' if given_up else 'waiting', failures=failures)
            ended = replace(ended, row=row)
            if row.outcome == 'machine':
                self.avoid.setdefault(cell, set()).add(ended.node_id)
            if not given_up:
                self.queue.append(cell)
        if not ended.ran:
            self.left += 1  # it was not this driver's
            if row.column == 'running':
                self.elsewhere.add(cell)
        self._set(row)
        self._tell(ended if ended.ran else None)

    def _lost(self, cell: Cell) -> Ended:
        """An attempt whose process or node is gone."""
        message = 'the process that watched over the trial, or its node, is gone'
        directory = self.study.directory_of(cell)
        with suppress(OSError):
            note_attempt(directory, 'lost', message)
        return Ended(replace(self.study.row(cell), outcome='lost', message=message))

    def _take_back(self) -> None:
        """Let trials wait again of a Ray that is gone; theirs is no failure."""
        self.queue.extendleft(reversed(list(self.submitted.values())))
        self.left += len(self.submitted)
        self.submitted.clear()

    def _set(self, row: Row) -> None:
        before = self.rows.get(row.cell)
        if before is not None:
            self.counts[before.column] -= 1
        self.counts[row.column] += 1
        self.rows[row.cell] = row

    def _tell(self, ended: Ended | None = None, said: str = '') -> None:
        counts = Counter(self.counts)
        here = min(len(self.submitted), self.places)
        counts.update(waiting=-here, running=here)
        self.on_progress(Progress(self.rows, counts, ended, said))

    # -- the end ----------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any = None) -> None:
        """End in good order; the second time at once: trainings save and end by themselves."""
        self.signals += 1
        if self.signals > 1:
            if self.running is not None:
                self.running.remove_files()
            os._exit(exit_codes.INTERRUPTED)

    def _wait_for_saving(self) -> None:
        """Ray is gone, and so the trials were asked to end: wait until they have saved."""
        until = time.monotonic() + SAVE_SECONDS
        for cell in self.submitted.values():
            directory = self.study.directory_of(cell)
            while lock.is_held(directory) or lock.is_held(directory, CLAIM):
                if time.monotonic() > until:
                    return
                time.sleep(0.1)


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Let signals do afterwards what they did before."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)
