"""Checks files of results before a pull request: ``python -m bocb_mm.report.shared_check``."""

from __future__ import annotations

import argparse
import datetime
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bocb_mm import facts
from bocb_mm.errors import UserError, one_line_errors
from bocb_mm.report import shared
from bocb_mm.words import counted

_NUMBERS = ('lr', 'weight_decay', 'mean', 'ci_low', 'ci_high', 'gamma')
_HASH = re.compile(r'[0-9a-f]{16}')


def problems(paths: Sequence[Path], root: Path) -> list[str]:
    """Everything that is wrong with the files, one line each.

    Args:
        paths: Files of shared results.
        root: What paths in the column ``log`` start from.
    """
    found: list[str] = []
    seen: dict[tuple[str, ...], str] = {}
    for path in paths:
        try:
            rows = shared.rows(path)
        except (UserError, OSError, UnicodeDecodeError) as error:
            found.append(str(error))
            continue
        for number, row in enumerate(rows, 2):
            place = f'{path.name}:{number}'
            found += [f'{place}: {text}' for text in _of_row(row, root)]
            for seed in row['seeds'].split():
                key = (*shared.setting(row), seed, row['log'])
                if key in seen:
                    found.append(f'{place}: seed {seed} stands in {seen[key]} already, same log')
                seen.setdefault(key, place)
    return found


def _of_row(row: Mapping[str, str], root: Path) -> Iterator[str]:
    """What is wrong with one row."""
    for name in shared.REQUIRED:
        if not row[name].strip():
            yield f'{name} is empty'
    if row['format'] != shared.FORMAT:
        yield f'format {row["format"]!r}: {shared.FORMAT} is expected'
    if not _HASH.fullmatch(row['config_hash']):
        yield f'config_hash {row["config_hash"]!r}: 16 hexadecimal digits of run.json are expected'
    for name, allowed in (('evaluation', ('best', 'last')), ('selected_on', shared.SELECTED_ON)):
        if row[name] not in allowed:
            yield f'{name} {row[name]!r}: one of {", ".join(allowed)} is expected'
    for name in _NUMBERS:
        if row[name] and not math.isfinite(_number(row[name])):
            yield f'{name} {row[name]!r}: a number is expected'
    yield from _names(row)
    yield from _values(row)
    yield from _origin(row, root)


def _origin(row: Mapping[str, str], root: Path) -> Iterator[str]:
    """Where and when the runs were made, and whether they can be looked at."""
    if row['log'] and '://' not in row['log'] and not (root / row['log']).exists():
        yield f'log {row["log"]}: neither an address nor a path in the repository'
    try:
        datetime.date.fromisoformat(row['date'])
    except ValueError:
        yield f'date {row["date"]!r}: a day such as 2026-11-28 is expected'
    words = row['versions'].split()
    if not any(w.startswith('torch=') for w in words) or any('=' not in w for w in words):
        yield f'versions {row["versions"]!r}: torch=... and further NAME=VERSION are expected'


def _names(row: Mapping[str, str]) -> Iterator[str]:
    """Names that the catalogs spell otherwise: they would be columns and rows of their own."""
    for kind, known in (
        ('optimizer', facts.find_optimizer(row['optimizer'])),
        ('backbone', facts.find_backbone(row['backbone'])),
    ):
        if known is not None and known.name != row[kind]:
            yield f'{kind} {row[kind]!r}: the catalog spells it {known.name}'


def _values(row: Mapping[str, str]) -> Iterator[str]:
    """Seeds and values, and what follows from them."""
    seeds, words = row['seeds'].split(), row['values'].split()
    if not all(re.fullmatch(r'\d+', s) for s in seeds) or len(set(seeds)) < len(seeds):
        yield f'seeds {row["seeds"]!r}: different whole numbers are expected'
    values = [math.inf if w == shared.DIVERGED else _number(w) for w in words]
    if any(math.isnan(v) for v in values):
        yield f'values {row["values"]!r}: numbers or {shared.DIVERGED!r} are expected'
        return
    if len(values) != len(seeds):
        yield f'{len(values)} values for {len(seeds)} seeds'
    for name, right in shared.derived(values).items():
        given = _number(row[name]) if row[name] else math.nan
        wanted = math.nan if right is None else float(right)
        both_missing = math.isnan(given) and math.isnan(wanted)
        if not both_missing and not math.isclose(given, wanted, rel_tol=1e-6, abs_tol=1e-9):
            yield f'{name} is {row[name] or "empty"}, the values give {right}'


def _number(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        return math.nan
    return found if math.isfinite(found) else math.nan


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Print what is wrong; 1 where something is."""
    parser = argparse.ArgumentParser(
        description='Check files of shared results: head, hashes, numbers of seeds, intervals, '
        'names, duplicates. docs/results.md has the rules.'
    )
    parser.add_argument('paths', nargs='*', default=['results'], metavar='FILE_OR_DIR')
    args = parser.parse_args(argv)
    paths: list[Path] = []
    for path in map(Path, args.paths):
        if not path.exists():
            raise UserError(f'{path}: no such file or directory')
        paths += sorted(path.glob('*.csv')) if path.is_dir() else [path]
    found = problems(paths, Path.cwd())
    print('\n'.join(found), end='\n' if found else '')
    print(f'{counted(len(paths), "file")}, {counted(len(found), "problem")}')
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
