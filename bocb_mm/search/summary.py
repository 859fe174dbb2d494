"""What a study has come to: progress, and the best setting of each pair. Pure functions on rows."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bocb_mm.search.plan import Cell, Plan
from bocb_mm.search.state import COLUMNS, Row

Pair = tuple[str, str]
_KEYS = {'lr': 'lr', 'wd': 'weight_decay'}


def progress(rows: Iterable[Row]) -> dict[Pair, dict[str, int]]:
    """Number of trials of each pair in each of :data:`bocb_mm.search.state.COLUMNS`."""
    table: dict[Pair, dict[str, int]] = {}
    for row in rows:
        counts = table.setdefault(row.cell.pair, dict.fromkeys(COLUMNS, 0))
        counts[row.column] += 1
    return table


def seconds_left(rows: Iterable[Row], running: int | None = None) -> float | None:
    """Time until the last trial ends, if as many train at a time as do now.

    A trial that has not ended takes as long as the median of its config's completed ones, or of
    all where its config has none.

    Args:
        rows: The trials.
        running: How many train at a time; ``None``: as many as the rows say.

    Returns:
        Seconds; 0 when nothing is left, ``None`` when nothing runs or nothing has been completed.
    """
    known: dict[str, list[float]] = {}
    waiting: list[Row] = []
    for row in rows:
        if row.column == 'done' and row.seconds is not None:
            known.setdefault(row.cell.stem, []).append(row.seconds)
        elif row.column in ('waiting', 'running'):
            waiting.append(row)
    if not waiting:
        return 0.0
    if running is None:
        running = sum(row.column == 'running' for row in waiting)
    if not known or not running:
        return None
    usual = {stem: statistics.median(values) for stem, values in known.items()}
    overall = statistics.median(v for values in known.values() for v in values)
    left = []
    for row in waiting:
        spent = row.seconds if row.column == 'running' else None
        left.append(max(0.0, usual.get(row.cell.stem, overall) - (spent or 0.0)))
    return max(sum(left) / running, max(left))


@dataclass(frozen=True)
class Best:
    """The best setting of a pair.

    Attributes:
        config: The config's name.
        optimizer: The optimizer.
        value: Mean over the seeds; ``None`` if every setting diverged.
        lr: Its learning rate.
        weight_decay: Its weight decay.
        seeds: Number of seeds the mean is of.
        edges: Where it lies at the end of what was tried: ``lr-``, ``lr+``, ``wd-``, ``wd+``.
        missing: Trials of the pair that have no result (yet).
    """

    config: str
    optimizer: str
    value: float | None
    lr: float
    weight_decay: float
    seeds: int
    edges: tuple[str, ...]
    missing: int


def best_settings(rows: Iterable[Row]) -> list[Best]:
    """The best setting of every pair that has a result, in the order of the trials.

    A setting of which one seed diverged counts as diverged, as in the report. Among equal ones the
    smaller rate wins, then the smaller decay.
    """
    by_pair: dict[Pair, list[Row]] = {}
    for row in rows:
        by_pair.setdefault(row.cell.pair, []).append(row)
    found = []
    for pair, of_pair in by_pair.items():
        settings: dict[tuple[float, float], list[Row]] = {}
        for row in of_pair:
            if row.column in ('done', 'diverged'):
                settings.setdefault((row.cell.lr, row.cell.weight_decay), []).append(row)
        if not settings:
            continue
        lr, decay = min(settings, key=lambda s: (-_mean(settings[s]), s))
        values = [row.value for row in settings[lr, decay] if row.value is not None]
        whole = len(values) == len(settings[lr, decay])
        missing = sum(row.column not in ('done', 'diverged') for row in of_pair)
        edges = _edges([row.cell for row in of_pair], lr, decay)
        value = statistics.fmean(values) if whole else None
        seeds = len(settings[lr, decay])
        found.append(Best(*pair, value, lr, decay, seeds, edges, missing))
    return found


def _mean(rows: Sequence[Row]) -> float:
    scores = [row.score for row in rows]
    return -math.inf if -math.inf in scores else statistics.fmean(scores)


def _edges(cells: Sequence[Cell], lr: float, decay: float) -> tuple[str, ...]:
    """At which ends of what was tried a setting lies.

    A decay of 0 is the end of all decays, and a single value was not searched.
    """
    rates, decays = {cell.lr for cell in cells}, {cell.weight_decay for cell in cells}
    return tuple(
        f'{name}{sign}'
        for name, value, values in (('lr', lr, rates), ('wd', decay, decays))
        for sign, end in (('-', min(values)), ('+', max(values)))
        if value == end and len(values) > 1 and not (sign == '-' and end == 0)
    )


def extensions(plan: Plan, best: Iterable[Best]) -> Iterator[Cell]:
    """The trials with the next value at every edge on which a best setting lies."""
    from bocb_mm.optimizers import get_spec  # torch, which a look at a study can do without

    edges: Mapping[Pair, tuple[str, ...]] = {(b.config, b.optimizer): b.edges for b in best}
    by_pair: dict[Pair, list[Cell]] = {}
    for cell in plan.cells:
        by_pair.setdefault(cell.pair, []).append(cell)
    for pair, cells in by_pair.items():
        if not edges.get(pair):
            continue
        values = {
            'lr': sorted({c.lr for c in cells}), 'wd': sorted({c.weight_decay for c in cells})
        }  # fmt: skip
        spec, note = get_spec(cells[0].optimizer), plan.configs.get(cells[0].config, {})
        task, recipe = note.get('task') or 'classification', note.get('recipe')
        wider = {key: list(of_key) for key, of_key in values.items()}
        for edge in edges[pair]:
            key, up = edge[:-1], edge.endswith('+')
            new = spec.next_value(_KEYS[key], values[key], up, task, recipe)
            wider[key] += [] if new is None else [new]
        yield from _grid(cells, wider['lr'], wider['wd'])


def _grid(cells: Sequence[Cell], rates: Iterable[float], decays: Iterable[float]) -> Iterator[Cell]:
    """A grid of trials like those of a pair, with the pair's seeds."""
    kinds = {dataclasses.replace(cell, lr=0.0, weight_decay=0.0): None for cell in cells}
    decays = sorted(decays)
    for kind in kinds:
        for lr in sorted(rates):
            for decay in decays:
                yield dataclasses.replace(kind, lr=lr, weight_decay=decay)
