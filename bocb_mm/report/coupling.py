"""Beyond the paper: how much of a table is coupling, and whether that is beyond chance.

The paper calls a backbone coupled by looking at a violin. Here it is a share of variance with a
p-value, tested among results of one task and metric, and what becomes of it when an optimizer is
left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from bocb_mm.report import stats

# Corrected p-values below this are called beyond chance.
LEVEL = 0.05


@dataclass(frozen=True)
class Coupling:
    """The coupling of the results of one task, and of each of their columns.

    Attributes:
        group: Task and metric in words.
        share: Interaction's share of what the choice of the optimizer moves, from 0 to 1.
        p_value: Of all columns together; see :func:`coupling` for the null hypothesis.
        columns: Index ``column``; ``share, p_value, p_holm`` (Holm's correction over the columns),
            and from :func:`sensitivity` ``p_low, p_high``.
        method: The test that was made, in words.
        left_out: From :func:`sensitivity`: index ``left_out`` (an optimizer, or two), ``n`` (1 or
            2), ``share, p_value, beyond_chance`` (columns, separated by ``; ``).
    """

    group: str
    share: float
    p_value: float
    columns: pd.DataFrame
    method: str
    left_out: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def p_range(self) -> tuple[float, float]:
        """Smallest and largest p-value of all columns with one optimizer left out."""
        if not len(self.left_out):
            return np.nan, np.nan
        p_values = self.left_out.loc[self.left_out['n'] == 1, 'p_value']
        return float(p_values.min()), float(p_values.max())

    @property
    def beyond_chance(self) -> list[str]:
        """The columns that are coupled beyond chance, corrected for their number."""
        held = self.columns['p_holm'] < LEVEL
        return [str(c) for c in self.columns.index[held]]


def coupling(
    table: pd.DataFrame,
    replicates: Mapping[tuple[str, str], Sequence[float]] | None = None,
    n_permutations: int = 999,
    seed: int = 0,
    group: str = '',
) -> Coupling:
    r"""Interaction of backbone and optimizer in a two-way layout, with permutation tests.

    The columns must be of one task and metric: residuals of an AP that spans 30 points and of one
    that spans 15 are not exchangeable.

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
        group: Task and metric in words.

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
    values = stats.diverged_as_worst(table).sort_index().sort_index(axis=1)
    values = values.dropna(axis=1, thresh=2).dropna(axis=0, thresh=1)
    if min(values.shape) < 3:
        blank = pd.DataFrame(
            np.nan, index=table.columns, columns=['share', 'p_value', 'p_holm']
        ).rename_axis('column')
        return Coupling(group, np.nan, np.nan, blank, 'fewer than 3 optimizers or 3 columns')
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
    by_column = columns.reindex(table.columns).rename_axis('column')
    return Coupling(group, share, p_value, by_column, method)


def sensitivity(
    found: Coupling,
    table: pd.DataFrame,
    replicates: Mapping[tuple[str, str], Sequence[float]] | None = None,
    n_permutations: int = 999,
) -> Coupling:
    """What becomes of a coupling when each optimizer is left out in turn.

    Also of it without the two that move the share most: a verdict that rests on two rows survives
    the loss of either.

    Args:
        found: Of :func:`coupling` on the same table.
        table: Results, rows optimizers, columns of one task.
        replicates: Results of the single seeds, by (optimizer, column).
        n_permutations: Permutations of each test.

    Returns:
        ``found`` with ``left_out``, and with the range of each column's p-value.
    """
    if np.isnan(found.share) or len(table) < 4:
        return found

    def without(*optimizers: object) -> Coupling:
        return coupling(table.drop(index=list(optimizers)), replicates, n_permutations)

    each = {optimizer: without(optimizer) for optimizer in table.index}
    p_values = pd.DataFrame({o: c.columns['p_value'] for o, c in each.items()})
    moved = {o: abs(c.share - found.share) for o, c in each.items() if not np.isnan(c.share)}
    rows = {str(o): c for o, c in each.items()}
    if len(table) > 4 and len(moved) > 1:
        two = sorted(moved, key=lambda o: (-moved[o], str(o)))[:2]
        rows[f'{two[0]} and {two[1]}'] = without(*two)
    left_out = pd.DataFrame(
        {
            'n': [1] * len(each) + [2] * (len(rows) - len(each)),
            'share': [c.share for c in rows.values()],
            'p_value': [c.p_value for c in rows.values()],
            'beyond_chance': ['; '.join(c.beyond_chance) for c in rows.values()],
        },
        index=pd.Index(rows, name='left_out'),
    )
    columns = found.columns.assign(p_low=p_values.min(axis=1), p_high=p_values.max(axis=1))
    return replace(found, columns=columns, left_out=left_out)


def _fit(values: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Residuals of the additive fit (NaN where missing) and the optimizers' centred effects."""
    y = values.to_numpy(float)
    rows, cols = np.nonzero(~np.isnan(y))
    residuals = np.full(y.shape, np.nan)
    residuals[rows, cols] = _without(y[rows, cols], _additive(rows, cols, y.shape))
    effects = stats.additive_effects(values).to_numpy()
    return residuals, effects - effects.mean()


def _additive(rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Orthonormal columns that span the additive results of some cells."""
    design = np.zeros((len(rows), shape[0] + shape[1]))
    design[np.arange(len(rows)), rows] = 1
    design[np.arange(len(rows)), shape[0] + cols] = 1
    basis, sizes, _ = np.linalg.svd(design, full_matrices=False)
    return basis[:, sizes > 1e-9 * sizes[0]]


def _without(vectors: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """What additive results leave of ``vectors`` (or of each row of them)."""
    return vectors - (vectors @ basis) @ basis.T


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
    basis = _additive(rows, cols, values.shape)
    free_within = len(y) - len(counts)
    free_between = max(len(counts) - basis.shape[1], 1)

    def ratio(residuals: np.ndarray) -> np.ndarray:
        """Mean squares of interaction over those within cells, one a row of ``residuals``."""
        left = _without(residuals, basis)
        means = np.stack([np.bincount(cell, weights=r) for r in left]) / counts
        within = ((left - means[:, cell]) ** 2).sum(axis=1) / free_within
        between = (counts * means**2).sum(axis=1) / free_between
        return between / np.maximum(within, 1e-18)

    residuals = _without(y, basis)
    null = np.concatenate([ratio(_shuffled(residuals, m, rng)) for m in _batches(n)])
    return _p(ratio(residuals[None])[0], null)


def _structure_test(residuals: np.ndarray, n: int, rng: np.random.Generator) -> float:
    rows, cols = np.nonzero(~np.isnan(residuals))
    present = residuals[rows, cols]
    if np.abs(present).max() < 1e-9:
        return np.nan
    basis = _additive(rows, cols, residuals.shape)

    def leading(vectors: np.ndarray) -> np.ndarray:
        """Share of the first singular value, one a row of ``vectors``; missing cells as 0."""
        grid = np.zeros((len(vectors), *residuals.shape))
        grid[:, rows, cols] = _without(vectors, basis)
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
    home = np.argsort(~there, axis=1, kind='stable')
    exceeded = np.zeros(residuals.shape[1])
    for m in _batches(n):
        # Only cells that are there change places, each with another of its row.
        order = np.where(there, rng.random((m, *residuals.shape)), np.inf).argsort(axis=2)
        drawn = np.zeros((m, *squares.shape))
        moved = np.take_along_axis(squares[None], order, axis=2)
        np.put_along_axis(drawn, np.broadcast_to(home, drawn.shape), moved, axis=2)
        exceeded += (drawn.sum(axis=1) >= observed - 1e-12).sum(axis=0)
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
