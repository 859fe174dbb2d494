"""A learning rate for another optimizer."""

from __future__ import annotations

from pathlib import Path

from bocb_mm import facts
from bocb_mm.errors import UserError
from bocb_mm.facts import DEFAULT_RECIPE
from bocb_mm.report import probed


def translate(given: str, wanted: str, config: str | None = None, probe: str | None = None) -> str:
    """The rate to start from with an optimizer, given one that works with another.

    A probe that confirmed both says it; else the ratio of the catalog's rates for the task.

    Args:
        given: ``OPTIMIZER:LR``.
        wanted: The other optimizer.
        config: Says the task and the recipe; without it, classification.
        probe: Folder of a probe.

    Returns:
        A line: the rate, and where it comes from.

    Raises:
        UserError: Not of that form, or an optimizer that is not in the catalog.

    Example:
        >>> print(translate('SGD:0.01', 'AdamW'))
        AdamW: lr 0.0001, weight decay 0.05; SGD 0.01 times 0.01, the ratio of the catalog's rates \
for schedule pytorch-cifar (SGD 0.1: Table A3; openmixup CIFAR-100, R-50; AdamW 0.001: openmixup \
CIFAR-100, R-50)
    """
    name, colon, text = given.partition(':')
    try:
        lr = float(text)
    except ValueError:
        lr = -1.0
    if not colon or not 0 < lr < float('inf'):
        raise UserError(f'--translate {given!r}: OPTIMIZER:LR as in SGD:0.01 is expected')
    from bocb_mm.optimizers import get_spec

    first, second = get_spec(name), get_spec(wanted)
    a, b = first.name, second.name
    measured = _measured(probe, a, b) if probe else None
    key = _schedule(config)
    one, other = facts.default(first, key), facts.default(second, key)
    if measured is not None:
        rate = float(f'{lr * measured[1] / measured[0]:.3g}')
        why = f'the ratio of their best rates in {probe} ({measured[0]:g} and {measured[1]:g})'
        ratio = measured[1] / measured[0]
    else:
        rate = float(f'{lr * other.lr / one.lr:.3g}')
        ratio = other.lr / one.lr
        why = (
            f"the ratio of the catalog's rates for schedule {key} "
            f'({a} {one.lr:g}: {one.source}; {b} {other.lr:g}: {other.source})'
        )
    decay = other.weight_decay
    return f'{b}: lr {rate:g}, weight decay {decay:g}; {a} {lr:g} times {ratio:.3g}, {why}'


def _schedule(config: str | None) -> str:
    if config is None:
        return DEFAULT_RECIPE
    from bocb_mm.config import edit, rates

    return rates.schedule_of(edit.load_config(config))


def _measured(probe: str, a: str, b: str) -> tuple[float, float] | None:
    """The confirmed best rates of two optimizers in a probe that has both."""
    if not Path(probe, probed.FILE_NAME).is_file():
        return None
    found = probed.read(Path(probe))
    best = {row['name']: row['lr'] for row in found['optimizers'] if row['fresh']}
    return (best[a], best[b]) if a in best and b in best else None
