"""What ``sweep.py work`` shows: a table that lives on a terminal, a line a trial elsewhere."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bocb_mm.search import summary
from bocb_mm.search.driver import Progress
from bocb_mm.search.engine import Engine
from bocb_mm.search.study import Study
from bocb_mm.words import counted

_REFRESH_SECONDS = 2.0
_MOST_PAIRS, _MOST_LINES = 24, 6


class View:
    """Shows how far a study is; a context.

    Args:
        study: The study.
        engine: Where its trials are placed.
        console: Where it is shown; default: standard output.
    """

    def __init__(self, study: Study, engine: Engine, console: Console | None = None) -> None:
        self.console = console or Console()
        self.study, self.engine = study, engine
        self.live: Live | None = None
        self.lines: deque[str] = deque(maxlen=_MOST_LINES)
        self.next = 0.0

    def __enter__(self) -> View:
        where = self.engine.address or (
            f'GPUs {",".join(self.engine.gpus)}' if self.engine.gpus
            else f'the CPU, {self.engine.jobs} at a time'
        )  # fmt: skip
        self.console.print(
            f'{counted(len(self.study.plan.cells), "trial")} in {self.study.runs}, on {where}, '
            f'{counted(self.engine.threads_each, "thread")} each',
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        if self.console.is_terminal:
            self.live = Live(console=self.console, auto_refresh=False).__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.live is not None:
            self.live.__exit__(*error)

    def show(self, progress: Progress) -> None:
        """Draw, or print the line of a trial that has ended."""
        line = progress.said or (line_of(progress) if progress.ended is not None else '')
        if line and self.live is None:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        elif line:
            self.lines.append(line)
        if self.live is not None and (line or time.monotonic() > self.next):
            self.next = time.monotonic() + _REFRESH_SECONDS
            self.live.update(picture(progress, list(self.lines)), refresh=True)


def line_of(progress: Progress) -> str:
    """The line of an attempt that has ended."""
    assert progress.ended is not None
    row, total = progress.ended.row, len(progress.rows)
    done = total - progress.counts['waiting'] - progress.counts['running']
    spent = f'{progress.ended.seconds:.0f} s, processor {progress.ended.cpu_seconds:.0f} s'
    text = f'{row.value:.4g}' if row.value is not None else f'{row.outcome}: {row.message}'
    if row.column == 'waiting':
        text = f'{row.outcome}, waits again: {row.message}'
    return f'{done}/{total} {row.cell}: {text} ({spent})'


def picture(progress: Progress, lines: list[str]) -> Group:
    """Counts, the best so far of each pair, time left, the latest lines."""
    rows = list(progress.rows.values())
    table = Table(box=None, pad_edge=False)
    for name in ('config', 'optimizer'):
        table.add_column(name)
    for name in ('done', 'left', 'failed', 'best', 'lr', 'wd'):
        table.add_column(name, justify='right')
    found = {(b.config, b.optimizer): b for b in summary.best_settings(rows)}
    pairs = summary.progress(rows)
    for pair, counts in list(pairs.items())[:_MOST_PAIRS]:
        best = found.get(pair)
        told = ['', '', '']
        if best is not None:
            value = 'diverged' if best.value is None else f'{best.value:.4g}'
            told = [value, f'{best.lr:g}', f'{best.weight_decay:g}']
        done = str(counts['done'] + counts['diverged'])
        left = str(counts['waiting'] + counts['running'])
        table.add_row(*pair, done, left, str(counts['failed'] or ''), *told)
    parts: list[Any] = [table]
    if len(pairs) > _MOST_PAIRS:
        parts.append(Text(f'and {len(pairs) - _MOST_PAIRS} more pairs'))
    running = progress.counts['running']
    counts_line = ', '.join(f'{n} {column}' for column, n in progress.counts.items() if n)
    left = time_left(summary.seconds_left(rows, running), running or 1)
    return Group(*parts, Text(f'{counts_line}; {left}', style='bold'), *map(Text, lines))


def time_left(seconds: float | None, running: int) -> str:
    """The time left, for people.

    Example:
        >>> time_left(5000, 2), time_left(None, 0)
        ('1:24 h left', 'nothing runs: start bocb sweep work')
    """
    if seconds is not None:
        hours, minutes = divmod(math.ceil(seconds / 60), 60)
        return f'{hours}:{minutes:02d} h left' if seconds else 'finished'
    if running:
        return 'time left is known when a trial is done'
    return 'nothing runs: start bocb sweep work'
