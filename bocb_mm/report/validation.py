"""Does a probe say what a larger study says? Pure functions on ``probe.json``; docs/probe.md.

A study is a probe with other optimizers and other seeds, so that both are read alike. Its gap is
not the one in its file, which goes by the catalog's families, but that of the two groups that the
protocol of the validation names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bocb_mm.report import gap
from bocb_mm.report.gap import Interval

LEAST = 4  # networks below which a rank correlation is no more than a picture
Result = Mapping[str, Any]
"""What a ``probe.json`` holds."""
VIEWS = ('probe', 'study', 'study, best', 'study, families', 'again')
"""The probe, what it is compared with first, that in two other ways, and the second probe."""


@dataclass(frozen=True)
class Finding:
    """What a probe or a study says of a network.

    Attributes:
        gap: Adaptive minus fixed rates, in points.
        verdict: Key of :data:`bocb_mm.report.gap.VERDICTS`.
        adaptive: The optimizer that stands for adaptive rates, ``''`` if none has a result.
        fixed: The one for fixed rates.
    """

    gap: Interval
    verdict: str
    adaptive: str = ''
    fixed: str = ''


def finding(found: Result) -> Finding:
    """What a probe says, as it stands in its file."""
    said = found['gap']
    return Finding(
        Interval.of(said['interval']), said['verdict'], said[gap.ADAPTIVE] or '',
        said[gap.FIXED] or '',
    )  # fmt: skip


def gap_of_groups(
    found: Result, adaptive: Sequence[str], fixed: Sequence[str], place: str = 'middle'
) -> Finding:
    """What a study says, by two groups of its optimizers and the probe's own test and margin.

    A group is represented by one optimizer, which its tuning runs choose and whose fresh seeds are
    compared, so that nothing that is compared has chosen.

    Args:
        found: The study's ``probe.json``.
        adaptive: Names of one group.
        fixed: Of the other.
        place: ``'middle'``: the median of a group by its tuning runs, of an even number the better
            of the two in the middle, so that a member that is unlike the others does not decide;
            ``'best'``: as in a probe.

    Example:
        >>> rows = [dict(name='SGDP', tuned=40.0, fresh=[40.0, 41]),
        ...         dict(name='Adan', tuned=50.0, fresh=[49.0, 50])]
        >>> study = dict(optimizers=rows, margin=3.0, learned=True)
        >>> str(gap_of_groups(study, ['Adan'], ['SGDP']).gap)
        '+9.0 [+6.0, +12.0]'
    """
    rows = [_stands_for(found, names, place) for names in (adaptive, fixed)]
    if None in rows:
        return Finding(Interval(math.nan), gap.UNDECIDED)
    a, b = (row for row in rows if row is not None)
    difference = gap.difference(a['fresh'], b['fresh'])
    verdict = gap.decide(difference, found['margin']) if found['learned'] else gap.UNDECIDED
    return Finding(difference, verdict, a['name'], b['name'])


def _stands_for(found: Result, names: Sequence[str], place: str) -> Result | None:
    rows = [r for r in found['optimizers'] if r['name'] in names and r['fresh']]
    rows.sort(key=lambda r: (-r['tuned'], r['name']))
    return rows[(len(rows) - 1) // 2 if place == 'middle' else 0] if rows else None


def rank_correlation(x: Sequence[float], y: Sequence[float], n: int = 5000) -> Interval:
    """Spearman's correlation with a bootstrap interval (95 %, percentiles) over the networks.

    Pairs are redrawn; a draw in which all of a side are equal has no correlation and is left out.
    With eight networks the interval is wide, and that is what eight networks can tell.

    Args:
        x: A number a network; pairs with a NaN are left out.
        y: Another, in the same order.
        n: Draws.

    Returns:
        The correlation; NaN where a side is constant, no ends below :data:`LEAST` networks.

    Example:
        >>> rank_correlation([1, 2, 3, 4, 5], [2, 3, 4, 5, 7]).estimate
        1.0
    """
    pairs = np.array([p for p in zip(x, y) if all(map(math.isfinite, p))]).reshape(-1, 2)
    estimate = float(_spearman(pairs[None])[0])
    if len(pairs) < LEAST or math.isnan(estimate):
        return Interval(estimate)
    draws = np.random.default_rng(0).integers(len(pairs), size=(n, len(pairs)))
    low, high = np.nanquantile(_spearman(pairs[draws]), [0.025, 0.975])
    return Interval(estimate, float(low), float(high))


def _spearman(samples: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each sample ``(draws, networks, 2)``; NaN for a constant side."""
    from scipy.stats import rankdata  # slow to import

    if samples.shape[1] < 2:
        return np.full(len(samples), np.nan)
    ranks = rankdata(samples, axis=1)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    x, y = centred[..., 0], centred[..., 1]
    with np.errstate(invalid='ignore'):
        return np.round((x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1)), 12)


