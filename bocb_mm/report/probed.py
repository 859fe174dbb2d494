"""From the runs of a probe to its answer: what ``probe.json`` holds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bocb_mm.errors import UserError
from bocb_mm.report import gap, tuning
from bocb_mm.report.gap import Interval
from bocb_mm.report.probe_words import FRESH, LONGER, TUNING, sentences

FILE_NAME = 'probe.json'
SCHEMA_VERSION = 1
"""Version of ``probe.json``."""


@dataclass(frozen=True)
class Run:
    """One run of a probe.

    Attributes:
        optimizer: Its name.
        lr: Learning rate.
        weight_decay: Weight decay.
        seed: Random seed.
        stage: ``'tuning'``, ``'fresh'`` (confirms the best rate) or ``'longer'``.
        value: Result in points, larger is better; ``-inf`` diverged, NaN without a result.
        length: Of the schedule, 1 for the probe's own.
        seconds: That it took.
        directory: Where it is.
        message: Why it has no result, or diverged.
    """

    optimizer: str
    lr: float
    weight_decay: float
    seed: int
    stage: str
    value: float
    length: float = 1.0
    seconds: float | None = None
    directory: str = ''
    message: str = ''


@dataclass(frozen=True)
class Subject:
    """What was probed; results of probes compare where all but ``backbone`` agrees.

    Attributes:
        backbone: Name of the network.
        task: ``'classification'`` and so on.
        dataset: Name of the data.
        metric: Name of the metric.
        budget: What one run does, in words: ``'400 iterations at batch 64'``.
        protocol: Version of the protocol.
        data: Hash of data, schedule and batch, without the network.
        sign: -1 for an error, where smaller is better.
        floor: What a network that learned nothing reaches, in points.
        unit: Of results: ``'points'``, ``'pixels'``, or ``''`` for a number of its own.
    """

    backbone: str
    task: str
    dataset: str
    metric: str
    budget: str
    protocol: int
    data: str = ''
    sign: float = 1.0
    floor: float = 0.0
    unit: str = 'points'

    def comparable(self, other: Mapping[str, Any]) -> bool:
        """Whether another network's ``probe.json`` is of the same data and budget."""
        names = ('task', 'dataset', 'metric', 'budget', 'protocol', 'data')
        return other['backbone'] != self.backbone and all(
            getattr(self, name) == other.get(name) for name in names
        )


