"""From run summaries and wide CSV files to one tidy DataFrame, and from that to result tables."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bocb_mm.facts import scales
from bocb_mm.report import identity, intervals, names, paper, stats, wide_csv
from bocb_mm.report.model import ResultTable, task_of
from bocb_mm.report.records import Summary

TIDY_COLUMNS = names.words(
    'table column optimizer lr weight_decay setting seed value diverged gamma started path run'
)


def tidy_runs(runs: list[Summary], value: str = 'best') -> tuple[pd.DataFrame, list[str]]:
    """One row a finished run.

    Args:
        runs: Summaries of :func:`bocb_mm.report.records.read_runs`.
        value: ``'best'`` or ``'last'`` evaluation of a run.

    Returns:
        The rows (columns :data:`TIDY_COLUMNS`; ``run`` is the index into ``runs``), and one line
        for each run that has no result and is left out, with the reason. A value is in the unit
        that is shown, an error with a minus sign.
    """
    counted, left_out = [], []
    for index, run in enumerate(runs):
        if run['status'] == 'diverged' or (run['status'] == 'completed' and run[value] is not None):
            counted.append(index)
        else:
            left_out.append(f'{run["path"]}: {_why_not(run)}')
    kept = [runs[i] for i in counted]
    places = identity.places(kept)
    factors = _factors(kept, places, value)
    rows = []
    for index, run, (table, column), factor in zip(counted, kept, places, factors):
        lost = run['status'] == 'diverged'
        setting = f'{_text(run["lr"])}|{_text(run["weight_decay"])}|{run["config_hash"]}'
        rows.append(
            (
                table,
                column,
                names.optimizer(run['optimizer']),
                run['lr'],
                run['weight_decay'],
                setting,
                run['seed'],
                stats.DIVERGED if lost else run[value] * factor,
                lost,
                run['gamma'],
                run['started'],
                run['path'],
                index,
            )
        )
    return _newest_of_each_seed(pd.DataFrame(rows, columns=TIDY_COLUMNS), left_out), left_out


def _why_not(run: Summary) -> str:
    """Why a run has no result, and what may help."""
    message = ' '.join(run['message'].split())[:200]
    because = f' ({message})' if message else ''
    if run['status'] != 'completed':
        return run['status'] + because
    if not run['metrics']:
        return 'no evaluation' + because
    others = ', '.join(m for m in run['metrics'][:6] if m != run['metric'])
    there = f'; --metric NAME takes another: {others}' if others else ''
    return f'no value of {run["metric"] or "its metric"}{there}{because}'


def _factors(runs: list[Summary], places: list[tuple[str, str]], value: str) -> list[float]:
    """What turns each run's value into the one shown; those of a table's metric have one unit."""
    groups: dict[tuple, list[float]] = {}
    keys = [(place[0], run['metric'], run['evaluator']) for place, run in zip(places, runs)]
    for key, run in zip(keys, runs):
        values = groups.setdefault(key, [])
        if run[value] is not None:
            values.append(run[value])
    factor = {key: scales.factor(key[1], values, key[2]) for key, values in groups.items()}
    return [factor[key] * (1 if run['larger_is_better'] else -1) for key, run in zip(keys, runs)]


def _text(number: float | None) -> str:
    return '' if number is None else f'{number:.10g}'


def _newest_of_each_seed(rows: pd.DataFrame, left_out: list[str]) -> pd.DataFrame:
    """Of runs that repeat a setting and a seed, keep the one that started last."""
    place = ['table', 'column', 'optimizer', 'setting', 'seed']
    ordered = rows.sort_values(['started', 'path'], kind='stable')
    repeated = ordered['seed'].notna() & ordered.duplicated(place, keep='last')
    newest = ordered[~repeated].drop_duplicates(place, keep='last').set_index(place)['path']
    for row in ordered[repeated].itertuples():
        newer = newest[row.table, row.column, row.optimizer, row.setting, row.seed]
        left_out.append(f'{row.path}: superseded by a later run of the same seed, {newer}')
    return ordered[~repeated].sort_values('run', kind='stable').reset_index(drop=True)


def tables_from_runs(
    rows: pd.DataFrame, runs: list[Summary], gamma: float | None = None
) -> list[ResultTable]:
    """Result tables: each cell the mean over the seeds of the pair's best setting.

    Args:
        rows: Of :func:`tidy_runs`.
        runs: The summaries that ``rows['run']`` points at.
        gamma: Threshold of eq. 1; ``None`` takes that of the records, else of the data set.
    """
    tables = []
    for name, part in rows.groupby('table', sort=True):
        members = [runs[i] for i in part['run']]
        settings = _settings(part)
        cells = with_intervals(_best_settings(settings))
        values = cells.pivot(index='optimizer', columns='column', values='value')
        values = values.loc[
            names.in_paper_order(values.index), names.columns_in_paper_order(values.columns)
        ].rename_axis(index='optimizer', columns=None)
        recorded = part['gamma'].dropna()
        of_column = dict(zip(part['column'], members))
        metrics = {c: run['metric'] for c, run in of_column.items()}
        tables.append(
            ResultTable(
                name=str(name),
                title=paper.title(str(name), metrics.values()) or _title(str(name)),
                source='runs',
                values=values,
                gamma=gamma or (recorded.min() if len(recorded) else default_gamma(str(name))),
                tasks={c: _group(run, metrics, of_column) for c, run in of_column.items()},
                metrics=metrics,
                errors=frozenset(c for c, r in of_column.items() if not r['larger_is_better']),
                notes=identity.mixtures(members, list(part['column'])) + _unknown_scales(members),
                cells=cells,
                settings=settings,
            )
        )
    return tables


def _group(run: Summary, metrics: dict[str, str], of_column: dict[str, Summary]) -> str:
    """Task of a column, with its metric where the task's columns have several."""
    of_task = {metrics[c] for c, r in of_column.items() if r['task'] == run['task']}
    return run['task'] if len(of_task) == 1 else f'{run["task"]}, {run["metric"]}'


