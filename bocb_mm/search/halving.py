"""Asynchronous successive halving (Li et al., MLSys 2020) within a pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def falls_behind(
    mine: Mapping[int, float], others: Iterable[Mapping[int, float]], factor: int
) -> bool:
    r"""Whether a trial should be stopped at the rung it has reached.

    Rungs are the evaluations number :math:`1, N, N^2, \dots`. Of the :math:`n` trials that have
    reached a rung, the :math:`\max(1, \lfloor n / N \rfloor)` best go on.

    Args:
        mine: Results of the trial by epoch; larger is better.
        others: Those of the pair's other trials.
        factor: :math:`N`.

    Example:
        >>> falls_behind({1: 10.0}, [{1: 30.0}, {1: 20.0}], 3)
        True
        >>> falls_behind({1: 10.0}, [], 3)
        False
    """
    values = _in_order(mine)
    rung = 1
    while rung * factor <= len(values):
        rung *= factor
    if not values or rung != len(values):
        return False
    rivals = [v[rung - 1] for v in map(_in_order, others) if len(v) >= rung]
    going_on = max(1, (len(rivals) + 1) // factor)
    return sum(rival > values[-1] for rival in rivals) >= going_on


def _in_order(steps: Mapping[int, float]) -> list[float]:
    return [value for _, value in sorted(steps.items())]
