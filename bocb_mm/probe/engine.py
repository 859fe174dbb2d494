"""Run the trials of a probe through the search's engine: any number of workers, resumable."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from bocb_mm.probe.options import Options
from bocb_mm.probe.plan import Trial
from bocb_mm.runs.record import RunRecord
from bocb_mm.search.engine import Engine, engine_here
from bocb_mm.search.plan import Cell
from bocb_mm.search.study import Study


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        value: Result as logged, ``-inf`` where it diverged, NaN without a result.
        seconds: That it took.
        directory: Where it is.
        message: Why it diverged or has no result.
        kind: ``'completed'``, ``'diverged'``, or the engine's word for why it failed.
        larger_is_better: Of the value.
    """

    value: float
    seconds: float | None = None
    directory: str = ''
    message: str = ''
    kind: str = 'completed'
    larger_is_better: bool = True

    @property
    def score(self) -> float:
        """The value such that more is better, also of an error."""
        return self.value if self.larger_is_better or math.isinf(self.value) else -self.value


def place(options: Options) -> Engine:
    """Where the trainings run: named GPUs or a cluster, else all GPUs, else every core.

    On a cluster ``jobs`` means on the CPU; how many at a time is Ray's.

    Raises:
        UserError: GPUs that are not there.
    """
    if options.address:
        each = 0.0 if options.jobs else 1.0
        return Engine(address=options.address, gpus_per_trial=each, threads=options.threads)
    found = engine_here(options.gpus, options.jobs, threads=options.threads)
    if found.on_gpu or options.jobs:
        return found
    return replace(found, jobs=len(os.sched_getaffinity(0)))


class Trials(Protocol):
    """What a probe needs of an engine."""

    def add(self, trials: Iterable[Trial]) -> None:
        """Have these trained; those that are known already are passed over."""

    def outcomes(self) -> dict[Trial, Outcome]:
        """Of every trial that has ended."""

    def work(self, on_end: Callable[[], None]) -> int:
        """Train until nothing waits; ``on_end`` is called whenever a trial has ended.

        Returns:
            An exit status: 0 all ended, 75 interrupted.
        """


class StudyTrials:
    """Trials as cells of a study in a directory.

    Args:
        folder: The study's directory.
        cell_of: From a trial to the fields of its cell.
        common: What all cells share: ``options``, ``pretrained``, ``amp``.
        engine: Where they are trained.
    """

    def __init__(
        self, folder: Path, cell_of: Callable[[Trial], Mapping[str, Any]],
        common: Mapping[str, Any], engine: Engine,
    ) -> None:  # fmt: skip
        self.folder, self.cell_of = folder, cell_of
        self.common, self.engine = dict(common), engine
        self._trials: dict[Any, Trial] = {}
        self._study: Any = None

    def add(self, trials: Iterable[Trial]) -> None:
        """Add the trials' cells to the study, which is made with the first ones."""
        cells = {Cell(**self.cell_of(t)): t for t in trials}
        self._trials |= cells
        if self._study is None:
            if (self.folder / 'plan.json').exists():
                self._study = Study.open(self.folder)
                self._study.follow_config(next(iter(cells)).config)
                self._study.try_again()  # what failed may have been put right
            else:
                self._study = Study.create(self.folder, list(cells), **self.common)
        # By a study of its own: a driver that is working with the first one looks at the file.
        Study.open(self.folder).add(list(cells))

    def outcomes(self) -> dict[Trial, Outcome]:
        """Read the run directories."""
        rows = {trial: self._study.row(cell) for cell, trial in self._trials.items()}
        ended = ('done', 'diverged', 'failed')
        return {t: self._outcome(row) for t, row in rows.items() if row.column in ended}

    def _outcome(self, row: Any) -> Outcome:
        value = {'done': row.value, 'diverged': -math.inf}.get(row.column)
        where = self._study.directory_of(row.cell)
        if row.column != 'failed':
            drop_checkpoints(where)
        return Outcome(
            math.nan if value is None else value, row.seconds, str(where), row.message,
            row.outcome, row.larger_is_better,
        )  # fmt: skip

    def work(self, on_end: Callable[[], None]) -> int:
        """Train with the engine."""
        from bocb_mm.search.driver import work

        def progress(found: Any) -> None:
            if found.ended is not None:
                on_end()

        self._study = Study.open(self.folder)  # with what was added since
        return work(self._study, self.engine, on_progress=progress)


def drop_checkpoints(directory: Path) -> None:
    """Delete the checkpoints of a run that has ended: a probe keeps results, not weights."""
    for file in (*directory.glob('*.pth'), directory / 'last_checkpoint'):
        file.unlink(missing_ok=True)


def record_of(outcomes: Mapping[Trial, Outcome]) -> RunRecord | None:
    """The record of a run with a result: it knows the metric and the data."""
    for outcome in outcomes.values():
        if math.isfinite(outcome.value) and outcome.directory:
            record = RunRecord.find(outcome.directory)
            if record is not None:
                return record
    return None