def _unknown_scales(runs: list[Summary]) -> list[str]:
    """One sentence for each metric whose unit and direction nobody wrote down."""
    unknown = {r['metric']: r for r in runs if not scales.scale(r['metric'], r['evaluator']).known}
    return [
        f'{metric or "A metric without a name"} stands in no table of metrics: taken as '
        f'{"larger" if run["larger_is_better"] else "smaller"} is better, and as a share of 1 '
        '(shown in points) as long as no value is above 1.'
        for metric, run in sorted(unknown.items())
    ]


def _title(name: str) -> str:
    task, _, dataset = name.partition('_')
    return f'{task.capitalize()} on {dataset}' if dataset else name


def _settings(part: pd.DataFrame) -> pd.DataFrame:
    """One row a setting: mean, s.d. and number of its seeds."""
    place = ['optimizer', 'column', 'setting']
    part = part.assign(finite=part['value'].where(np.isfinite(part['value'])))
    groups = part.groupby(place, sort=False)
    found = groups.agg(
        lr=('lr', 'first'),
        weight_decay=('weight_decay', 'first'),
        mean=('finite', 'mean'),
        sd=('finite', 'std'),  # ddof 1: the spread of the seeds, estimated from a sample
        n=('finite', 'count'),
        n_diverged=('diverged', 'sum'),
        runs=('run', list),
        seed_values=('value', list),
    ).reset_index()
    found['n_diverged'] = found['n_diverged'].astype(int)
    found['value'] = found['mean'].where(found['n_diverged'] == 0, stats.DIVERGED)
    return found


def _best_settings(settings: pd.DataFrame) -> pd.DataFrame:
    ordered = settings.sort_values(
        ['value', 'mean', 'n', 'setting'], ascending=[False, False, False, True], kind='stable'
    )
    return ordered.drop_duplicates(['optimizer', 'column']).reset_index(drop=True)


def with_intervals(cells: pd.DataFrame) -> pd.DataFrame:
    """``cells`` with ``ci_low`` and ``ci_high``, the bootstrap interval over the seeds."""
    ends = [intervals.bootstrap_interval(values) for values in cells['seed_values']]
    return cells.assign(ci_low=[e[0] for e in ends], ci_high=[e[1] for e in ends])


