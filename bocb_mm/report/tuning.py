"""How well the settings of a cell were searched, and how easy that was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

SINGLE, EDGE = '†', '‡'
LEGEND = {
    SINGLE: 'one untuned setting or learning rate',
    EDGE: 'best setting on the edge of what was tried',
}


def doubts(cells: pd.DataFrame, settings: pd.DataFrame) -> dict[tuple[Any, Any], tuple[str, str]]:
    """The cells that a search might still improve: of a single setting, or best on the edge.

    A failure (eq. 1) of such a cell may be the learning rate's and not the optimizer's.

    Args:
        cells: One row a pair, its best setting: ``optimizer, column, lr, weight_decay``.
        settings: The same for every setting that was tried; empty where nobody knows them.

    Returns:
        Mark (:data:`LEGEND`) and words, by (optimizer, column).

    Example:
        >>> import pandas as pd
        >>> tried = pd.DataFrame({'optimizer': 'SGD', 'column': 'R-50', 'lr': [0.1, 0.2, 0.4],
        ...                       'weight_decay': 1e-4})
        >>> doubts(tried[2:], tried)
        {('SGD', 'R-50'): ('‡', 'the best learning rate, 0.4, is the highest tried')}
        >>> doubts(tried[1:2], tried)
        {}
    """
    if settings.empty:
        return {}
    tried = settings.groupby(['optimizer', 'column'], sort=False)
    rates, decays = (
        {pair: sorted(values.dropna().unique()) for pair, values in tried[name]}
        for name in ('lr', 'weight_decay')
    )
    found = {}
    for cell in cells.itertuples():
        pair = (cell.optimizer, cell.column)
        if len(rates[pair]) < 2:
            single = len(tried.groups[pair]) == 1
            found[pair] = SINGLE, 'one untuned setting' if single else 'one learning rate only'
            continue
        words = [
            _edge('learning rate', cell.lr, rates[pair]),
            _edge('weight decay', cell.weight_decay, decays[pair]),
        ]
        if any(words):
            found[pair] = EDGE, '; '.join(filter(None, words))
    return found


def _edge(what: str, best: float, tried: list[float]) -> str:
    """Where the best of several values has a neighbour on one side only; 0 is an end by nature."""
    if len(tried) < 2 or pd.isna(best):
        return ''
    if best == tried[-1]:
        return f'the best {what}, {best:g}, is the highest tried'
    if best == tried[0] and best > 0:
        return f'the best {what}, {best:g}, is the lowest tried'
    return ''


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
