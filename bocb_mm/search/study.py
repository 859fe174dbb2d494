"""A study: a directory with a plan and the runs that it leads to."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bocb_mm.errors import UserError
from bocb_mm.launch.trial import start_anew
from bocb_mm.runs import lock
from bocb_mm.runs.record import FILE_NAME, RunRecord
from bocb_mm.search.plan import PLAN_FILE, Cell, Plan
from bocb_mm.search.state import ATTEMPTS_FILE, Row, look

_PLAN_LOCK = '.plan.lock'


class Study:
    """A study on the disk.

    Args:
        directory: Where it is.
        plan: Its plan.

    Example:
        >>> study = Study.create('work_dirs/s', [Cell('net.py', 'SGD', 0.1, 0.0)])  # doctest: +SKIP
        >>> [row.column for row in study.rows()]  # doctest: +SKIP
        ['waiting']
    """

    def __init__(self, directory: Path, plan: Plan, read: tuple[int, int] | None = None) -> None:
        self.directory, self.plan = directory, plan
        self._read = read or _written(directory)

    @classmethod
    def create(
        cls,
        directory: str | os.PathLike[str],
        cells: Iterable[Cell],
        takes_over: bool = False,
        **settings: Any,
    ) -> Study:
        """Write a plan down.

        Args:
            directory: Where; it is made.
            cells: The trials.
            takes_over: Whether runs that are there already are the study's.
            settings: Fields of :class:`bocb_mm.search.plan.Plan`.

        Raises:
            UserError: There is a study, the directory cannot be written, a config cannot be read,
                or there are runs already where the trials would train.
        """
        place = Path(os.path.abspath(directory))
        given = {'folder': str(Path.cwd()), **settings}
        _refuse_existing(place)
        plan = _with_notes(Plan((), **given).with_cells(cells))
        if not takes_over:
            _refuse_runs(plan.cells, _runs(place, plan))
        with _locked(place):
            _refuse_existing(place)  # nobody else has created it since
            plan.save(place)
            return cls(place, plan)

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> Study:
        """Read a study.

        Raises:
            UserError: There is none, or none that can be read.
        """
        place = Path(os.path.abspath(directory))
        if Path(directory).is_file():
            raise UserError(
                f'{directory}: a study is a directory; a database of an earlier version becomes '
                f'one by bocb sweep import DIRECTORY {directory}'
            )
        read = _written(place)  # before the plan: one that is written meanwhile is read again
        return cls(place, Plan.load(place), read)

    def add(self, cells: Iterable[Cell]) -> int:
        """Add trials; drivers that work on the study notice. Returns how many are new.

        Raises:
            UserError: As :meth:`create`.
        """
        with _locked(self.directory):
            before = Plan.load(self.directory)
            plan = _with_notes(before.with_cells(cells))
            if plan != before:
                known = set(before.cells)
                _refuse_runs([cell for cell in plan.cells if cell not in known], self.runs)
                plan.save(self.directory)
            self.plan, self._read = plan, _written(self.directory)
        return len(plan.cells) - len(before.cells)

    def change(self, **settings: Any) -> None:
        """Change fields of the plan."""
        with _locked(self.directory):
            plan = dataclasses.replace(Plan.load(self.directory), **settings)
            plan.save(self.directory)
            self.plan, self._read = plan, _written(self.directory)

    def follow_config(self, path: str) -> None:
        """Take the config of a study of one from where it is now; nothing if it has not moved."""
        (was,) = self.plan.configs
        before = os.path.realpath(self.plan.path_of(was))
        if os.path.isfile(path) and os.path.realpath(path) != before:
            moved = _with_notes(self.plan.with_config_at(path))
            self.change(cells=moved.cells, configs=moved.configs)

    def reload(self) -> bool:
        """Read the plan again if it has been written since; whether it was."""
        written = _written(self.directory)
        if written == self._read or written is None:
            return False
        self.plan, self._read = Plan.load(self.directory), written
        return True

    def directory_of(self, cell: Cell) -> Path:
        """Where a trial trains."""
        return cell.directory(self.runs)

    @property
    def runs(self) -> Path:
        """The directory of the run directories."""
        return _runs(self.directory, self.plan)

    def row(self, cell: Cell) -> Row:
        """What has become of a trial."""
        return look(cell, self.directory_of(cell), self.plan.retries)

    def rows(self) -> list[Row]:
        """What has become of every trial."""
        return [self.row(cell) for cell in self.plan.cells]

    def try_again(self) -> None:
        """Forget the attempts of trials that failed, and runs that ended without a result."""
        for row in self.rows():
            if row.column == 'failed':
                directory = self.directory_of(row.cell)
                (directory / ATTEMPTS_FILE).unlink(missing_ok=True)
                run = RunRecord.find(directory)
                if run is not None and run.status == 'completed':
                    start_anew(directory, '.failed')


def _runs(directory: Path, plan: Plan) -> Path:
    return Path(plan.folder, plan.work_dir) if plan.work_dir else directory


def _refuse_runs(cells: Iterable[Cell], runs: Path) -> None:
    """A directory's name says nothing of the options that all trials share."""
    for cell in cells:
        folder = cell.directory(runs)
        if (folder / FILE_NAME).exists():
            raise UserError(
                f'{folder}: holds a run already, which the study would count as its own; give the '
                'study another directory, or move the run away'
            )


def _written(directory: Path) -> tuple[int, int] | None:
    """What changes whenever the plan in a directory is written."""
    try:
        found = os.stat(directory / PLAN_FILE)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _refuse_existing(directory: Path) -> None:
    if (directory / PLAN_FILE).exists():
        raise UserError(
            f'{directory}: exists already; extend it with best --extend, or take another name'
        )


def _with_notes(plan: Plan) -> Plan:
    """With a note of each config that has none yet."""
    new = [c for c in dict.fromkeys(cell.config for cell in plan.cells) if c not in plan.configs]
    if not new:
        return plan
    from bocb_mm.config.changes import note

    notes: Mapping[str, Any] = {c: note(plan.path_of(c), plan.options) for c in new}
    return dataclasses.replace(plan, configs={**plan.configs, **notes})


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Change a plan alone."""
    while True:
        try:
            lock.acquire(directory, _PLAN_LOCK)
            break
        except lock.DirectoryInUse:
            time.sleep(0.1)
    try:
        yield
    finally:
        lock.release(directory, _PLAN_LOCK)