def default_gamma(name: str) -> float:
    """1 for a table of ImageNet, 3 for any other (A.1, A.2)."""
    return 1.0 if 'imagenet' in name.lower() else stats.DEFAULT_GAMMA


def table_from_csv(
    path: str | os.PathLike[str], gamma: float | None = None, metric: str = ''
) -> ResultTable:
    """A result table from a wide CSV: first column optimizers, one further column a backbone.

    An empty cell is missing; ``diverged`` (or ``-inf``) is a run that diverged.

    Args:
        path: The file.
        gamma: Threshold of eq. 1.
        metric: What the numbers are, where smaller is better, e.g. ``'NME'``.

    Raises:
        UserError: Not a table: the file, the row and the column are named.
    """
    path = Path(path)
    return from_frame(path.stem, wide_csv.read(path), 'csv', gamma, metric)


def from_frame(
    name: str, values: pd.DataFrame, source: str, gamma: float | None = None, metric: str = ''
) -> ResultTable:
    """A result table from numbers that are there already, one result a cell."""
    values = values.rename_axis(index='optimizer', columns=None)
    errors = metric != '' and not scales.scale(metric).larger_is_better
    if errors:
        values = (-values).replace(math.inf, stats.DIVERGED)
    # Names of columns and of the index may be anything, 'value' and 'optimizer' too.
    triples = [
        (optimizer, column, values.iat[i, k])
        for k, column in enumerate(values.columns)
        for i, optimizer in enumerate(values.index)
        if not math.isnan(values.iat[i, k])
    ]
    listed = pd.DataFrame(triples, columns=['optimizer', 'column', 'value'])
    listed = listed.assign(
        sd=math.nan,
        n=np.isfinite(listed['value']).astype(int),
        n_diverged=np.isinf(listed['value']).astype(int),
        lr=math.nan,
        weight_decay=math.nan,
        ci_low=math.nan,
        ci_high=math.nan,
        seed_values=[[v] if math.isfinite(v) else [] for v in listed['value']],
        runs=[[] for _ in range(len(listed))],
    )
    task = name if source == 'csv' else 'classification'
    return ResultTable(
        name=name,
        title=paper.title(name, [metric]) or name,
        source=source,
        values=values,
        gamma=gamma or paper.GAMMAS.get(name) or default_gamma(name),
        tasks={str(c): task_of(str(c), task) for c in values.columns},
        metrics=dict.fromkeys(map(str, values.columns), metric),
        errors=frozenset(map(str, values.columns)) if errors else frozenset(),
        cells=listed,
    )


def paper_tables(gamma: float | None = None) -> list[ResultTable]:
    """Tables 1 to 3 of the paper."""
    return [from_frame(name, paper.read(name), 'paper', gamma) for name in paper.TABLES]


def add_reference(table: ResultTable) -> None:
    """Put the paper's values beside the table's own, where the paper has them."""
    found, name = table.values.copy(), table.extends or table.name
    for column in found.columns:
        comparable = paper.shows(name, table.metrics.get(column, ''))
        for optimizer in found.index:
            known = paper.value(name, column, optimizer) if comparable else None
            found.at[optimizer, column] = math.nan if known is None else known
    table.reference = found if found.notna().any().any() else None


def best_settings(tables: Iterable[ResultTable]) -> pd.DataFrame:
    """Best LR and WD of every pair of the tables: ``optimizer, backbone, lr, weight_decay``.

    ``backbone`` is the table and its column. Pairs whose optimizer was given a single setting are
    in it: a default that was never searched is still the pair's setting.
    """
    parts: list[dict[str, Any]] = []
    for table in tables:
        for row in table.cells.itertuples():
            if np.isfinite(row.value) and not pd.isna(row.lr):
                parts.append(
                    {
                        'optimizer': row.optimizer,
                        'backbone': f'{table.name}: {row.column}',
                        'lr': row.lr,
                        'weight_decay': row.weight_decay,
                    }
                )
    return pd.DataFrame(parts, columns=['optimizer', 'backbone', 'lr', 'weight_decay'])
