"""Bootstrap intervals over seeds: of a cell's mean, and of a column's statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

_LEVEL = 0.95


def bootstrap_interval(values: Sequence[float], n: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap interval (95 %) of the mean of a few seeds.

    With three seeds it cannot reach beyond the smallest and the largest of them: read it as the
    range of plausible means, not as a promise of 95 %.

    Args:
        values: Results of the seeds of one setting.
        n: Resamples.

    Returns:
        Low and high end; NaN for fewer than two finite values.

    Example:
        >>> bootstrap_interval([75.0])
        (nan, nan)
        >>> bootstrap_interval([75.0, 75.0])
        (75.0, 75.0)
    """
    found = sorted(v for v in values if math.isfinite(v))
    if len(found) < 2:
        return math.nan, math.nan
    if found[0] == found[-1]:
        return found[0], found[0]
    low, high = _bootstrap([found], lambda sample, axis=-1: sample.mean(axis=axis), n)
    return float(low), float(high)


def stability_intervals(
    table: pd.DataFrame, replicates: Mapping[tuple[str, str], Sequence[float]], n: int = 500
) -> pd.DataFrame:
    """Bootstrap intervals of a column's mean, std and range: the seeds of every cell are redrawn.

    Args:
        table: Results, rows optimizers, columns backbones.
        replicates: Results of the single seeds by (optimizer, column).
        n: Resamples.

    Returns:
        Index ``column``; ``mean_low, mean_high, std_low, ...``; only columns of which a cell has
        two seeds.
    """
    rows = {}
    for column in table.columns:
        cells = table[column].dropna()
        seeds = [
            sorted(filter(math.isfinite, replicates.get((o, column), ()))) for o in cells.index
        ]
        several = [len(s) > 1 and math.isfinite(v) for s, v in zip(seeds, cells)]
        fixed = cells[[not s for s in several]].to_numpy()
        if any(several) and len(cells) > 1:
            samples = [s for s, redrawn in zip(seeds, several) if redrawn]
            low, high = _bootstrap(samples, _of_column(fixed), n)
            names = ('mean', 'std', 'range')
            rows[column] = {f'{name}_low': v for name, v in zip(names, low)} | {
                f'{name}_high': v for name, v in zip(names, high)
            }
    order = [f'{name}_{end}' for name in ('mean', 'std', 'range') for end in ('low', 'high')]
    return pd.DataFrame.from_dict(rows, orient='index', columns=order).rename_axis('column')


def _of_column(fixed: np.ndarray) -> Any:
    """The statistic of the redrawn cells of a column: mean, std and range without the worst."""

    def statistic(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        means = np.stack([s.mean(axis=axis) for s in samples], axis=-1)
        rest = np.broadcast_to(fixed, (*means.shape[:-1], len(fixed)))
        results = np.sort(np.concatenate([rest, means], axis=-1), axis=-1)
        kept = results[..., 1:]  # a diverged run is the worst: -inf
        kept = np.where(np.isfinite(kept), kept, np.nan)
        return np.stack(
            [np.nanmean(kept, -1), np.nanstd(kept, -1), np.nanmax(kept, -1) - np.nanmin(kept, -1)]
        )

    return statistic


def _bootstrap(samples: list[list[float]], statistic: Any, n: int) -> tuple[Any, Any]:
    from scipy.stats import bootstrap  # slow to import, and not every report has seeds

    found = bootstrap(
        samples,
        statistic,
        n_resamples=n,
        vectorized=True,
        confidence_level=_LEVEL,
        method='percentile',
        random_state=0,
    )
    return found.confidence_interval.low, found.confidence_interval.high
