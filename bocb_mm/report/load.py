"""From run summaries and wide CSV files to one tidy DataFrame, and from that to result tables."""

from __future__ import annotations

import csv
import functools
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bocb_mm.errors import UserError
from bocb_mm.report import names, paper, stats
from bocb_mm.report.records import Summary

# Metrics that mmdet and mmpose log as a share of 1; mmpretrain logs percent. Eq. 1's gamma is in
# points, so points are shown.
AS_SHARES = ('coco', 'pck', 'auc', 'ap', 'map')
IN_PERCENT = ('accuracy', 'single-label', 'multi-label')
_DIVERGED_WORDS = ('diverged', 'div', 'div.', 'inf', '-inf')
_MISSING_WORDS = ('', '-', '–', '—', 'nan', 'na', 'n/a', 'none', 'missing')
TIDY_COLUMNS = names.words(
    'source table column optimizer lr weight_decay setting seed value diverged metric gamma '
    'started path run'
)


@dataclass
class ResultTable:
    """One result table: a value for every pair of optimizer (row) and column that has one.

    Attributes:
        name: Stem of its files.
        title: What it shows, for people.
        source: ``'runs'``, ``'paper'`` or ``'csv'``.
        values: Results; NaN missing, :data:`stats.DIVERGED` diverged.
        gamma: Threshold of eq. 1.
        metric: Names of the metric, e.g. ``'accuracy/top1'``.
        cells: One row a pair that has a result: ``optimizer, column, value, sd, n, n_diverged, lr,
            weight_decay, setting, runs`` (indices of the runs of its best setting) of its best
            setting.
        settings: The same for every LR x WD setting that was tried.
        reference: The paper's values in the form of ``values``, or None.
    """

    name: str
    title: str
    source: str
    values: pd.DataFrame
    gamma: float
    metric: str = ''
    cells: pd.DataFrame = field(default_factory=pd.DataFrame)
    settings: pd.DataFrame = field(default_factory=pd.DataFrame)
    reference: pd.DataFrame | None = None

    # Asked for by every table, figure and sentence: computed once.
    @functools.cached_property
    def failed(self) -> pd.DataFrame:
        """Failed pairs of the table, eq. 1."""
        return stats.failed(self.values, self.gamma)

    @functools.cached_property
    def statistics(self) -> pd.DataFrame:
        """:func:`stats.column_statistics` of the table."""
        return stats.column_statistics(self.values, self.gamma)

    @functools.cached_property
    def top(self) -> pd.DataFrame:
        """The four best results of each column; of four optimizers or fewer, only the best."""
        return stats.top(self.values, self.n_top)

    @property
    def n_top(self) -> int:
        """How many results of a column are marked as the best."""
        return 4 if len(self.values) > 4 else 1


def points(metric: str, value: float) -> float:
    """``value`` in points: COCO's AP and its kin, logged from 0 to 1, times 100.

    Example:
        >>> points('coco/bbox_mAP', 0.375), points('multi-label/mAP', 75.5)
        (37.5, 75.5)
    """
    parts = metric.lower().replace('_', '/').split('/')
    if parts[0] in IN_PERCENT:
        return value
    return value * 100 if any(p in AS_SHARES for p in parts) else value


