"""What a check gives, and how it is written down."""

from __future__ import annotations

import json
import math
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

PASSED, FAILED, SKIPPED, MEASURED = 'pass', 'fail', 'skip', 'measured'


@dataclass(frozen=True)
class Settings:
    """What a stage is told.

    Attributes:
        device: ``'cuda'`` or ``'cpu'``.
        folder: For the stage's files.
        root: The checkout, for its tools and configs.
        deadline: When the stage should be through, by :func:`time.monotonic`.
    """

    device: str
    folder: Path
    root: Path
    deadline: float = math.inf

    @property
    def small(self) -> bool:
        """Whether everything is to be small: on a CPU."""
        return self.device == 'cpu'

    def seconds_left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()


@dataclass(frozen=True)
class Row:
    """One check: what was measured, the greatest value that passes, and the outcome."""

    stage: str
    check: str
    bound: float | None
    measured: float | str | None
    status: str
    reason: str = ''


class Report:
    """Writes the rows of one stage as JSON lines, each as soon as it is known.

    Args:
        stage: Name of the stage.
        file: Where the lines go.
    """

    def __init__(self, stage: str, file: TextIO) -> None:
        self.stage = stage
        self.file = file

    def _add(
        self, check: str, status: str, measured: float | str | None = None,
        bound: float | None = None, reason: str = '',
    ) -> None:  # fmt: skip
        row = Row(self.stage, check, bound, measured, status, ' '.join(reason.split())[:300])
        self.file.write(json.dumps(asdict(row)) + '\n')
        self.file.flush()

    def check(self, name: str, measured: float, bound: float) -> None:
        """Pass if ``measured`` is not greater than ``bound``; NaN fails."""
        status = PASSED if measured <= bound else FAILED
        self._add(name, status, measured, bound)

    def holds(self, name: str, right: bool, reason: str) -> None:
        """Pass if something is as it should be; ``reason`` says how it is otherwise."""
        self._add(name, PASSED if right else FAILED, reason='' if right else reason)

    def measure(self, name: str, measured: float | str) -> None:
        """Write down a figure that nothing is asked of."""
        self._add(name, MEASURED, measured)

    def skip(self, name: str, reason: str) -> None:
        """Say why a check did not run."""
        self._add(name, SKIPPED, reason=reason)

    def fail(self, name: str, reason: str) -> None:
        """Say why a check failed without a figure."""
        self._add(name, FAILED, reason=reason)

    @contextmanager
    def guard(self, name: str) -> Iterator[None]:
        """Let an error within the block fail the check ``name``, not the stage."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()  # into the stage's log
            self.fail(name, f'{type(error).__name__}: {error}')


def read_rows(path: Path) -> list[Row]:
    """The rows of a stage's file; a line that a killed stage left unfinished is left out."""
    rows = []
    for line in path.read_text(encoding='utf-8').splitlines() if path.exists() else ():
        try:
            rows.append(Row(**json.loads(line)))
        except json.JSONDecodeError:
            break
    return rows
