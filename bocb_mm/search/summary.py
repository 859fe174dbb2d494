"""What a study has come to: progress, and the best setting of each pair. Pure functions on rows.

A row is a dict as :meth:`bocb_mm.search.storage.Store.rows` gives it.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState

from bocb_mm.search.plan import Cell, Grid, Plan, next_value

COLUMNS = ('waiting', 'running', 'done', 'diverged', 'pruned', 'failed')
_STATES = {
    TrialState.WAITING: 'waiting',
    TrialState.RUNNING: 'running',
    TrialState.PRUNED: 'pruned',
    TrialState.FAIL: 'failed',
}
Row = Mapping[str, Any]
Pair = tuple[str, str]


def column_of(row: Row) -> str:
    """Which of :data:`COLUMNS` a trial counts in."""
    if row['state'] == TrialState.COMPLETE:
        return 'diverged' if row['outcome'] == 'diverged' else 'done'
    return _STATES[row['state']]


def progress(rows: Iterable[Row]) -> dict[Pair, dict[str, int]]:
    """Number of trials of each pair in each of :data:`COLUMNS`."""
    table: dict[Pair, dict[str, int]] = {}
    for row in rows:
        counts = table.setdefault(row['cell'].pair, dict.fromkeys(COLUMNS, 0))
        counts[column_of(row)] += 1
    return table


def seconds_left(rows: Sequence[Row]) -> float | None:
    """Time until the last trial ends, if as many train at a time as do now.

    A trial that has not ended takes as long as the mean of its config's completed ones, or of all
    where its config has none.

    Returns:
        Seconds; 0 when nothing is left, ``None`` when nothing runs or nothing has been completed.
    """
    known: dict[str, list[float]] = {}
    for row in rows:
        if column_of(row) == 'done' and row['seconds'] is not None:
            known.setdefault(row['cell'].stem, []).append(row['seconds'])
    open_rows = [row for row in rows if column_of(row) in ('waiting', 'running')]
    if not open_rows:
        return 0.0
    running = sum(column_of(row) == 'running' for row in open_rows)
    if not known or not running:
        return None
    means = {stem: statistics.fmean(values) for stem, values in known.items()}
    overall = statistics.fmean(v for values in known.values() for v in values)
    left = [
        max(0.0, means.get(row['cell'].stem, overall) - (row['seconds'] or 0.0))
        for row in open_rows
    ]
    return max(sum(left) / running, max(left))


@dataclass(frozen=True)
class Best:
    """The best setting of a pair.

    Attributes:
        config: The config's name.
        optimizer: The optimizer.
        value: Mean over the seeds; ``-inf`` if every setting diverged.
        lr: Its learning rate.
        weight_decay: Its weight decay.
        seeds: Number of seeds the mean is of.
        edges: Where it lies at the end of what was tried: ``lr-``, ``lr+``, ``wd-``, ``wd+``.
        missing: Trials of the pair that have no result (yet).
    """

    config: str
    optimizer: str
    value: float
    lr: float
    weight_decay: float
    seeds: int
    edges: tuple[str, ...]
    missing: int


def best_settings(rows: Iterable[Row], grids: Iterable[Grid]) -> list[Best]:
    """The best setting of every pair that has a result, in the order of the grids.

    A setting of which one seed diverged counts as diverged, as in the report. Among equal ones the
    smaller rate wins, then the smaller decay.
    """
    results: dict[Pair, dict[tuple[float, float], list[float]]] = {}
    missing: dict[Pair, int] = {}
    for row in rows:
        cell: Cell = row['cell']
        if row['state'] == TrialState.COMPLETE:
            settings = results.setdefault(cell.pair, {})
            settings.setdefault((cell.lr, cell.weight_decay), []).append(row['value'])
        else:
            missing[cell.pair] = missing.get(cell.pair, 0) + 1
    found = []
    for grid in grids:
        if grid.pair not in results:
            continue
        means = {s: _mean(values) for s, values in results[grid.pair].items()}
        lr, decay = min(means, key=lambda s: (-means[s], s))
        found.append(
            Best(
                *grid.pair,
                means[lr, decay],
                lr,
                decay,
                len(results[grid.pair][lr, decay]),
                _edges(grid, lr, decay),
                missing.get(grid.pair, 0),
            )
        )
    return found


def _mean(values: Sequence[float]) -> float:
    return -math.inf if -math.inf in values else statistics.fmean(values)


def _edges(grid: Grid, lr: float, decay: float) -> tuple[str, ...]:
    """At which ends of the grid a setting lies.

    A decay of 0 is the end of all decays, and a single value was not searched.
    """
    return tuple(
        f'{name}{sign}'
        for name, value, values in (('lr', lr, grid.lr), ('wd', decay, grid.weight_decay))
        for sign, end in (('-', values[0]), ('+', values[-1]))
        if value == end and len(values) > 1 and not (sign == '-' and end == 0)
    )


def extended(plan: Plan, best: Iterable[Best]) -> Plan:
    """The plan with the next value at every edge on which a best setting lies."""
    edges = {(b.config, b.optimizer): b.edges for b in best}
    grids = [_extend(grid, edges.get(grid.pair, ())) for grid in plan.grids]
    return dataclasses.replace(plan, grids=tuple(grids))


def _extend(grid: Grid, edges: Iterable[str]) -> Grid:
    new: dict[str, set[float]] = {'lr': set(grid.lr), 'weight_decay': set(grid.weight_decay)}
    for edge in edges:
        key = 'lr' if edge.startswith('lr') else 'weight_decay'
        value = next_value(grid, key, up=edge.endswith('+'))
        if value is not None:
            new[key].add(value)
    lr, decay = (tuple(sorted(values)) for values in new.values())
    return dataclasses.replace(grid, lr=lr, weight_decay=decay)
