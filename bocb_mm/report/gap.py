"""Is a backbone coupled to its optimizer? The statistics of a probe: pure functions on results.

Results are in points and larger is better: shares times 100, errors with a minus sign. Verdicts
take results of fresh seeds only, those that chose neither the learning rate nor the optimizer: the
best of several noisy results is too good by about a standard deviation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bocb_mm import facts

LEVEL = 0.95
POWER = 0.8
MOST_SEEDS = 64  # more than anyone repeats a training: "undecided" is the answer then

ADAPTIVE, FIXED, NONE, UNDECIDED = 'adaptive', 'fixed', 'none', 'undecided'
VERDICTS = {
    ADAPTIVE: 'coupled to adaptive rates',
    FIXED: 'coupled to fixed rates',
    NONE: 'not coupled, at this budget',
    UNDECIDED: 'undecided',
}
"""What the signed gap can say, in words."""


# Of the libraries, what moves all weights by one rate: names that no row of the catalog has.
_FIXED_RATE = ('sgd', 'asgd', 'accsgd', 'sgdw', 'nesterov', 'momentum', 'nlars', 'nlarc', 'larc')


def family(optimizer: str) -> str:
    """``'adaptive'`` or ``'fixed'``: whose rates an optimizer's are like.

    Those whose rate follows SGD's in the catalog (``anchor``) are fixed, all others adaptive. So
    LION, which has no second moments, counts as adaptive: its steps are as large in each
    coordinate, and its rate is AdamW's over five.

    Example:
        >>> [family(o) for o in ('SGD', 'LARS', 'AdamW', 'LION', 'timm.sgdw', 'timm.adamw')]
        ['fixed', 'fixed', 'adaptive', 'adaptive', 'fixed', 'adaptive']
    """
    last = optimizer.rpartition('.')[2]
    row = facts.find_optimizer(last)
    fixed = row.anchor == 'SGD' if row else last.lower().startswith(_FIXED_RATE)
    return FIXED if fixed else ADAPTIVE


@dataclass(frozen=True)
class Interval:
    """An estimate in points with its 95 % interval; the ends are NaN where nothing tells them.

    Example:
        >>> str(Interval(2.94, 1.5, 4.4))
        '+2.9 [+1.5, +4.4]'
    """

    estimate: float
    low: float = math.nan
    high: float = math.nan

    def __str__(self) -> str:
        return format(self)

    def __format__(self, spec: str) -> str:
        """With as many decimals as asked for, ``f'{interval:.3f}'``; one by default."""
        if math.isnan(self.estimate):
            return 'unknown'
        spec = spec or '.1f'
        ends = [] if math.isnan(self.low) else [f'{v:+{spec}}' for v in (self.low, self.high)]
        return f'{self.estimate:+{spec}} [{", ".join(ends) or "unknown"}]'

    def to_json(self) -> list[float | None]:
        """The three numbers, None for NaN."""
        return [v if math.isfinite(v) else None for v in (self.estimate, self.low, self.high)]

    @classmethod
    def of(cls, numbers: Sequence[float | None]) -> Interval:
        """From the three numbers of :meth:`to_json`."""
        return cls(*(math.nan if v is None else v for v in numbers))


def difference(
    a: Sequence[float], b: Sequence[float], level: float = LEVEL, n: int = 2000
) -> Interval:
    r"""Mean of ``a`` minus mean of ``b``, with the wider of a t and a bootstrap interval.

    The t interval is ``d +- t_{(1 + level)/2, v} se`` with ``se^2 = s_a^2/n_a + s_b^2/n_b`` and the
    degrees of freedom of Welch (Biometrika 34, 1947). A side of a single result takes the other's
    variance, as in the pooled t interval. The bootstrap interval is the percentile one over the
    seeds of both sides (Efron and Tibshirani 1993, section 13.3); with four seeds it is nearly
    always the narrower.

    Args:
        a: Finite results of the seeds of one setting.
        b: Of the other.
        level: Of the interval.
        n: Bootstrap resamples.

    Returns:
        The difference; without ends where no side has two results, or where neither varies: seeds
        that all agree tell nothing about the spread.

    Example:
        >>> str(difference([75.0, 76, 77, 76], [72.0, 73, 72, 73]))
        '+3.5 [+2.2, +4.8]'
        >>> str(difference([75.0], [72.0]))
        '+3.0 [unknown]'
    """
    x, y = np.asarray(a, float), np.asarray(b, float)
    if not len(x) or not len(y):
        return Interval(math.nan)
    d = float(x.mean() - y.mean())
    se, freedom = _standard_error(x, y)
    if not se > 0:
        return Interval(d)
    from scipy.stats import t  # slow to import

    half = float(t.ppf((1 + level) / 2, freedom) * se)
    rng = np.random.default_rng(0)
    # Sorted: the order of the seeds must not move the draw.
    draws = rng.choice(np.sort(x), (n, len(x))).mean(1) - rng.choice(np.sort(y), (n, len(y))).mean(
        1
    )
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    if high - low > 2 * half:
        return Interval(d, float(low), float(high))
    return Interval(d, d - half, d + half)


def _standard_error(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Standard error of the difference of two means and its degrees of freedom; NaN if unknown."""
    several = [v for v in (x, y) if len(v) > 1]
    if not several:
        return math.nan, math.nan
    if len(several) == 1:
        variance, freedom = several[0].var(ddof=1), len(several[0]) - 1
        return math.sqrt(variance * (1 / len(x) + 1 / len(y))), float(freedom)
    parts = [v.var(ddof=1) / len(v) for v in (x, y)]
    total = sum(parts)
    if not total > 0:
        return 0.0, math.nan
    # By shares, as the squares of tiny variances underflow.
    return math.sqrt(total), 1 / sum((p / total) ** 2 / (len(v) - 1) for p, v in zip(parts, (x, y)))


