"""Beyond the paper: how much of a table is coupling, and how sure its numbers are.

The paper calls a backbone coupled by looking at a violin. Here it is a share of variance with a
p-value; means of several seeds get bootstrap intervals; optimizers get performance profiles.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bocb_mm.report import stats


@dataclass(frozen=True)
class Coupling:
    """The coupling of a table and of each of its columns.

    Attributes:
        share: Interaction's share of what the choice of the optimizer moves, from 0 to 1.
        p_value: Of the table; see :func:`coupling` for the null hypothesis.
        columns: Index ``column``; ``share, p_value, p_holm`` (Holm's correction over the columns).
        method: The test that was made, in words.
    """

    share: float
    p_value: float
    columns: pd.DataFrame
    method: str


def coupling(
    table: pd.DataFrame,
    replicates: Mapping[tuple[str, str], Sequence[float]] | None = None,
    n_permutations: int = 999,
    seed: int = 0,
) -> Coupling:
    r"""Interaction of backbone and optimizer in a two-way layout, with permutation tests.

    The additive fit ``r_ij = m + o_i + b_j + e_ij`` says what a table without coupling looks like.
    With ``SS_int = sum e_ij^2`` and ``SS_opt = sum o_i^2``, both over the cells that are there, the
    share is ``SS_int / (SS_int + SS_opt)``: 0 when optimizers differ by the same amount on every
    backbone, 1 when an optimizer's advantage is all peculiar to backbones. A column's share takes
    its own cells only. A diverged run counts as the worst finite result of its column.

    The table's p-value. With at least one cell of two seeds or more: residuals of the additive fit
    of the single runs are permuted over all runs, the statistic is the ratio of interaction to
    within-cell mean square (Anderson and ter Braak 2003). With one result a cell, noise and
    interaction are the same number and only structure can be tested: the statistic is the largest
    squared singular value of the residuals over the sum of all (Johnson and Graybill 1972), its
    null distribution by permuting them over the cells.

    A column's p-value: residuals are permuted within each optimizer over the backbones, the
    statistic is the column's sum of squares: how often would a random backbone be as peculiar.

    Args:
        table: Results, rows optimizers, columns backbones.
        replicates: Results of the single seeds, by (optimizer, column); cells without stay single.
        n_permutations: Permutations; the smallest p-value is ``1 / (n_permutations + 1)``.
        seed: Of the permutations.

    Returns:
        Shares and p-values; NaN where the table has fewer than 3 optimizers or 3 columns: with
        two, the residuals of one column mirror the other's and nothing is left to test.

    Example:
        >>> import pandas as pd
        >>> parallel = pd.DataFrame({'a': [1.0, 2, 4], 'b': [2.0, 3, 5], 'c': [1.5, 2.5, 4.5]})
        >>> round(coupling(parallel).share, 6)
        0.0
    """
    # Sorted, so that the order of rows and columns never moves a p-value by its random draw.
    values = stats.punished(table).sort_index().sort_index(axis=1)
    values = values.dropna(axis=1, thresh=2).dropna(axis=0, thresh=1)
    if min(values.shape) < 3:
        blank = pd.DataFrame(
            np.nan, index=table.columns, columns=['share', 'p_value', 'p_holm']
        ).rename_axis('column')
        return Coupling(np.nan, np.nan, blank, 'fewer than 3 optimizers or 3 backbones')
    rng = np.random.default_rng(seed)
    residuals, effects = _fit(values)
    share, by_column = _shares(residuals, effects)
    runs = _single_runs(values, replicates or {})
    if len(runs) > values.notna().to_numpy().sum():
        p_value = _replicated_test(values, runs, n_permutations, rng)
        method = 'interaction against the spread of seeds'
    else:
        p_value = _structure_test(residuals, n_permutations, rng)
        method = 'structure of the interaction, one result a cell'
    columns = pd.DataFrame(
        {'share': by_column, 'p_value': _column_test(residuals, n_permutations, rng)},
        index=values.columns,
    )
    columns['p_holm'] = holm(columns['p_value'])
    return Coupling(share, p_value, columns.reindex(table.columns).rename_axis('column'), method)


def _fit(values: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Residuals of the additive fit (NaN where missing) and the optimizers' centred effects."""
    y = values.to_numpy(float)
    rows, cols = np.nonzero(~np.isnan(y))
    fitted = _hat(rows, cols, y.shape) @ y[rows, cols]
    residuals = np.full(y.shape, np.nan)
    residuals[rows, cols] = y[rows, cols] - fitted
    effects = stats.additive_effects(values).to_numpy()
    return residuals, effects - effects.mean()


def _hat(rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The matrix that projects results of these cells on the additive ones."""
    design = np.zeros((len(rows), shape[0] + shape[1]))
    design[np.arange(len(rows)), rows] = 1
    design[np.arange(len(rows)), shape[0] + cols] = 1
    return design @ np.linalg.pinv(design)


def _shares(residuals: np.ndarray, effects: np.ndarray) -> tuple[float, np.ndarray]:
    """Interaction's share of the table and of each column; NaN where nothing varies."""
    there = ~np.isnan(residuals)
    interaction = np.nansum(residuals**2, axis=0)
    main = (there * effects[:, None] ** 2).sum(axis=0)
    scale = interaction + main
    scale[scale < 1e-18] = np.nan
    whole = np.nansum(scale)
    total = interaction.sum() / whole if whole > 0 else np.nan
    return float(total), interaction / scale


def _single_runs(
    values: pd.DataFrame, replicates: Mapping[tuple[str, str], Sequence[float]]
) -> list[tuple[int, int, float]]:
    """Row, column and result of every run of the table's cells."""
    runs = []
    for i, optimizer in enumerate(values.index):
        for j, column in enumerate(values.columns):
            if np.isnan(values.iat[i, j]):
                continue
            found = [v for v in replicates.get((optimizer, column), ()) if np.isfinite(v)]
            runs += [(i, j, v) for v in (found if len(found) > 1 else [values.iat[i, j]])]
    return runs


def _replicated_test(
    values: pd.DataFrame, runs: list[tuple[int, int, float]], n: int, rng: np.random.Generator
) -> float:
    rows, cols = np.array([r[0] for r in runs]), np.array([r[1] for r in runs])
    y = np.array([r[2] for r in runs])
    cell = rows * values.shape[1] + cols
    _, cell = np.unique(cell, return_inverse=True)
    counts = np.bincount(cell)
    hat = _hat(rows, cols, values.shape)
    free_within = len(y) - len(counts)
    free_between = max(len(counts) - np.linalg.matrix_rank(hat), 1)

    def ratio(residuals: np.ndarray) -> np.ndarray:
        """Mean squares of interaction over those within cells, one a row of ``residuals``."""
        left = residuals - residuals @ hat
        means = np.stack([np.bincount(cell, weights=r) for r in left]) / counts
        within = ((left - means[:, cell]) ** 2).sum(axis=1) / free_within
        between = (counts * means**2).sum(axis=1) / free_between
        return between / np.maximum(within, 1e-18)

    residuals = y - hat @ y
    null = np.concatenate([ratio(_shuffled(residuals, m, rng)) for m in _batches(n)])
    return _p(ratio(residuals[None])[0], null)


def _structure_test(residuals: np.ndarray, n: int, rng: np.random.Generator) -> float:
    rows, cols = np.nonzero(~np.isnan(residuals))
    present = residuals[rows, cols]
    if np.abs(present).max() < 1e-9:
        return np.nan
    keep = np.eye(len(rows)) - _hat(rows, cols, residuals.shape)

    def leading(vectors: np.ndarray) -> np.ndarray:
        """Share of the first singular value, one a row of ``vectors``; missing cells as 0."""
        grid = np.zeros((len(vectors), *residuals.shape))
        grid[:, rows, cols] = vectors @ keep
        squares = np.linalg.eigvalsh(grid @ grid.transpose(0, 2, 1))  # of the singular values
        return squares[:, -1] / np.maximum(squares.sum(axis=1), 1e-18)

    null = np.concatenate([leading(_shuffled(present, m, rng)) for m in _batches(n)])
    return _p(leading(present[None])[0], null)


def _column_test(residuals: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    there = ~np.isnan(residuals)
    squares = np.where(there, residuals, 0.0) ** 2
    if squares.max() < 1e-18:
        return np.full(residuals.shape[1], np.nan)
    observed = squares.sum(axis=0)
    exceeded = np.zeros(residuals.shape[1])
    for _ in range(n):
        # Only cells that are there change places, each with another of its row.
        order = np.where(there, rng.random(residuals.shape), np.inf).argsort(axis=1)
        home = np.argsort(~there, axis=1, kind='stable')
        drawn = np.zeros_like(squares)
        np.put_along_axis(drawn, home, np.take_along_axis(squares, order, axis=1), axis=1)
        exceeded += drawn.sum(axis=0) >= observed - 1e-12
    return (exceeded + 1) / (n + 1)


def _shuffled(vector: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permuted(np.tile(vector, (n, 1)), axis=1)


def _batches(n: int, size: int = 200) -> list[int]:
    return [min(size, n - i) for i in range(0, n, size)]


def _p(observed: float, null: np.ndarray) -> float:
    return float((np.sum(null >= observed - 1e-12) + 1) / (len(null) + 1))


def holm(p_values: pd.Series) -> pd.Series:
    """Holm's step-down correction: the chance of one false alarm stays under the level.

    Example:
        >>> import pandas as pd
        >>> holm(pd.Series([0.01, 0.04, 0.03])).round(3).tolist()
        [0.03, 0.06, 0.06]
    """
    known = p_values.dropna().sort_values()
    factors = np.arange(len(known), 0, -1)
    corrected = np.minimum(np.maximum.accumulate(known.to_numpy() * factors), 1.0)
    return pd.Series(corrected, index=known.index).reindex(p_values.index)


def bootstrap_interval(
    values: Sequence[float], level: float = 0.95, n: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of a few seeds.

    With three seeds it cannot reach beyond the smallest and the largest of them: read it as the
    range of plausible means, not as a promise of ``level``.

    Args:
        values: Results of the seeds of one setting.
        level: Confidence level.
        n: Resamples.
        seed: Of the resampling.

    Returns:
        Low and high end; NaN for fewer than two finite values.

    Example:
        >>> bootstrap_interval([75.0])
        (nan, nan)
    """
    found = np.sort(np.asarray([v for v in values if np.isfinite(v)], float))
    if len(found) < 2:
        return float('nan'), float('nan')
    rng = np.random.default_rng(seed)
    means = rng.choice(found, (n, len(found))).mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def stability_intervals(
    table: pd.DataFrame,
    replicates: Mapping[tuple[str, str], Sequence[float]],
    level: float = 0.95,
    n: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Bootstrap intervals of a column's mean, std and range: the seeds of every cell are redrawn.

    Args:
        table: Results, rows optimizers, columns backbones.
        replicates: Results of the single seeds by (optimizer, column).
        level: Confidence level.
        n: Resamples.
        seed: Of the resampling.

    Returns:
        Index ``column``; ``mean_low, mean_high, std_low, ...``; empty when no cell has two seeds.
    """
    rng = np.random.default_rng(seed)
    drawn = np.repeat(table.to_numpy(float)[None], n, axis=0)
    repeated = False
    for (optimizer, column), values in sorted(replicates.items()):
        found = np.sort([v for v in values if np.isfinite(v)])
        if len(found) < 2 or optimizer not in table.index or column not in table.columns:
            continue
        if not np.isfinite(table.at[optimizer, column]):
            continue
        place = table.index.get_loc(optimizer), table.columns.get_loc(column)
        drawn[:, place[0], place[1]] = rng.choice(found, (n, len(found))).mean(axis=1)
        repeated = True
    if not repeated:
        return pd.DataFrame()
    ends: dict[str, np.ndarray] = {}
    for name, sample in _stability_of_each(drawn).items():
        low, high = np.quantile(sample, [(1 - level) / 2, (1 + level) / 2], axis=0)
        ends |= {f'{name}_low': low, f'{name}_high': high}
    return pd.DataFrame(ends, index=table.columns).rename_axis('column')


def _stability_of_each(tables: np.ndarray) -> dict[str, np.ndarray]:
    """:func:`stats.stability` of many tables (tables x rows x columns) in one go."""
    lost = np.isinf(tables)
    kept = np.where(lost, np.nan, tables)
    worst = np.where(np.isnan(kept), np.inf, kept).argmin(axis=1)[:, None, :]
    # Where a run diverged, that is the worst result, and no finite one goes.
    left = np.where(lost.any(axis=1)[:, None], np.take_along_axis(kept, worst, axis=1), np.nan)
    np.put_along_axis(kept, worst, left, axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # a column without any result stays NaN
        return {
            'mean': np.nanmean(kept, axis=1),
            'std': np.nanstd(kept, axis=1),
            'range': np.nanmax(kept, axis=1) - np.nanmin(kept, axis=1),
        }


def performance_profiles(table: pd.DataFrame, distances: Sequence[float]) -> pd.DataFrame:
    """Share of the backbones on which an optimizer is at most so far from the best.

    After Dolan and More (2002) with differences in points in place of ratios. Missing results are
    left out of an optimizer's share, diverged ones count as infinitely far.

    Args:
        table: Results, rows optimizers, columns backbones.
        distances: Distances from the best, in the table's unit.

    Returns:
        Rows optimizers, columns ``distances``, values 0 to 1.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({'a': [80.0, 79.0], 'b': [70.0, 75.0]}, index=['SGD', 'Adam'])
        >>> performance_profiles(table, [0, 1]).loc['Adam'].tolist()
        [0.5, 1.0]
    """
    values = stats.finite(table)
    gap = (values.max() - values).where(~stats.diverged(table), np.inf)
    there = gap.notna().sum(axis=1).replace(0, np.nan)
    profile = {d: (gap <= d + 1e-9).sum(axis=1) / there for d in distances}
    return pd.DataFrame(profile, index=table.index)


def tuning_ease(settings: pd.DataFrame, tolerance: float = 0.01) -> pd.DataFrame:
    """Share of a pair's LR x WD settings that come within ``tolerance`` of its best one.

    Args:
        settings: One row a setting: ``optimizer, column, value``; diverged ones are not within.
        tolerance: Share of the best value that may be lost, e.g. 0.01 for 1 %.

    Returns:
        Rows optimizers, columns backbones, values 0 to 1 (1: any setting will do). NaN where fewer
        than two settings were tried: that says nothing about tuning.

    Example:
        >>> import pandas as pd
        >>> tried = pd.DataFrame({'optimizer': 'SGD', 'column': 'R-50', 'value': [80, 79.5, 70, 1]})
        >>> tuning_ease(tried).to_dict()
        {'R-50': {'SGD': 0.5}}
    """
    if settings.empty:
        return pd.DataFrame(dtype=float)
    groups = settings.groupby(['optimizer', 'column'])['value']
    best = groups.transform('max')
    near = (settings['value'] >= best - best.abs() * tolerance - 1e-9) & np.isfinite(best)
    share = near.groupby([settings['optimizer'], settings['column']]).mean()
    share = share.where(groups.size() > 1)
    return share.unstack('column').rename_axis(index='optimizer', columns=None)
