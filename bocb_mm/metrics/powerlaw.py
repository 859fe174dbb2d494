"""The power-law exponent of a spectrum: maximum likelihood, least Kolmogorov-Smirnov distance.

The search over xmin is exact, but not quadratic: the distance at a few points of a tail bounds the
distance over the whole tail from below, so that most candidates are ruled out unseen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bocb_mm.errors import unknown_name

SMALL_N = 20  # WeightWatcher 0.7.7 corrects the estimate's bias below this many eigenvalues,
SMALL_N_MIN_TAIL = 8  # and then leaves out the tails shorter than this
MAX_FINGERS = 10
FINGER_THRESHOLD = 1.0
MIN_ALPHA = 2.0
_COARSE, _FINE = 24, 192  # points of a tail that bound its distance, first and second round
_CELLS = 1 << 13  # points times candidates at a time: memory stays small


@dataclass(frozen=True)
class PowerLawFit:
    """A power law ``p(x) ~ x**-alpha`` for ``x >= xmin``.

    Attributes:
        alpha: Exponent, no unit; NaN where nothing can be fitted.
        xmin: Start of the tail, in units of the data.
        xmax: Largest value fitted, in units of the data.
        ks: Kolmogorov-Smirnov distance between the tail and the law, 0 to 1.
        sigma: Standard error of ``alpha``, ``(alpha - 1) / sqrt(n_tail)``.
        n_tail: Values in the tail.
    """

    alpha: float = math.nan
    xmin: float = math.nan
    xmax: float = math.nan
    ks: float = math.nan
    sigma: float = math.nan
    n_tail: int = 0


def fit_power_law(values: np.ndarray, fit: str = 'ks') -> PowerLawFit:
    r"""Fit a continuous power law to the upper tail of positive values.

    For a given start of the tail the maximum-likelihood exponent is
    :math:`\alpha = 1 + n / \sum_j \ln(x_j / x_{min})`, and its distance to the data is
    :math:`D = \max_j |1 - (x_j/x_{min})^{1-\alpha} - j/n|` with j counted from 0.

    Args:
        values: Positive values in any order, 1-D; eigenvalues, say.
        fit: ``'ks'``: the start with the least D among all values but the largest (WeightWatcher's
            default). ``'median'``: the start is the median, no search (the Hill estimator over the
            upper half). ``'clip_xmax'``: ``'ks'`` after leaving out the largest values one by one,
            at most 9, until alpha has dropped by more than 1; if it never does, the plain fit
            (WeightWatcher's ``fix_fingers='clip_xmax'``).

    Returns:
        The fit; all NaN for fewer than two values.

    Raises:
        UserError: ``fit`` is not one of :data:`FITS`.

    Example:
        >>> x = (1 - (np.arange(1000) + 0.5) / 1000) ** -0.5  # quantiles of alpha = 3
        >>> round(fit_power_law(x).alpha, 1)
        3.0

    Source: Clauset, Shalizi, Newman, SIAM Review 51(4), 2009, eq. 3.1 and 3.9; WeightWatcher 0.7.7
    for the details (below 20 values the exponent is ``1 + (n - 1) / sum`` and tails of fewer than 8
    values do not count); the median: Zhou et al., TempBalance, NeurIPS 2023, section 3.
    """
    if fit not in FITS:
        raise unknown_name('fit', fit, FITS, f'the fits are {", ".join(FITS)}')
    data = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if len(data) < 2:
        return PowerLawFit()
    return FITS[fit](data)


def _fit_ks(data: np.ndarray) -> PowerLawFit:
    logs = np.log(data)
    n = len(data) - np.arange(len(data) - 1, dtype=np.float64)  # length of each candidate's tail
    sums = np.cumsum(logs[::-1])[::-1][:-1] - n * logs[:-1]
    small = len(data) < SMALL_N
    with np.errstate(divide='ignore'):
        alphas = 1 + (n - 1 if small else n) / np.maximum(sums, 0.0)
    allowed = np.ones(len(n), dtype=bool)
    if small:
        allowed = (n >= SMALL_N_MIN_TAIL) & (sums > 1e-12)
        if len(data) < SMALL_N_MIN_TAIL:
            allowed = (np.arange(len(n)) == 0) & (sums > 1e-12)
        if not allowed.any():
            return PowerLawFit()
    best, distance = _least_distance(logs, alphas, np.flatnonzero(allowed))
    return _result(data, best, float(alphas[best]), distance)


def _fit_median(data: np.ndarray) -> PowerLawFit:
    start = len(data) // 2
    start = min(start, len(data) - 2)
    logs = np.log(data)
    n = len(data) - start
    total = float(np.sum(logs[start:] - logs[start]))
    if total <= 0:
        return PowerLawFit()
    alpha = 1 + n / total
    return _result(data, start, alpha, _distance(logs, start, alpha))


def _fit_clipped(data: np.ndarray) -> PowerLawFit:
    first = _fit_ks(data)
    for clipped in range(2, MAX_FINGERS):
        if len(data) - clipped < 2:
            break
        fit = _fit_ks(data[:-clipped])
        if fit.alpha + FINGER_THRESHOLD < first.alpha:
            return fit
        if fit.alpha <= MIN_ALPHA:
            break
    return first


FITS: dict[str, Callable[[np.ndarray], PowerLawFit]] = {
    'ks': _fit_ks,
    'median': _fit_median,
    'clip_xmax': _fit_clipped,
}


def _result(data: np.ndarray, start: int, alpha: float, distance: float) -> PowerLawFit:
    n = len(data) - start
    sigma = (alpha - 1) / math.sqrt(n)
    return PowerLawFit(alpha, float(data[start]), float(data[-1]), distance, sigma, n)


def _least_distance(
    logs: np.ndarray, alphas: np.ndarray, candidates: np.ndarray
) -> tuple[int, float]:
    """The first candidate with the least distance, and that distance."""
    bound = _lower_bound(logs, alphas, candidates, _COARSE)
    order = np.argsort(bound, kind='stable')
    # The candidate that looks best gives a distance that most of the others cannot reach.
    best = int(candidates[order[0]])
    least = _distance(logs, best, alphas[best])
    keep = bound <= least
    candidates, bound = candidates[keep], bound[keep]
    if len(logs) > 4 * _FINE and len(candidates) > 8:
        bound = np.maximum(bound, _lower_bound(logs, alphas, candidates, _FINE))
    for at in np.argsort(bound, kind='stable'):
        if bound[at] > least:
            break
        start = int(candidates[at])
        distance = _distance(logs, start, alphas[start])
        if distance < least or (distance == least and start < best):
            best, least = start, distance
    return best, least


def _lower_bound(
    logs: np.ndarray, alphas: np.ndarray, candidates: np.ndarray, points: int
) -> np.ndarray:
    """The distance over some points of each candidate's tail: never above the true one."""
    fractions = np.arange(points)[:, None] / points
    bounds = np.empty(len(candidates))
    step = _CELLS // points
    for first in range(0, len(candidates), step):
        block = candidates[first : first + step]
        n = (len(logs) - block).astype(np.float64)
        steps = (fractions * n).astype(np.int64)  # points x candidates
        steps[0] = n - 1  # the end of the tail says more than its start, where the distance is 0
        exponents = _exponent(alphas[block], logs[block + steps] - logs[block])
        distances = np.abs(-np.expm1(exponents) - steps / n)
        bounds[first : first + step] = distances.max(axis=0)
    return bounds * (1 - 1e-12)


def _distance(logs: np.ndarray, start: int, alpha: float) -> float:
    """Kolmogorov-Smirnov distance of the tail from ``start``."""
    tail = logs[start:]
    n = len(tail)
    law = -np.expm1(_exponent(alpha, tail - tail[0]))
    return float(np.abs(law - np.arange(n) / n).max())


def _exponent(alpha: np.ndarray | float, gaps: np.ndarray) -> np.ndarray:
    """``(1 - alpha) * gaps``, where an infinite alpha (all values equal) meets only gaps of 0."""
    with np.errstate(invalid='ignore'):
        return np.where(gaps == 0, 0.0, (1 - alpha) * gaps)
