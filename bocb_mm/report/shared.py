"""Results to share: a CSV with one row a setting, written from runs and read like runs.

``docs/results.md`` describes the file for people, :mod:`bocb_mm.report.shared_check` checks it.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bocb_mm.errors import UserError
from bocb_mm.report import intervals
from bocb_mm.report.records import Summary, summary
from bocb_mm.runs.files import atomic_open
from bocb_mm.runs.record import RunRecord

FORMAT = 'bocb-results-1'
DIVERGED = 'diverged'
# Column -> what stands in it; those of the second group may be empty.
REQUIRED = {
    'format': f'`{FORMAT}`, the version of this list',
    'task': '`classification`, `detection`, `pose`, or that of another toolbox',
    'dataset': 'name of the data set, as in `run.json`',
    'metric': "name of the metric, as mmengine logs it; `values` are in the metric's own unit",
    'backbone': "the paper's short name, or the registry type with its size",
    'optimizer': "the catalog's name, or `timm.NAME`, `pytorch_optimizer.NAME`",
    'lr': 'base learning rate',
    'weight_decay': 'weight decay',
    'config': "name of the config's file",
    'config_hash': '16 digits, as in `run.json`: of the resolved config without paths and seed',
    'seeds': 'random seeds, separated by spaces',
    'values': f'the result of each seed, in the same order; `{DIVERGED}` where the loss was lost',
    'n': 'number of seeds',
    'n_diverged': 'how many of them diverged',
    'evaluation': '`best` or `last` evaluation of each run',
    'selected_on': 'what the setting was chosen by, see the rules',
    'log': 'address, or path from the root of the repository, of the `run.json` files',
    'versions': '`torch=2.14.1 mmengine=0.10.7`; of runs that differ `torch=2.9.1/2.14.1`',
    'hardware': 'device and its number, in words: `2 cores of an AMD EPYC 7763`, `8 x A100 80GB`',
    'date': 'day on which the first run started, `2026-11-28`',
}  # fmt: skip
OPTIONAL = {
    'mean': 'of the seeds that did not diverge',
    'ci_low': 'lower end of the 95 % bootstrap interval of the mean; empty below two seeds',
    'ci_high': 'its upper end',
    'evaluator': 'class of the evaluator that gives the metric',
    'metric_rule': '`greater` or `less`: which is better',
    'recipe': "name of the training recipe",
    'pretraining': 'name of the pre-training the runs started from; empty for random weights',
    'architecture': 'arguments that make the backbone this network, as JSON',
    'max_epochs': 'epochs planned',
    'iterations': 'iterations done',
    'batch_size': 'samples an optimizer step sees',
    'image_size': 'height and width in training, `224 224`',
    'n_classes': 'number of classes, of key points in pose',
    'n_train': 'number of training samples',
    'n_parameters': 'number of parameters of the model',
    'gamma': "threshold of eq. 1, where the config has one",
    'peak_memory_mb': 'largest of the runs, in MiB',
    'seconds_per_iteration': 'median of the runs',
}  # fmt: skip
COLUMNS = (*REQUIRED, *OPTIONAL)
_TEXTS = (
    'task', 'dataset', 'metric', 'backbone', 'optimizer', 'config', 'config_hash', 'evaluator',
    'recipe', 'pretraining',
)  # fmt: skip
_NUMBERS = (
    'lr', 'weight_decay', 'gamma', 'peak_memory_mb', 'seconds_per_iteration',
)  # fmt: skip
_COUNTS = ('max_epochs', 'batch_size', 'n_classes', 'n_train', 'n_parameters')
# What these settings were chosen by.
SELECTED_ON = {
    'fixed': 'nothing: the setting is that of a source, or the only one tried',
    'validation': 'data or seeds that the values here do not come from',
    'same': 'these very values, so the best of several settings looks better than it is',
}


def is_shared(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one of shared results: its first line says so."""
    try:
        with Path(path).open(encoding='utf-8-sig', newline='') as file:  # as Excel saves it
            return next(csv.reader(file), [])[:2] == list(COLUMNS[:2])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def files_in(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Files of shared results: those among ``paths`` and those directly in a directory of them."""
    found: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(path.glob('*.csv')) if path.is_dir() else [path]
        found += [p for p in inside if p.suffix == '.csv' and is_shared(p)]
    return found


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a file as they stand there.

    Raises:
        UserError: The file is no CSV, its head is not that of this format, or a row has another
            number of cells.
    """
    try:
        with path.open(encoding='utf-8-sig', newline='') as file:
            lines = [line for line in csv.reader(file) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'{path}: is no CSV file in UTF-8 ({error})') from None
    if not lines or tuple(lines[0]) != COLUMNS:
        raise UserError(
            f'{path}: the head is not that of {FORMAT} (docs/results.md); `bocb report RUNS '
            '--export` writes it'
        )
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(COLUMNS):
            raise UserError(f'{path}: row {number} has {len(line)} cells, not {len(COLUMNS)}')
    return [dict(zip(COLUMNS, line)) for line in lines[1:]]


def read(paths: Sequence[Path]) -> list[Summary]:
    """The results as if they were runs, one a seed.

    A seed that two files have with the same value is one run; with another value it contradicts,
    and counts beside the first, as a run without a seed.

    Raises:
        UserError: A cell that cannot be read: file, row and column are named.
    """
    found: list[Summary] = []
    known: dict[tuple[str, ...], set[str]] = {}
    for path in paths:
        for number, row in enumerate(rows(path), 2):
            place = f'{path}:{number}'
            seeds, results = row['seeds'].split(), row['values'].split()
            if len(seeds) != len(results):
                raise UserError(f'{place}: {len(seeds)} seeds and {len(results)} values')
            for seed, value in zip(seeds, results):
                values = known.setdefault((*setting(row), seed), set())
                if value not in values:
                    run = _summary(row, None if values else seed, value, place)
                    found.append({**run, 'path': f'{place} seed {seed}'})
                values.add(value)
    return found


def setting(row: Mapping[str, str]) -> tuple[str, ...]:
    """What makes two rows the same setting."""
    return row['config_hash'], row['optimizer'], row['lr'], row['weight_decay']


def _summary(row: Mapping[str, str], seed: str | None, value: str, place: str) -> Summary:
    """One seed of a row as the summary of a run."""
    try:
        fields: dict[str, Any] = {name: row[name] for name in (*_TEXTS, 'metric_rule')}
        fields |= {name: float(row[name]) if row[name] else None for name in _NUMBERS}
        fields |= {name: int(row[name]) if row[name] else None for name in _COUNTS}
        fields['iterations'] = int(row['iterations'] or 0)
        fields['seed'] = None if seed is None else int(seed)
        fields['status'] = 'diverged' if value == DIVERGED else 'completed'
        fields['architecture'] = dict(json.loads(row['architecture'] or '{}'))
        fields['image_size'] = [int(side) for side in row['image_size'].split()]
        fields['versions'] = dict(word.split('=', 1) for word in row['versions'].split())
        record = RunRecord(**fields, started=row['date'])
        if value != DIVERGED:
            result = {record.metric: float(value)}
            record.add_evaluation(record.max_epochs or 0, record.iterations, result)
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f'{place}: cannot be read ({error}); python -m bocb_mm.report.shared_check says more'
        ) from None
    return summary(record, Path(place))


