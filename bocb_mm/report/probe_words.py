"""What a probe found, in three sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bocb_mm.report import gap
from bocb_mm.report.gap import Interval

Result = Mapping[str, Any]
_MOST_NAMED = 5  # optimizers that their default costs something; the table has them all
TUNING, FRESH, LONGER = 'tuning', 'fresh', 'longer'
"""Why a run was made: to find the best rate, to confirm it, to see it at another length."""


def sentences(result: Result) -> tuple[str, str, str]:
    """The answer: coupled or not and how sure; was it the rate; what to train with.

    Args:
        result: What ``probe.json`` holds, see :func:`bocb_mm.report.probed.analyse`.
    """
    if not result['best']:
        return _nothing(result)
    return _coupled(result), _rate(result), _train(result)


def digits(result: Result) -> int:
    """Decimals with which a tenth of the margin can be seen; 1 for a margin of 1 or more."""
    return max(1, 1 - math.floor(math.log10(result['margin'])))


def amount(result: Result, value: Any) -> str:
    """A number or an interval with as many digits as matter, and its unit."""
    return f'{value:.{digits(result)}f} {unit(result)}'.rstrip()


def margin_of(result: Result) -> str:
    """The margin with its unit."""
    return f'{result["margin"]:g} {unit(result)}'.rstrip()


def unit(result: Result) -> str:
    """Unit of results; files of earlier releases have points."""
    return str(result['subject'].get('unit', 'points'))


def _nothing(result: Result) -> tuple[str, str, str]:
    """The sentences while nothing is confirmed: no run worked, or the probe has just begun."""
    rates = ', '.join(
        f'{r["name"]} down to {r["smallest_lr"]:g}'
        for r in result['optimizers']
        if r['smallest_lr']
    )
    ended = [r for r in result['runs'] if r['stage'] == TUNING]
    if ended and all(r['value'] is None for r in ended):
        said = f'all {len(ended)} runs diverged or failed ({rates})'
        why = next((r['message'] for r in ended if r['message']), '')
        return (
            f'Undecided: {said}.',
            f'No learning rate that was tried trains this network{f": {why}" if why else ""}.',
            'Look at the network and the data first: a loss that is never finite is no coupling.',
        )
    return (
        f'Undecided so far: {len(ended)} tuning runs have ended, none is confirmed.',
        'Whether it is the rate is not known yet.',
        'Run the same command again to go on.',
    )


def _coupled(result: Result) -> str:
    subject, found, margin = result['subject'], result['gap'], result['margin']
    a, b = found[gap.ADAPTIVE], found[gap.FIXED]
    who = f'After {subject["budget"]}, {subject["backbone"]} is'
    if a is None or b is None:
        missing = 'a fixed' if b is None else 'an adaptive'
        return f'{who} undecided: no optimizer of {missing} rate has a confirmed result.'
    interval = Interval.of(found['interval'])
    versus = f'best adaptive ({a}) minus best fixed rate ({b}) is {amount(result, interval)}'
    n, most = found['seeds'], max(found.get('seeds_of', [0]))
    each = f'{n} fresh seeds each' if most <= n else f'{n} fresh seeds of one, {most} of the other'
    text = f'{who} {found["words"]}: {versus} (95 % interval, {each}{_lost(result)}), '
    if n > 1 and not result['learned']:
        floor = f'{subject["metric"]} {subject["sign"] * subject["floor"]:.3g}'
        return text + f'but no optimizer is shown to learn more than guessing ({floor}).'
    if found['verdict'] in (gap.ADAPTIVE, gap.FIXED):
        text += f'all of it beyond the margin of {margin:g}'
    elif found['verdict'] == gap.NONE:
        text += f'all of it within the margin of {margin:g}'
    elif n < 2:
        more = 'give --seeds 4' if most < 2 else 'run the same command again to go on'
        return text + f'and one seed decides nothing: {more}.'
    elif math.isnan(interval.low):
        return text + 'but the seeds of each agree to the last digit, so their spread is unknown.'
    elif found['seeds_to_decide'] is None:
        text += f'too close to the margin of {margin:g} for {gap.MOST_SEEDS} seeds to decide'
    else:
        more = max(found['seeds_to_decide'], n + 1)
        text += f'across the margin of {margin:g}; about {more} seeds would decide (--seeds {more})'
    behind = result['range']
    if behind['behind'] and found['verdict'] == gap.NONE:
        text += f', but {behind["last"]} falls behind by more than that'
    return text + '.'


def _lost(result: Result) -> str:
    """Which of those compared diverged on fresh seeds."""
    compared = [result['gap'][gap.ADAPTIVE], result['gap'][gap.FIXED]]
    return ''.join(
        f'; {r["name"]} diverged on {r["fresh_diverged"]} of {len(r["fresh"])}'
        for r in result['optimizers']
        if r['name'] in compared and r.get('fresh_diverged')
    )


def _rate(result: Result) -> str:
    margin, rows = result['margin'], [r for r in result['optimizers'] if r['fresh']]
    costs = {r['name']: Interval.of(r['default_cost']) for r in rows}
    costly = [r for r in rows if costs[r['name']].low > 0 and costs[r['name']].estimate >= margin]
    words = [
        f'{r["name"]} diverges at its default {r["default_lr"]:g} and trains at {r["lr"]:g}'
        for r in rows
        if r['default_diverged']
    ]
    words += [
        f'{r["name"]} loses {amount(result, costs[r["name"]]).replace("+", "")} at its default '
        f'{r["default_lr"]:g} against {r["lr"]:g}'
        for r in sorted(costly, key=lambda r: -costs[r['name']].estimate)
    ]
    if words:
        more = len(words) - _MOST_NAMED
        shown = '; '.join(words[:_MOST_NAMED])
        rest = f'; {more} more lose at least {margin_of(result)}, or diverge' if more > 0 else ''
        return f'The rate matters: {shown}{rest}.'
    moved = [r['name'] for r in rows if r['lr'] != r['default_lr']]
    open_ = [name for name in moved if not costs[name].high <= margin]  # nan: a single seed
    if open_:
        return (
            f'That it is the rate is not shown: no default costs {margin_of(result)} for sure, '
            f'though {", ".join(open_)} might.'
        )
    return f'It is not the rate: no default costs more than the margin of {margin_of(result)}.'


def _train(result: Result) -> str:
    subject, best = result['subject'], result['best']
    mean, *ends = (subject['sign'] * v for v in best['expected'] if v is not None)
    # The sign of an error turned back, low comes first again.
    shown = f'.{digits(result)}f'
    between = f' [{", ".join(format(v, shown) for v in sorted(ends))}]' if ends else ''
    decay = '' if best['weight_decay'] is None else f', weight decay {best["weight_decay"]:g}'
    row = next(r for r in result['optimizers'] if r['name'] == best['name'])
    edge = '; its best rate is the last that was tried' if row['edge'] else ''
    return (
        f'Train with {best["name"]}, learning rate {best["lr"]:g}{decay}: '
        f'{subject["metric"]} {mean:{shown}}{between} is expected of the same budget{edge}.'
    )
