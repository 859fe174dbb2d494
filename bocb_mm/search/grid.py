"""The values that are searched: the catalog's around an optimizer's default, and those beyond."""

from __future__ import annotations

from collections.abc import Sequence

from bocb_mm.errors import UserError

_KEYS = {'lr': 'lr', 'wd': 'weight_decay'}


def catalog_grid(
    optimizer: str, task: str, recipe: str | None, size: tuple[int, int]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The catalog's rates and decays around an optimizer's default for a task and recipe.

    Args:
        optimizer: Its name.
        task: Of the config.
        recipe: Of the config.
        size: Number of learning rates and of weight decays.

    Example:
        >>> catalog_grid('SGD', 'classification', None, (3, 1))
        ((0.05, 0.1, 0.2), (0.0001,))
    """
    from bocb_mm.optimizers import get_spec  # torch, which a look at a study can do without

    spec = get_spec(optimizer)
    rates = spec.search_grid(task, recipe, size[0])['lr']
    return rates, spec.search_grid(task, recipe, size[1])['weight_decay']


def next_value(
    optimizer: str, values: Sequence[float], key: str, up: bool, task: str, recipe: str | None
) -> float | None:
    """The value that follows the last one that was tried (or comes before the first one).

    It is the catalog's next where the values are the catalog's, else continues the ratio of the
    two values at that end. Below a decay of 0 there is nothing.

    Args:
        optimizer: Its name.
        values: Rates or decays that were tried, ascending.
        key: ``'lr'`` or ``'wd'``.
        up: Whether it shall be larger.
        task: Of the config.
        recipe: Of the config.

    Example:
        >>> next_value('SGD', (0.05, 0.1, 0.2), 'lr', True, 'classification', None)
        0.4
    """
    if not up and values[0] == 0:
        return None
    for n in range(3, 2 * len(values) + 8, 2):
        known = _catalog_values(optimizer, key, task, recipe, n)
        beyond = [v for v in known if (v > values[-1] if up else v < values[0])]
        if set(values) <= set(known) and beyond:
            return min(beyond) if up else max(beyond)
    ends = values[-2:] if up else values[:2]
    ratio = ends[1] / ends[0] if len(ends) == 2 and ends[0] > 0 else 2.0
    return float(f'{values[-1] * ratio if up else values[0] / ratio:.6g}')


def _catalog_values(
    optimizer: str, key: str, task: str, recipe: str | None, n: int
) -> tuple[float, ...]:
    from bocb_mm.optimizers import get_spec

    try:
        return get_spec(optimizer).search_grid(task, recipe, n)[_KEYS[key]]
    except UserError:  # of a library, or a rate of another recipe
        return ()