def export(
    path: Path, tidy: pd.DataFrame, runs: Sequence[Summary], said: Mapping[str, str]
) -> tuple[int, list[str]]:
    """Write the results of runs as a file to share.

    Args:
        path: The file, whole or not at all.
        tidy: Of :func:`bocb_mm.report.load.tidy_runs`.
        runs: The summaries that ``tidy['run']`` points at.
        said: What no record knows: ``evaluation``, ``selected_on``, ``log``, ``hardware``.

    Returns:
        The number of rows, and one line for each run that cannot be shared, with the reason.
    """
    left_out = [
        f'{r["path"]}: {"no seed" if r["seed"] is None else "no config hash"} in its record'
        for r in (runs[i] for i in tidy['run'])
        if r['seed'] is None or not r['config_hash']
    ]
    groups = tidy.groupby(['table', 'column', 'optimizer', 'setting'], sort=True)
    lines = []
    for _, part in groups:
        members = [runs[i] for i in part['run']]
        members = [r for r in members if r['seed'] is not None and r['config_hash']]
        if members:
            lines.append(_line(sorted(members, key=lambda r: r['seed']), said))
    with atomic_open(path) as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(lines)
    return len(lines), left_out


def _line(runs: list[Summary], said: Mapping[str, str]) -> dict[str, Any]:
    """The row of a setting."""
    first = runs[0]
    values = [math.inf if r['status'] == 'diverged' else r[said['evaluation']] for r in runs]
    memory = [r['peak_memory_mb'] for r in runs if r['peak_memory_mb'] is not None]
    times = [r['seconds_per_iteration'] for r in runs if r['seconds_per_iteration'] is not None]
    cells = {
        **{name: first[name] for name in (*_TEXTS, *_NUMBERS, *_COUNTS, 'iterations')},
        **said,
        **derived(values),
        'format': FORMAT,
        'metric_rule': 'greater' if first['larger_is_better'] else 'less',
        'seeds': ' '.join(str(r['seed']) for r in runs),
        'values': ' '.join(DIVERGED if math.isinf(v) else repr(v) for v in values),
        'versions': _versions(runs),
        'date': min(r['started'] for r in runs)[:10],
        'architecture': json.dumps(first['architecture'], sort_keys=True),
        'image_size': ' '.join(map(str, first['image_size'])),
        'peak_memory_mb': max(memory, default=None),
        'seconds_per_iteration': pd.Series(times).median() if times else None,
    }  # fmt: skip
    return {name: '' if cells[name] is None else cells[name] for name in COLUMNS}


def derived(values: Sequence[float]) -> dict[str, Any]:
    """What follows from a setting's values: ``n, n_diverged, mean, ci_low, ci_high``.

    Args:
        values: A result a seed, infinite where it diverged.

    Example:
        >>> derived([75.0, 75.0, float('inf')])
        {'n': 3, 'n_diverged': 1, 'mean': 75.0, 'ci_low': 75.0, 'ci_high': 75.0}
    """
    finite = [v for v in values if math.isfinite(v)]
    low, high = intervals.bootstrap_interval(finite)
    several = len(finite) > 1
    return {
        'n': len(values),
        'n_diverged': len(values) - len(finite),
        'mean': sum(finite) / len(finite) if finite else None,
        'ci_low': low if several else None,
        'ci_high': high if several else None,
    }


def _versions(runs: Iterable[Summary]) -> str:
    """Packages of the runs, ``name=version``, several versions joined by a slash."""
    found: dict[str, list[str]] = {}
    for name, version in _pairs(runs):
        known = found.setdefault(name, [])
        if version not in known:
            known.append(version)
    return ' '.join(f'{name}={"/".join(versions)}' for name, versions in found.items())


def _pairs(runs: Iterable[Summary]) -> Iterator[tuple[str, str]]:
    for run in runs:
        for name, version in run['versions'].items():
            yield str(name).replace(' ', '_'), str(version).replace(' ', '_')