def agreement(pairs: Sequence[tuple[str, str]]) -> dict[str, int]:
    """How often two verdicts agree.

    Args:
        pairs: Two keys of :data:`bocb_mm.report.gap.VERDICTS` a network.

    Returns:
        ``same``: both decided, alike; ``different``: both decided, not alike; ``opposite``: of
        these, one for adaptive and one for fixed rates; ``undecided``: one or both.

    Example:
        >>> agreement([('adaptive', 'adaptive'), ('adaptive', 'none'), ('fixed', 'undecided')])
        {'same': 1, 'different': 1, 'opposite': 0, 'undecided': 1}
    """
    decided = [p for p in pairs if gap.UNDECIDED not in p]
    return {
        'same': sum(a == b for a, b in decided),
        'different': sum(a != b for a, b in decided),
        'opposite': sum({a, b} == {gap.ADAPTIVE, gap.FIXED} for a, b in decided),
        'undecided': len(pairs) - len(decided),
    }


def compatible(a: Interval, b: Interval) -> bool | None:
    """Whether two estimates of one gap differ by no more than their intervals allow.

    ``|a - b| <= sqrt(h_a^2 + h_b^2)`` with their half widths ``h``: the 95 % interval of the
    difference of two independent estimates. None where an interval is not known.

    Example:
        >>> compatible(Interval(2, 1, 3), Interval(3.4, 2.4, 4.4))
        True
    """
    halves = [(i.high - i.low) / 2 for i in (a, b)]
    if any(math.isnan(h) for h in (*halves, a.estimate, b.estimate)):
        return None
    return abs(a.estimate - b.estimate) <= math.hypot(*halves)


def same_choice(a: Result, b: Result) -> dict[str, Any]:
    """Whether two probes recommend alike: the optimizer, and how far apart best rates lie.

    Returns:
        ``optimizer``: whether it is the same; ``rates``: share of the optimizers whose best rates
        are within a factor of 2, the finest step of a probe; None where none has two.
    """
    rates = [{r['name']: r['lr'] for r in p['optimizers'] if r['lr']} for p in (a, b)]
    both = [rates[0][o] / rates[1][o] for o in rates[0] if o in rates[1]]
    near = [0.499 < ratio < 2.001 for ratio in both]
    names = [p['best'] and p['best']['name'] for p in (a, b)]
    return {
        'optimizer': names[0] == names[1],
        'rates': sum(near) / len(near) if near else None,
    }


def summary(
    networks: Mapping[str, Mapping[str, Result]],
    adaptive: Sequence[str],
    fixed: Sequence[str],
    cpu_seconds: Mapping[tuple[str, str], float],
) -> dict[str, Any]:
    """The validation, as JSON can hold it.

    Args:
        networks: By name the results ``probe``, ``again`` (other seeds) and ``study`` that there
            are.
        adaptive: The study's optimizers of one group.
        fixed: Of the other.
        cpu_seconds: Of all runs, by network and result.

    Returns:
        ``findings`` by network and :data:`VIEWS`; ``against`` by view: Spearman's correlation of
        the probe's gap with the view's, verdicts that agree, gaps that are compatible;
        ``choices`` of the two probes; ``cost`` by result: runs, processor minutes, per network.
    """
    findings = {name: _findings(parts, adaptive, fixed) for name, parts in networks.items()}
    pairs = {
        view: [(f['probe'], f[view]) for f in findings.values() if {'probe', view} <= f.keys()]
        for view in VIEWS[1:]
    }
    twice = [p for p in networks.values() if {'probe', 'again'} <= p.keys()]
    return {
        'findings': {
            name: {view: {**vars(f), 'gap': f.gap.to_json()} for view, f in of_one.items()}
            for name, of_one in findings.items()
        },
        'against': {view: _against(both) for view, both in pairs.items() if both},
        'choices': [same_choice(p['probe'], p['again']) for p in twice],
        'cost': {part: _cost(networks, part, cpu_seconds) for part in ('probe', 'again', 'study')},
    }


def _findings(
    parts: Mapping[str, Result], adaptive: Sequence[str], fixed: Sequence[str]
) -> dict[str, Finding]:
    found = {view: finding(parts[view]) for view in ('probe', 'again') if view in parts}
    if 'study' in parts:
        study = parts['study']
        found['study'] = gap_of_groups(study, adaptive, fixed)
        found['study, best'] = gap_of_groups(study, adaptive, fixed, 'best')
        found['study, families'] = finding(study)
    return found


def _against(pairs: Sequence[tuple[Finding, Finding]]) -> dict[str, Any]:
    x, y = ([f.gap.estimate for f in side] for side in zip(*pairs))
    return {
        'networks': len(pairs),
        'spearman': rank_correlation(x, y).to_json(),
        **agreement([(a.verdict, b.verdict) for a, b in pairs]),
        'compatible': sum(compatible(a.gap, b.gap) is True for a, b in pairs),
    }


def _cost(
    networks: Mapping[str, Mapping[str, Result]], part: str,
    cpu_seconds: Mapping[tuple[str, str], float],
) -> dict[str, Any]:  # fmt: skip
    """Runs and processor minutes of a network's result, on average."""
    have = [name for name, parts in networks.items() if part in parts]
    if not have:
        return {'networks': 0}
    runs = [networks[name][part]['cost']['runs'] for name in have]
    seconds = [cpu_seconds[name, part] for name in have]
    return {
        'networks': len(have),
        'runs': float(np.mean(runs)),
        'cpu_minutes': float(np.mean(seconds)) / 60,
        'cpu_seconds_a_run': sum(seconds) / max(1, sum(runs)),
    }
