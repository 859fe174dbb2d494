"""What the figures of a result table show, in words, for those who do not see them."""

from __future__ import annotations

import pandas as pd

from bocb_mm.report import stats, tuning
from bocb_mm.report.coupling import Coupling
from bocb_mm.report.model import ResultTable


def ends(values: pd.Series) -> str:
    """Where the smallest and the largest of labelled values are.

    Example:
        >>> import pandas as pd
        >>> ends(pd.Series({'R-50': 78.2, 'AlexNet': 63.25, 'X': float('nan')}))
        'from 63.2 (AlexNet) to 78.2 (R-50)'
    """
    known = values.dropna()
    if known.empty:
        return 'not known'
    low, high = known.idxmin(), known.idxmax()
    return f'from {known[low]:.3g} ({_label(low)}) to {known[high]:.3g} ({_label(high)})'


def _label(place: object) -> str:
    return ' on '.join(map(str, place)) if isinstance(place, tuple) else str(place)


def medians(table: ResultTable) -> str:
    """Of the violins: the medians, and where there are outliers."""
    far = stats.outliers(table.values).any()
    where = ', '.join(map(str, far.index[far])) or 'none'
    middle = stats.finite(table.shown(table.values)).median()
    return f'Medians {ends(middle)}; columns with outliers: {where}.'


def failures(table: ResultTable) -> str:
    """Of the heat map: how many failed, and who failed most often."""
    often = table.failed.sum(axis=1)
    there = int(table.values.notna().to_numpy().sum())
    most = f', most often {often.idxmax()} ({often.max()} times)' if often.max() else ''
    return f'{often.sum()} of {there} results failed{most}.'


def closest(table: ResultTable) -> str:
    """Of the performance profiles: who is most often within a point of the best."""
    share = stats.performance_profiles(table.values, [1.0])[1.0].dropna()
    first = share.sort_values(ascending=False, kind='stable').head(3)
    shares = ', '.join(f'{optimizer} on {value:.0%}' for optimizer, value in first.items())
    return f'Within one point of the best: {shares} of the columns.'


def shares(coupled: list[Coupling]) -> str:
    """Of the coupling bars: the least and the most coupled column, and who stands out."""
    sure = [c for found in coupled for c in found.beyond_chance]
    share = pd.concat([found.columns['share'] for found in coupled])
    return f'Shares {ends(share)}; beyond chance: {", ".join(sure) or "none"}.'


def common_rate(table: ResultTable) -> str:
    """Of the LR curves: the rate that is most often the best."""
    rates = table.cells['lr'].dropna()
    if rates.empty:
        return 'No best result has a rate.'
    rate = rates.mode().iloc[0]
    return f'The best rate is most often {rate:g} ({(rates == rate).sum()} of {len(rates)} pairs).'


def easiest(table: ResultTable, tolerance: float) -> str:
    """Of the map of tuning ease: the hardest and the easiest pair."""
    ease = tuning.tuning_ease(table.settings, tolerance)
    return f'Shares {ends(ease.stack())}.'
