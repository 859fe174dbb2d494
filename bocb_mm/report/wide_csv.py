"""Wide CSV files: first column optimizers, one further column a backbone."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

import pandas as pd

from bocb_mm.errors import UserError
from bocb_mm.report import names, stats

_DIVERGED_WORDS = ('diverged', 'div', 'div.', 'inf', '-inf')
_MISSING_WORDS = ('', '-', '–', '—', 'nan', 'na', 'n/a', 'none', 'missing')
_NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?', re.ASCII)


def read(path: Path) -> pd.DataFrame:
    """The numbers of a wide CSV file, NaN missing and :data:`stats.DIVERGED` diverged.

    An empty cell is missing; ``diverged`` (or ``-inf``) is a run that diverged. Commas, semicolons
    (with decimal commas) and tabs separate.

    Raises:
        UserError: Not a table: the file, the row and the column are named.
    """
    lines, separator = _lines(path)
    if len(lines) < 2 or len(lines[0]) < 2:
        raise UserError(
            f'{path}: a row of backbones and a row for each optimizer are expected, separated by '
            'commas, semicolons or tabs'
        )
    columns = [c.strip() for c in lines[0][1:]]
    index = [line[0].strip() for line in lines[1:]]
    _once(path, 'column', columns, columns)
    _once(path, 'optimizer', index, [names.optimizer(o) for o in index])
    numbers = []
    for line in lines[1:]:
        if len(line) != len(lines[0]):
            raise UserError(
                f'{path}: row {line[0]!r} has {len(line)} cells, not {len(lines[0])}; '
                'leave the cell of a missing result empty'
            )
        cells = zip(columns, line[1:])
        numbers.append([_number(path, line[0], c, v, separator) for c, v in cells])
    return pd.DataFrame(numbers, index=index, columns=columns, dtype=float)


def _lines(path: Path) -> tuple[list[list[str]], str]:
    """The lines that are not blank, and what separates their cells: what the first has most of."""
    try:
        text = path.read_text(encoding='utf-8-sig')
        head = next((line for line in text.splitlines() if line.strip()), '')
        separator = max(',;\t', key=head.count)
        rows = csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=True)
        return [line for line in rows if any(c.strip() for c in line)], separator
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'{path}: cannot be read as CSV ({error})') from None


def _once(path: Path, what: str, labels: list[str], meant: list[str]) -> None:
    """Refuse labels that mean the same: they would be one row or column."""
    seen: dict[str, str] = {}
    for label, meaning in zip(labels, meant):
        if meaning in seen:
            other = '' if seen[meaning] == label else f' (as {seen[meaning]!r})'
            raise UserError(f'{path}: {what} {label!r} stands there twice{other}; keep one')
        seen[meaning] = label


def _number(path: Path, row: str, column: str, cell: str, separator: str) -> float:
    word = cell.strip().lower()
    if word in _MISSING_WORDS:
        return math.nan
    if word in _DIVERGED_WORDS:
        return stats.DIVERGED
    plain = word.replace(',', '.') if separator != ',' else word
    value = float(plain) if _NUMBER.fullmatch(plain) else math.nan
    if not abs(value) < 1e9:  # far beyond any metric; the statistics square it
        raise UserError(
            f'{path}: row {row!r}, column {column!r}: {cell!r} is no result '
            '(leave a missing one empty, write "diverged" for a diverged one)'
        )
    return value
