"""The statistics of the paper, as pure functions on a table: rows optimizers, columns backbones.

In a table, NaN is a missing result and an infinite value (``DIVERGED``) a run that diverged.
Every function is indifferent to the order of rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bocb_mm.errors import UserError
from bocb_mm.report import names

DIVERGED = float('-inf')
DEFAULT_GAMMA = 3.0
# C.5: how much each aspect counts in the overall ranking.
WEIGHTS = {'performance': 0.4, 'hyperparameter': 0.2, 'bocb': 0.2, 'computation': 0.2}
# Results differ by 0.01 at least; this keeps a value that lies on the threshold out of the failed
# set, whatever 72.8 - 3 is in binary.
_SLACK = 1e-9


def finite(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` as floats with diverged results as NaN, so that pandas leaves them out."""
    values = table.astype(float)
    return values.where(np.isfinite(values))


def diverged(table: pd.DataFrame) -> pd.DataFrame:
    """Where ``table`` holds a run that diverged: an infinite value, not NaN."""
    return pd.DataFrame(np.isinf(table.astype(float)), table.index, table.columns)


def check_gamma(gamma: float) -> None:
    """Refuse a threshold that is not a positive number.

    Raises:
        UserError: It is not.
    """
    if not gamma > 0 or not np.isfinite(gamma):
        raise UserError(f'gamma {gamma}: a positive number is expected (the paper takes 3 or 1)')


def failure_threshold(table: pd.DataFrame, gamma: float = DEFAULT_GAMMA) -> pd.Series:
    """Right side of eq. 1 for each column: ``max(R) - min(Q75(R) - Q25(R), gamma)``.

    Args:
        table: Results, rows optimizers, columns backbones; quantiles are taken, with linear
            interpolation, over the finite results of a column.
        gamma: Largest distance from the best that is never a failure, in the table's unit.

    Returns:
        One threshold a column; NaN where the column has no finite result.

    Raises:
        UserError: ``gamma`` is not a positive number.

    Example:
        >>> import pandas as pd
        >>> failure_threshold(pd.DataFrame({'R-50': [80.0, 79.0, 70.0]})).to_dict()
        {'R-50': 77.0}
    """
    check_gamma(gamma)
    values = finite(table)
    spread = values.quantile(0.75) - values.quantile(0.25)
    return values.max() - spread.clip(upper=gamma)


def failed(table: pd.DataFrame, gamma: float = DEFAULT_GAMMA) -> pd.DataFrame:
    """The failed backbone-optimizer pairs, eq. 1 of the paper.

    A pair fails where ``r < max(R) - min(Q75(R) - Q25(R), gamma)``, or where the run diverged.

    Args:
        table: Results, rows optimizers, columns backbones, larger is better.
        gamma: The paper takes 3 for CIFAR-100 and COCO, 1 for ImageNet-1K.

    Returns:
        Booleans in the form of ``table``; a missing result has not failed.

    Example:
        >>> import pandas as pd
        >>> failed(pd.DataFrame({'R-50': [80.0, 79.0, 70.0]}))['R-50'].tolist()
        [False, False, True]
    """
    threshold = failure_threshold(table, gamma)
    return finite(table).lt(threshold - _SLACK, axis=1) | diverged(table)


def top(table: pd.DataFrame, n: int = 4) -> pd.DataFrame:
    """The ``n`` best results of each column (results equal to the n-th are all in it)."""
    return finite(table).rank(ascending=False, method='min') <= n


