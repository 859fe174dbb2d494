"""What has become of a trial: its directory tells, and nothing else remembers.

``run.json`` says how far the training came, the lock whether it goes on, and ``attempts.jsonl``,
a line an attempt, why those before did not come to a result.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bocb_mm.launch.outcomes import BY_NAME, GIVEN_UP
from bocb_mm.runs import lock
from bocb_mm.runs.record import RunRecord
from bocb_mm.search.plan import Cell

ATTEMPTS_FILE = 'attempts.jsonl'
CLAIM = '.attempt.lock'
"""Held from the decision to train until the judgement; the run's own lock only while it trains."""
COLUMNS = ('waiting', 'running', 'done', 'diverged', 'failed')


@dataclass(frozen=True)
class Row:
    """A trial and what has become of it.

    Attributes:
        cell: The trial.
        column: One of :data:`COLUMNS`.
        value: Best result; ``None`` where there is none.
        larger_is_better: Of the value.
        outcome: How the last attempt ended, see :mod:`bocb_mm.launch.outcomes`; ``''`` if none has.
        message: Why.
        seconds: That its attempts took, of one that runs until now.
        failures: Attempts that failures of the machine ended.
    """

    cell: Cell
    column: str = 'waiting'
    value: float | None = None
    larger_is_better: bool = True
    outcome: str = ''
    message: str = ''
    seconds: float | None = None
    failures: int = 0

    @property
    def score(self) -> float:
        """The value such that more is better; minus infinity for a run that diverged."""
        if self.value is None or self.column == 'diverged':
            return -math.inf
        return self.value if self.larger_is_better else -self.value


def look(cell: Cell, directory: Path, retries: int) -> Row:
    """Read what has become of a trial.

    Args:
        cell: The trial.
        directory: Where it trains.
        retries: Attempts that failures of the machine may end, before it is given up.
    """
    run, before = RunRecord.find(directory), attempts(directory)
    if run is not None and run.status in ('completed', 'diverged'):
        larger, took = run.larger_is_better, _took(run, before)
        if run.status == 'diverged':
            return Row(cell, 'diverged', None, larger, 'diverged', run.message, took)
        if run.best is not None:
            return Row(cell, 'done', run.best, larger, 'completed', '', took)
        message = f'completed without a result: {_why_none(run)}'
        return Row(cell, 'failed', outcome='config error', message=message, seconds=took)
    failures = count_failures(before)
    last = before[-1] if before else {'outcome': '', 'message': ''}
    told: dict[str, Any] = {k: last[k] for k in ('outcome', 'message')} | {'failures': failures}
    if last['outcome'] in GIVEN_UP or failures > retries:
        return Row(cell, 'failed', **told)
    if lock.is_held(directory, CLAIM) or lock.is_held(directory):
        took = None if run is None else _took(run, before)
        if before:  # begun by an earlier attempt, maybe days ago
            took = sum(a['seconds'] for a in before) + _held(directory)
        return Row(cell, 'running', seconds=took, **told)
    return Row(cell, **told)


def _why_none(run: RunRecord) -> str:
    if run.warnings:
        return '; '.join(run.warnings)
    logged = sorted({name for e in run.evaluations for name in e} - {'epoch', 'iteration'})
    if logged:
        return f'no number for {run.metric or "its metric"}; logged were {", ".join(logged)}'
    return 'does the config validate (val_dataloader)?'


def attempts(directory: Path) -> list[dict[str, Any]]:
    """The attempts that have ended, oldest first; a line that a full disk cut off is left out."""
    try:
        text = (directory / ATTEMPTS_FILE).read_text(encoding='utf-8', errors='replace')
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        try:
            told = json.loads(line)
            done = int(told.get('iterations') or 0)
            outcome, message = str(told['outcome']), str(told.get('message', ''))
            seconds = float(told.get('seconds') or 0.0)
            told = {'outcome': outcome, 'message': message, 'iterations': done}
            found.append({**told, 'seconds': seconds})
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return found


def count_failures(before: list[dict[str, Any]]) -> int:
    """How many attempts failures of the machine ended; an interruption after progress is none."""
    failures, reached = 0, 0
    for told in before:
        outcome = BY_NAME.get(told['outcome'])
        if outcome is not None and outcome.retried:
            failures += outcome.name != 'interrupted' or told['iterations'] <= reached
        reached = max(reached, told['iterations'])
    return failures


def note_attempt(directory: Path, outcome: str, message: str, **notes: Any) -> None:
    """Add the line of an attempt that has ended.

    Raises:
        OSError: The disk is full.
    """
    run = RunRecord.find(directory)
    told = {
        'outcome': outcome,
        'message': message[:2000],
        'iterations': 0 if run is None else run.iterations,
        'ended': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
        **notes,
    }
    directory.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    file = os.open(directory / ATTEMPTS_FILE, flags, 0o644)
    try:
        # A line break before it: the last line may have been cut off.
        os.write(file, f'\n{json.dumps(told)}\n'.encode())
        os.fsync(file)
    finally:
        os.close(file)


def _held(directory: Path) -> float:
    """Seconds since the attempt began that holds the claim."""
    try:
        return max(0.0, time.time() - os.stat(directory / CLAIM).st_mtime)
    except OSError:
        return 0.0


def _took(run: RunRecord, before: list[dict[str, Any]]) -> float | None:
    """Seconds of a run's attempts; without any, from its start to its end, or to now."""
    if run.finished and (seconds := sum(a['seconds'] for a in before)):
        return seconds
    try:
        started = datetime.datetime.fromisoformat(run.started)
        ended = datetime.datetime.fromisoformat(run.finished) if run.finished else None
        took = (ended or datetime.datetime.now(started.tzinfo)) - started
    except (ValueError, TypeError):
        return None
    return max(0.0, took.total_seconds())