def analyse(
    subject: Subject,
    runs: Sequence[Run],
    defaults: Mapping[str, float],
    margin: float,
    references: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Everything a probe has to say, as ``probe.json`` holds it.

    A fresh run that diverged counts as the worst finite result of the probe, one without a result
    does not count. The optimizer that stands for a family is the one whose tuning run was best.

    Args:
        subject: What was probed.
        runs: All runs that have ended.
        defaults: The catalog's rate of each optimizer that was to be tried.
        margin: In points.
        references: ``probe.json`` of other networks; those of other data or budget are left out.

    Returns:
        JSON-able: ``schema_version, subject, margin, optimizers, gap, range, lengths, best,
        sentences, references, runs``.
    """
    worst = min((r.value for r in runs if math.isfinite(r.value)), default=subject.floor)
    rows = [_of_optimizer(o, runs, default, subject, worst) for o, default in defaults.items()]
    first = _gap(rows, runs, FRESH, margin, worst)
    lengths = sorted({r.length for r in runs if r.stage == LONGER})
    longer = [_longer(rows, runs, length, margin, worst, first) for length in lengths]
    best = max(
        (r for r in rows if r['fresh']), key=lambda r: (r['expected'][0], r['name']), default=None
    )
    result: dict[str, Any] = {
        'schema_version': SCHEMA_VERSION,
        'subject': asdict(subject),
        'margin': margin,
        'optimizers': rows,
        'gap': first,
        'range': _range(rows, margin),
        'lengths': longer,
        'best': best and {k: best[k] for k in ('name', 'lr', 'weight_decay', 'expected')},
        'references': [_reference(r) for r in references if subject.comparable(r['subject'])],
        'runs': [_run(r) for r in runs],
    }
    result['learned'] = best is not None and _least(best['expected']) > subject.floor
    if not result['learned']:
        first |= {'verdict': gap.UNDECIDED, 'words': gap.VERDICTS[gap.UNDECIDED]}
    result['sentences'] = sentences(result)
    return result


def _least(expected: Sequence[float | None]) -> float:
    """The lower end of an interval; the estimate where equal results or one seed give no end."""
    found = Interval.of(expected)
    return found.estimate if math.isnan(found.low) else found.low


def _of_optimizer(
    name: str, runs: Sequence[Run], default: float, subject: Subject, worst: float
) -> dict[str, Any]:
    mine = [r for r in runs if r.optimizer == name]
    tried = {r.lr: r for r in sorted(mine, key=lambda r: r.lr) if r.stage == TUNING}
    curve = {lr: r.value for lr, r in tried.items()}
    worked = [lr for lr, value in curve.items() if math.isfinite(value)]
    best = min(worked, key=lambda x: (-curve[x], abs(math.log(x / default)), x), default=None)
    ended = [r.value for r in mine if r.stage == FRESH and r.lr == best]
    fresh = [_finite(v, worst) for v in ended if not math.isnan(v)]
    at_default = curve.get(default, math.nan)
    cost = Interval(0.0) if best == default else gap.default_cost(fresh, at_default)
    frame = pd.DataFrame({'optimizer': name, 'column': '', 'value': list(curve.values())})
    ease = tuning.tuning_ease(frame)
    return {
        'name': name,
        'family': gap.family(name),
        'default_lr': default,
        'lr': best,
        'weight_decay': mine[0].weight_decay if mine else None,
        'tuned': _json(curve[best]) if best is not None else None,
        'fresh': fresh,
        'fresh_diverged': ended.count(-math.inf),
        'expected': gap.mean(fresh).to_json(),
        'default_cost': cost.to_json() if math.isfinite(cost.estimate) else [None] * 3,
        'default_diverged': at_default == -math.inf,
        'lr_sensitivity': _json(
            gap.lr_sensitivity(
                list(curve), list(curve.values()), subject.floor, default / 16.1, default * 16.1
            )
        ),
        'diverged_share': _json(gap.diverged_share([r.value for r in mine])),
        'tuning_ease': _json(float(ease.iat[0, 0])) if ease.size else None,
        'edge': len(tried) > 1 and best in (min(tried), max(tried)),
        'smallest_lr': min(tried, default=None),
    }


def _finite(value: float, worst: float) -> float:
    return value if math.isfinite(value) else worst


def _representatives(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The best tuned optimizer of each family that has one confirmed."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in sorted(rows, key=lambda r: r['tuned'] if r['tuned'] is not None else -math.inf):
        if row['fresh']:
            found[row['family']] = row
    return found


def _gap(
    rows: Sequence[Mapping[str, Any]],
    runs: Sequence[Run],
    stage: str,
    margin: float,
    worst: float,
    length: float = 1.0,
) -> dict[str, Any]:
    """The signed gap at one length, its verdict, and what would decide it."""
    standing = _representatives(rows)
    sides = {}
    for family, row in standing.items():
        values = {
            r.seed: _finite(r.value, worst)
            for r in runs
            if (r.optimizer, r.lr, r.stage) == (row['name'], row['lr'], stage)
            and not math.isnan(r.value)
            and (stage == FRESH or r.length == length)
        }
        sides[family] = dict(sorted(values.items()))
    a, b = (list(sides.get(f, {}).values()) for f in (gap.ADAPTIVE, gap.FIXED))
    found = gap.difference(a, b)
    # The spread of the other side is no spread of a single result.
    verdict = gap.decide(found, margin) if min(len(a), len(b)) > 1 else gap.UNDECIDED
    return {
        'verdict': verdict,
        'words': gap.VERDICTS[verdict],
        'interval': found.to_json(),
        gap.ADAPTIVE: standing[gap.ADAPTIVE]['name'] if gap.ADAPTIVE in standing else None,
        gap.FIXED: standing[gap.FIXED]['name'] if gap.FIXED in standing else None,
        'seeds': min(len(a), len(b)),
        'seeds_of': [len(a), len(b)],
        'seeds_to_decide': gap.seeds_to_decide(a, b, margin),
        'by_seed': [
            sides[gap.ADAPTIVE][s] - sides[gap.FIXED][s]
            for s in sides.get(gap.ADAPTIVE, {})
            if s in sides.get(gap.FIXED, {})
        ],
    }


def _longer(
    rows: Sequence[Mapping[str, Any]],
    runs: Sequence[Run],
    length: float,
    margin: float,
    worst: float,
    first: Mapping[str, Any],
) -> dict[str, Any]:
    """The gap at another length, and by how much it is larger than at the probe's own."""
    found = _gap(rows, runs, LONGER, margin, worst, length)
    growth = gap.difference(found['by_seed'], first['by_seed'])
    return {'length': length, **found, 'growth': growth.to_json()}


def _range(rows: Sequence[Mapping[str, Any]], margin: float) -> dict[str, Any]:
    groups = {r['name']: r['fresh'] for r in rows if r['fresh']}
    found = gap.spread(groups)
    behind = gap.falls_behind(found, margin)
    last = min(groups, key=lambda o: sum(groups[o]) / len(groups[o]), default=None)
    return {'interval': found.to_json(), 'behind': behind, 'last': last}


def _reference(other: Mapping[str, Any]) -> dict[str, Any]:
    return {
        'backbone': other['subject']['backbone'],
        'words': other['gap']['words'],
        'interval': other['gap']['interval'],
        'best': other['best'] and other['best']['expected'][0],
    }


def _run(run: Run) -> dict[str, Any]:
    status = 'diverged' if run.value == -math.inf else 'no result'
    status = 'completed' if math.isfinite(run.value) else status
    return {**asdict(run), 'value': _json(run.value), 'status': status}


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None


def read(path: Path) -> dict[str, Any]:
    """A ``probe.json``, or the one in a folder; what others read in it is what it promises.

    Raises:
        UserError: It cannot be read, is none, is damaged, or is of another version.
    """
    path = path / FILE_NAME if path.is_dir() else path
    try:
        data = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, 'strerror', None) or error
        raise UserError(f'{path}: cannot be read ({why}); bocb probe writes it') from None
    version = data.get('schema_version') if isinstance(data, dict) else type(data).__name__
    if version != SCHEMA_VERSION:
        raise UserError(
            f'{path}: schema_version {str(version)[:40]!r}; a probe.json of version '
            f'{SCHEMA_VERSION} is expected: probe again, or read it with the release that wrote it'
        )
    try:
        _check(data)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f'{path}: is damaged ({str(error)[:100]}); probe again') from None
    return data


def _check(data: Mapping[str, Any]) -> None:
    """Raise what Python raises where a part that others read is missing or of another kind."""
    names = ('backbone', 'task', 'dataset', 'metric', 'budget')
    subject = Subject(**data['subject'])
    texts = [getattr(subject, name) for name in names]
    texts += [data['gap']['words'], *data['sentences']]
    numbers = [*data['gap']['interval'], *(data['best']['expected'] if data['best'] else [])]
    for row in data['optimizers']:
        texts.append(row['name'])
        numbers += [1 / row['lr'] if row['fresh'] else None]
    if len(data['sentences']) != 3 or len(data['gap']['interval']) != 3:
        raise ValueError('three sentences and three numbers of an interval are expected')
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f'{text!r} where a text is expected')
    for number in numbers:
        if number is not None and not math.isfinite(number):
            raise ValueError(f'{number!r} where a number is expected')