def without_worst(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` without the single worst result of each column.

    A diverged run is worse than any number. Of several equal worst ones a single one goes.
    """
    kept = finite(table)
    gone = diverged(table).any()
    for column in kept.columns[~gone.to_numpy()]:
        values = kept[column]
        if values.notna().any():
            kept.loc[values.index[int(np.nanargmin(values.to_numpy()))], column] = np.nan
    return kept


def stability(table: pd.DataFrame) -> pd.DataFrame:
    """Mean, population standard deviation and range of each column without its worst result.

    Section 3.1 (A). The best result and its optimizer stand beside them; of equal bests the
    optimizer that the paper lists first is named.

    Args:
        table: Results, rows optimizers, columns backbones.

    Returns:
        Index ``column``; columns ``mean, std, range, best, best_optimizer``. NaN where a column has
        fewer than two results.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({'R-50': [80.0, 78.0, 70.0]}, index=['SGD', 'Adam', 'LARS'])
        >>> stability(table)[['mean', 'std', 'range']].to_dict('records')
        [{'mean': 79.0, 'std': 1.0, 'range': 2.0}]
    """
    kept = without_worst(table)
    ordered = finite(table).loc[names.in_paper_order(table.index)]
    best = ordered.max()
    who = [ordered[c].idxmax() if ordered[c].notna().any() else '' for c in table.columns]
    found = pd.DataFrame(
        {
            'mean': kept.mean(),
            'std': kept.std(ddof=0),
            'range': kept.max() - kept.min(),
            'best': best,
            'best_optimizer': pd.Series(who, index=table.columns, dtype=object),
        },
        index=table.columns,
    )
    return found.rename_axis(index='column', columns=None)


def column_statistics(table: pd.DataFrame, gamma: float = DEFAULT_GAMMA) -> pd.DataFrame:
    """:func:`stability` and the number of failed results of each column, ``n_failed``."""
    return stability(table).assign(n_failed=failed(table, gamma).sum().astype(int))


def failures(table: pd.DataFrame, gamma: float = DEFAULT_GAMMA) -> pd.DataFrame:
    """The failed results as a list: ``column, optimizer, value, threshold``."""
    mask = failed(table, gamma)
    threshold = failure_threshold(table, gamma)
    rows = [
        (column, optimizer, float(table.at[optimizer, column]), float(threshold[column]))
        for column in table.columns
        for optimizer in table.index[mask[column].to_numpy()]
    ]
    return pd.DataFrame(rows, columns=['column', 'optimizer', 'value', 'threshold'])


def outliers(table: pd.DataFrame) -> pd.DataFrame:
    """Results far below their column: under ``Q25 - 1.5 (Q75 - Q25)``, or diverged.

    The gray dots of Figure 3, of which its caption says that they reveal BOCB.
    """
    values = finite(table)
    low, high = values.quantile(0.25), values.quantile(0.75)
    return values.lt(low - 1.5 * (high - low) - _SLACK, axis=1) | diverged(table)


def hparam_variation(best: pd.DataFrame, by: str = 'backbone') -> pd.DataFrame:
    """How far each pair's best settings are from the usual ones, section 3.1 (B) and A.3.

    With one-hot codes ``r`` of the best rate and ``w`` of the best decay, and ``M`` the codes of
    their modes, the variation of a pair is the Manhattan distance ``sum|r - M_r| + sum|w - M_w|``:
    0 where both are the usual value, 2 where one differs, 4 where both do.

    Args:
        best: One row a pair: ``optimizer, backbone, lr, weight_decay`` of its best setting.
        by: ``'backbone'``: modes over the optimizers of each backbone (Figure 4);
            ``'optimizer'``: modes over the backbones of each optimizer (Figure 5). Of equally
            common values the smallest is the mode.

    Returns:
        Table of the variations, rows optimizers, columns backbones; NaN where there is no pair.

    Raises:
        UserError: A column is missing or ``by`` is neither of the two.

    Example:
        >>> import pandas as pd
        >>> best = pd.DataFrame({'optimizer': ['SGD', 'Adam', 'LAMB'], 'backbone': 'R-50',
        ...                      'lr': [0.1, 0.001, 0.001], 'weight_decay': [0.0, 0.0, 0.02]})
        >>> hparam_variation(best)['R-50'].to_dict()
        {'SGD': 2.0, 'Adam': 0.0, 'LAMB': 2.0}
    """
    if by not in ('backbone', 'optimizer'):
        raise UserError(f"by={by!r}: 'backbone' or 'optimizer' is expected")
    missing = {'optimizer', 'backbone', 'lr', 'weight_decay'} - set(best.columns)
    if missing:
        raise UserError(f'best settings without {", ".join(sorted(missing))}')
    total = pd.Series(0.0, index=best.index)
    for setting in ('lr', 'weight_decay'):
        # Three settings of 0.1 may differ in the last binary digit; unset is a value of its own.
        values = best[setting].astype(float).map(lambda v: float(f'{v:.10g}')).fillna(-1.0)
        mode = values.groupby(best[by]).transform(lambda v: v.mode().iloc[0])
        # Two one-hot codes are 0 apart, or 2: one 1 too few and one too many.
        total += 2.0 * (values != mode)
    pairs = pd.DataFrame(
        {'optimizer': best['optimizer'], 'backbone': best['backbone'], 'variation': total}
    )
    wide = pairs.pivot_table(
        index='optimizer', columns='backbone', values='variation', aggfunc='mean', sort=False
    )
    return wide.rename_axis(index='optimizer', columns=None)


def additive_effects(table: pd.DataFrame) -> pd.Series:
    """Each optimizer's mean over all columns, as if no result were missing.

    Least-squares fit of ``result = optimizer + column``; in a complete table simply the mean of
    the row. A diverged run counts as the worst finite result of its column.
    """
    values = diverged_as_worst(table)
    values = values.dropna(axis=1, how='all').dropna(axis=0, how='all')
    if values.empty:
        return pd.Series(np.nan, index=table.index)
    rows, columns = np.nonzero(values.notna().to_numpy())
    n = len(values)
    design = np.zeros((len(rows), n + values.shape[1]))
    design[np.arange(len(rows)), rows] = 1
    design[np.arange(len(rows)), n + columns] = 1
    fit = np.linalg.lstsq(design, values.to_numpy()[rows, columns], rcond=None)[0]
    effects = fit[:n] + fit[n:].mean()
    return pd.Series(effects, index=values.index).reindex(table.index)


def diverged_as_worst(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` with each diverged result as the worst finite one of its column."""
    values = finite(table)
    worst = values.min()
    return values.where(~diverged(table), pd.DataFrame([worst] * len(table), index=table.index))


def performance_rank(table: pd.DataFrame, tasks: Mapping[str, str] | None = None) -> pd.Series:
    """Rank of the optimizers by their mean rank, averaged within a task and then over tasks.

    Ranks, because a point of AP on one data set and a point of accuracy on another weigh
    differently; within a task first, so that a task does not count as often as it has columns. In a
    column of n results the k-th counts ``(k - 1/2) / n``; diverged runs share the last place; where
    results are missing, means are those of :func:`additive_effects`.

    Args:
        table: Results, rows optimizers, columns backbones.
        tasks: Task of each column; without it all are one task.

    Returns:
        Ranks, best is 1; NaN for an optimizer without a result.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({'a': [3.0, 2, 1], 'b': [3.0, 2, 1], 'det': [10.0, 40, 30]})
        >>> performance_rank(table, {'a': 'cls', 'b': 'cls', 'det': 'det'}).tolist()
        [2.0, 1.0, 3.0]
    """
    places = table.astype(float).rank(ascending=False, method='average')
    places = (places - 0.5) / table.notna().sum()
    of_task: dict[str, list] = {}
    for column in table.columns:
        of_task.setdefault((tasks or {}).get(column, ''), []).append(column)
    means = {task: additive_effects(places[columns]) for task, columns in of_task.items()}
    return additive_effects(pd.DataFrame(means)).round(9).rank(method='min')


def hyperparameter_rank(variation: pd.DataFrame) -> pd.Series:
    """Rank by the median variation over backbones (C.5), the mean where medians are equal.

    Args:
        variation: :func:`hparam_variation` with ``by='optimizer'``.

    Returns:
        Dense ranks, smallest variation is 1; NaN for an optimizer without a searched setting.
    """
    key = variation.median(axis=1) * 1e3 + variation.mean(axis=1)
    return key.round(9).rank(method='dense')


def bocb_flag(table: pd.DataFrame) -> pd.Series:
    """1 for an optimizer with an outlier (:func:`outliers`) on some backbone, else 0."""
    return outliers(table).any(axis=1).astype(float).where(table.notna().any(axis=1))


def computation_rank(cost: pd.DataFrame) -> pd.Series:
    """Rank by cost, cheapest is 1.

    Args:
        cost: Peak memory (C.5) or time, rows optimizers, columns backbones. Each column is taken
            relative to its cheapest optimizer; costs within 2 % of each other share a rank.

    Returns:
        Dense ranks; NaN for an optimizer without a measurement.
    """
    relative = cost.astype(float) / cost.astype(float).min()
    typical = relative.median(axis=1).dropna().sort_values()
    ranks, rank, first = {}, 0, -np.inf
    for optimizer, value in typical.items():
        if value > first * 1.02:
            rank, first = rank + 1, value
        ranks[optimizer] = float(rank)
    return pd.Series(ranks, dtype=float).reindex(cost.index)


def rank_optimizers(
    aspects: pd.DataFrame, weights: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """The overall ranking of C.5 from the four rank columns.

    ``score = 0.4 performance + 0.2 hyperparameter + 0.2 bocb + 0.2 computation``; the smallest
    score is first, equal scores are ordered by performance.

    Args:
        aspects: Index optimizers, columns ``performance, hyperparameter, bocb, computation``. A
            column that is NaN throughout, or of weight 0, is left out; the others count then.
        weights: Other weights, by column.

    Returns:
        ``aspects`` with ``overall`` (1 is best; NaN where an aspect that others have is missing).

    Raises:
        UserError: A column or weight is unknown or missing, or no weight is positive.

    Example:
        >>> import pandas as pd
        >>> aspects = pd.DataFrame({'performance': [2, 1], 'hyperparameter': [1, 9], 'bocb': [0, 0],
        ...                         'computation': [5, 6]}, index=['LAMB', 'Adan'])
        >>> rank_optimizers(aspects)['overall'].tolist()
        [1.0, 2.0]
    """
    weights = dict(WEIGHTS if weights is None else weights)
    unknown = (set(weights) ^ set(WEIGHTS)) | (set(WEIGHTS) - set(aspects.columns))
    if unknown:
        raise UserError(f'ranking: {", ".join(WEIGHTS)} are expected; check {sorted(unknown)}')
    if min(weights.values()) < 0 or sum(weights.values()) <= 0:
        raise UserError(f'weights {list(weights.values())}: numbers >= 0, not all 0, are expected')
    ranks = aspects[list(WEIGHTS)].astype(float)
    known = [a for a in WEIGHTS if weights[a] and ranks[a].notna().any()]
    score = sum((weights[a] * ranks[a] for a in known), pd.Series(0.0, index=ranks.index))
    if not known:
        score[:] = np.nan
    # The slack of binary fractions must not decide a tie.
    keys = pd.DataFrame({'score': score.round(9), 'performance': ranks['performance']}).dropna(
        subset=['score']
    )
    ordered = keys.apply(tuple, axis=1).rank(method='min') if len(keys) else keys['score']
    return ranks.assign(overall=ordered.reindex(ranks.index)).rename_axis(index='optimizer')


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
    values = finite(table)
    gap = (values.max() - values).where(~diverged(table), np.inf)
    there = gap.notna().sum(axis=1).replace(0, np.nan)
    profile = {d: (gap <= d + 1e-9).sum(axis=1) / there for d in distances}
    return pd.DataFrame(profile, index=table.index)