def mean(results: Sequence[float], level: float = LEVEL) -> Interval:
    """Mean of a few results with its t interval; without ends for a single one, or equal ones.

    Example:
        >>> str(mean([75.0, 76, 77, 76]))
        '+76.0 [+74.7, +77.3]'
    """
    x = np.asarray(results, float)
    if not len(x):
        return Interval(math.nan)
    if len(x) < 2 or not x.std() > 0:
        return Interval(float(x.mean()))
    from scipy.stats import t

    half = float(t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return Interval(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half)


def spread(groups: Mapping[str, Sequence[float]], level: float = LEVEL) -> Interval:
    """How far the worst of several optimizers falls behind the best: the range of their means.

    Even where all are equal the range is not 0, as it is the largest of many differences. So the
    intervals of all pairs are taken at a level with Bonferroni's correction: they hold together
    (Dunn, JASA 56, 1961), and the range lies between the largest of their low ends (or 0) and the
    largest of their high ends.

    Args:
        groups: Finite results of fresh seeds by optimizer.
        level: Of the interval.

    Example:
        >>> equal = spread({'SGD': [75.0, 76, 77, 76], 'AdamW': [76.0, 77, 75, 76]})
        >>> equal.low, equal.high > 1
        (0.0, True)
    """
    means = [float(np.mean(v)) for v in groups.values() if len(v)]
    if len(means) < 2:
        return Interval(math.nan)
    pairs = list(itertools.combinations([v for v in groups.values() if len(v)], 2))
    found = [difference(a, b, 1 - (1 - level) / len(pairs)) for a, b in pairs]
    range_ = max(means) - min(means)
    if any(math.isnan(i.low) for i in found):
        return Interval(range_)
    low = max(0.0, *(max(i.low, -i.high) for i in found))
    return Interval(range_, low, max(max(i.high, -i.low) for i in found))


def decide(gap: Interval, margin: float) -> str:
    """The verdict on a signed gap, adaptive minus fixed rates: a key of :data:`VERDICTS`.

    An equivalence test (Schuirmann 1987) by inclusion of the interval: no label is given because a
    difference is significant, nor withheld because it is not; what counts is whether the whole
    interval lies beyond, or inside of, a margin that was fixed before.

    Args:
        gap: With its interval.
        margin: What is worth a change of the optimizer, in points.

    Example:
        >>> decide(Interval(4, 3.1, 4.9), 3), decide(Interval(0, -1, 1), 3)
        ('adaptive', 'none')
        >>> decide(Interval(4, 2.5, 5.5), 3), decide(Interval(9.0), 3)
        ('undecided', 'undecided')
    """
    if gap.low > margin:
        return ADAPTIVE
    if gap.high < -margin:
        return FIXED
    return NONE if -margin < gap.low and gap.high < margin else UNDECIDED


def falls_behind(range_: Interval, margin: float) -> bool | None:
    """Whether some optimizer falls behind by more than the margin; None where that is open.

    Example:
        >>> falls_behind(Interval(5, 4, 6), 3), falls_behind(Interval(3, 0, 6), 3)
        (True, None)
    """
    return True if range_.low > margin else False if range_.high < margin else None


def seeds_to_decide(
    a: Sequence[float], b: Sequence[float], margin: float, level: float = LEVEL
) -> int | None:
    """Seeds per setting with which a gap of this size and spread would most likely be decided.

    The smallest n with ``(t_{(1 + level)/2} + t_p) sqrt((s_a^2 + s_b^2)/n) <= ||d| - margin|``
    (Chow, Shao and Wang, Sample Size Calculations in Clinical Research, 2008, section 3.2): then
    the interval clears the margin in four of five repetitions, if the estimates are right. p is .8
    beyond the margin, and .9 within, where both ends must clear it.

    Args:
        a: Results of fresh seeds of one setting.
        b: Of the other.
        margin: In points.
        level: Of the interval.

    Returns:
        The number, all seeds counted; None above :data:`MOST_SEEDS` or where the spread is unknown.

    Example:
        >>> seeds_to_decide([75.0, 76, 77, 76], [72.0, 73, 72, 73], margin=2)
        5
        >>> seeds_to_decide([75.0, 76, 77, 76], [72.0, 73, 72, 73], margin=3.5) is None
        True
    """
    x, y = np.asarray(a, float), np.asarray(b, float)
    if min(len(x), len(y)) < 2:
        return None
    from scipy.stats import t

    within = abs(x.mean() - y.mean()) < margin
    power = (1 + POWER) / 2 if within else POWER
    distance = abs(abs(x.mean() - y.mean()) - margin)
    variances = np.array([x.var(ddof=1), y.var(ddof=1)])
    total = variances.sum()
    if not total > 0:
        return None
    for n in range(2, MOST_SEEDS + 1):
        freedom = (n - 1) / ((variances / total) ** 2).sum()
        factor = t.ppf((1 + level) / 2, freedom) + t.ppf(power, freedom)
        if factor * math.sqrt(total / n) <= distance:
            return n
    return None


def lr_sensitivity(
    rates: Sequence[float], results: Sequence[float], floor: float, low: float, high: float
) -> float:
    r"""Points that a rate drawn at random loses to the best one.

    ``E[best - max(result(rate), floor)]`` over rates uniform in ``log(rate)`` from ``low`` to
    ``high``, by the trapezoidal rule: Wortsman et al., Small-scale proxies for large-scale
    Transformer training instabilities (2023), section 2.2, with results in place of losses; their
    loss at initialisation, above which nothing counts, is the ``floor``.

    Args:
        rates: That were tried.
        results: Of them; ``-inf`` where a run diverged.
        floor: What a network that learned nothing reaches.
        low: Smallest rate that counts.
        high: Largest.

    Returns:
        Points, 0 for an optimizer that any rate suits; NaN with fewer than two rates in the range.

    Example:
        >>> lr_sensitivity([0.1, 1, 10], [70.0, 80, -math.inf], 10, 0.1, 10)
        20.0
    """
    tried = dict(sorted(zip(rates, results)))
    inside = {r: v for r, v in tried.items() if low <= r <= high and not math.isnan(v)}
    if len(inside) < 2:
        return math.nan
    x, y = np.log(list(inside)), np.maximum(list(inside.values()), floor)
    lost = y.max() - y
    return float((np.diff(x) * (lost[1:] + lost[:-1]) / 2).sum() / (x[-1] - x[0]))


def default_cost(confirmed: Sequence[float], default: float) -> Interval:
    """What the default rate costs: fresh results at the best rate minus the one at the default.

    Both sides are unbiased: the default's result chose nothing. Its spread is unknown from one run,
    so it is taken to be that of the best rate.

    Args:
        confirmed: Results of fresh seeds at the best rate.
        default: Result at the default rate; ``-inf`` where it diverged.

    Example:
        >>> str(default_cost([80.0, 81, 79, 80], 60.0))
        '+20.0 [+17.1, +22.9]'
    """
    return Interval(math.inf) if math.isinf(default) else difference(confirmed, [default])


def diverged_share(results: Sequence[float]) -> float:
    """Share of the runs that diverged, 0 to 1; NaN without runs.

    Example:
        >>> diverged_share([70.0, -math.inf])
        0.5
    """
    return sum(v == -math.inf for v in results) / len(results) if len(results) else math.nan