def tidy_runs(runs: list[Summary], value: str = 'best') -> tuple[pd.DataFrame, list[str]]:
    """One row a finished run.

    Args:
        runs: Summaries of :func:`bocb_mm.report.records.read_runs`.
        value: ``'best'`` or ``'last'`` evaluation of a run.

    Returns:
        The rows (columns :data:`TIDY_COLUMNS`; ``run`` is the index into ``runs``), and one line
        for each run that has no result and is left out, with the reason.
    """
    two_recipes = _backbones_with_several_recipes(runs)
    rows, left_out = [], []
    for index, run in enumerate(runs):
        name = names.table_name(run['task'], run['dataset'])
        lost = run['status'] == 'diverged'
        result = run[value]
        if not lost and (run['status'] != 'completed' or result is None):
            why = 'no evaluation' if run['status'] == 'completed' else run['status']
            left_out.append(f'{run["path"]}: {why}{_because(run["message"])}')
            continue
        show_recipe = name == 'table2_imagenet' or (name, run['backbone']) in two_recipes
        recipe = run['recipe'] if show_recipe else ''
        column = names.column(run['task'], run['backbone'], run['pretraining'], recipe)
        setting = f'{_text(run["lr"])}|{_text(run["weight_decay"])}|{run["config_hash"]}'
        rows.append(
            (
                'runs',
                name,
                column,
                names.optimizer(run['optimizer']),
                run['lr'],
                run['weight_decay'],
                setting,
                run['seed'],
                stats.DIVERGED if lost else points(run['metric'], result),
                lost,
                run['metric'],
                run['gamma'],
                run['started'],
                run['path'],
                index,
            )
        )
    return _newest_of_each_seed(pd.DataFrame(rows, columns=TIDY_COLUMNS), left_out), left_out


def _because(message: str) -> str:
    return f' ({" ".join(message.split())[:200]})' if message else ''


def _text(number: float | None) -> str:
    return '' if number is None else f'{number:.10g}'


def _backbones_with_several_recipes(runs: list[Summary]) -> set[tuple[str, str]]:
    seen: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        place = (names.table_name(run['task'], run['dataset']), run['backbone'])
        seen.setdefault(place, set()).add(run['recipe'])
    return {place for place, recipes in seen.items() if len(recipes) > 1}


def _newest_of_each_seed(rows: pd.DataFrame, left_out: list[str]) -> pd.DataFrame:
    """A seed that ran twice under one setting is one result: the newer counts."""
    same = ['table', 'column', 'optimizer', 'setting', 'seed']
    ordered = rows.sort_values(['started', 'path'], kind='stable')
    older = ordered[ordered['seed'].notna() & ordered.duplicated(same, keep='last')]
    left_out += [f'{p}: superseded by a newer run of the same seed' for p in older['path']]
    return rows.drop(index=older.index)


def tables_from_runs(rows: pd.DataFrame, gamma: float | None = None) -> list[ResultTable]:
    """One table a (task, data set) of the tidy rows, named as :func:`names.table_name` says.

    A cell is the mean over the seeds of the pair's best LR x WD setting. A setting of which a run
    diverged is taken only when every setting has one, and then the pair counts as diverged.

    Args:
        rows: Of :func:`tidy_runs`.
        gamma: For every table; ``None`` takes the records', else 3 (1 for ImageNet).
    """
    tables = []
    for name, part in rows.groupby('table', sort=True):
        settings = _settings(part)
        cells = _best_settings(settings)
        values = cells.pivot(index='optimizer', columns='column', values='value')
        values = values.loc[
            names.in_paper_order(values.index), names.columns_in_paper_order(values.columns)
        ].rename_axis(index='optimizer', columns=None)
        recorded = part['gamma'].dropna()
        threshold = gamma or (float(recorded.min()) if len(recorded) else default_gamma(str(name)))
        tables.append(
            ResultTable(
                name=str(name),
                title=paper.TITLES.get(str(name), _title(str(name))),
                source='runs',
                values=values,
                gamma=threshold,
                metric=', '.join(sorted(set(part['metric']))),
                cells=cells,
                settings=settings,
            )
        )
    return tables


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
    ).reset_index()
    found['runs'] = _collected(part['run'], groups, len(found))
    found['seed_values'] = _collected(part['value'], groups, len(found))
    found['n_diverged'] = found['n_diverged'].astype(int)
    found['value'] = found['mean'].where(found['n_diverged'] == 0, stats.DIVERGED)
    return found


def _collected(values: pd.Series, groups: Any, n: int) -> list[list]:
    """The values of each group as a list; pandas' own ``agg(list)`` builds a Series a group."""
    lists: list[list] = [[] for _ in range(n)]
    for place, value in zip(groups.ngroup().tolist(), values.tolist()):
        lists[place].append(value)
    return lists


def _best_settings(settings: pd.DataFrame) -> pd.DataFrame:
    ordered = settings.sort_values(
        ['value', 'mean', 'n', 'setting'], ascending=[False, False, False, True], kind='stable'
    )
    return ordered.drop_duplicates(['optimizer', 'column']).reset_index(drop=True)


def default_gamma(name: str) -> float:
    """1 for a table of ImageNet, 3 for any other (A.1, A.2)."""
    return 1.0 if 'imagenet' in name.lower() else stats.DEFAULT_GAMMA


def table_from_csv(path: str | os.PathLike[str], gamma: float | None = None) -> ResultTable:
    """A result table from a wide CSV: first column optimizers, one further column a backbone.

    An empty cell is missing; ``diverged`` (or ``-inf``) is a run that diverged.

    Raises:
        UserError: Not a table: the file, the row and the column are named.
    """
    path = Path(path)
    return from_frame(path.stem, read_wide_csv(path), 'csv', gamma)


def from_frame(
    name: str, values: pd.DataFrame, source: str, gamma: float | None = None
) -> ResultTable:
    """A result table from numbers that are there already, one result a cell."""
    listed = (
        values.rename_axis(index='optimizer', columns=None)
        .reset_index()
        .melt('optimizer', var_name='column')
        .dropna(subset=['value'])
        .reset_index(drop=True)
    )
    listed = listed.assign(
        sd=math.nan,
        n=np.isfinite(listed['value']).astype(int),
        n_diverged=np.isinf(listed['value']).astype(int),
        lr=math.nan,
        weight_decay=math.nan,
        seed_values=[[v] if math.isfinite(v) else [] for v in listed['value']],
        runs=[[] for _ in range(len(listed))],
    )
    return ResultTable(
        name=name,
        title=paper.TITLES.get(name, name),
        source=source,
        values=values.rename_axis(index='optimizer', columns=None),
        gamma=gamma or paper.GAMMAS.get(name) or default_gamma(name),
        cells=listed,
    )


def read_wide_csv(path: Path) -> pd.DataFrame:
    """The numbers of a wide CSV file, NaN missing and :data:`stats.DIVERGED` diverged."""
    try:
        with path.open(newline='', encoding='utf-8-sig') as file:
            lines = [line for line in csv.reader(file) if any(c.strip() for c in line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'{path}: cannot be read as CSV ({error})') from None
    if len(lines) < 2 or len(lines[0]) < 2:
        raise UserError(f'{path}: a row of backbones and a row for each optimizer are expected')
    columns = [c.strip() for c in lines[0][1:]]
    index = [line[0].strip() for line in lines[1:]]
    for what, labels in (('column', columns), ('optimizer', index)):
        twice = sorted({v for v in labels if labels.count(v) > 1})
        if twice:
            raise UserError(f'{path}: {what} {twice[0]!r} stands there twice; keep one')
    numbers = []
    for line in lines[1:]:
        if len(line) != len(lines[0]):
            raise UserError(
                f'{path}: row {line[0]!r} has {len(line)} cells, not {len(lines[0])}; '
                'leave the cell of a missing result empty'
            )
        numbers.append([_number(path, line[0], c, v) for c, v in zip(columns, line[1:])])
    return pd.DataFrame(numbers, index=index, columns=columns, dtype=float)


def _number(path: Path, row: str, column: str, cell: str) -> float:
    word = cell.strip().lower()
    if word in _MISSING_WORDS:
        return math.nan
    if word in _DIVERGED_WORDS:
        return stats.DIVERGED
    try:
        return float(word)
    except ValueError:
        raise UserError(
            f'{path}: row {row!r}, column {column!r}: {cell!r} is no number '
            '(leave a missing result empty, write "diverged" for a diverged one)'
        ) from None


def paper_tables(gamma: float | None = None) -> list[ResultTable]:
    """Tables 1 to 3 of the paper."""
    return [from_frame(name, paper.read(name), 'paper', gamma) for name in paper.TABLES]


def add_reference(table: ResultTable) -> None:
    """Put the paper's values beside the table's own, where the paper has them."""
    found = table.values.copy()
    for column in found.columns:
        for optimizer in found.index:
            known = paper.value(table.name, column, optimizer)
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
