"""A probe from its options to its answer: plan, cost, runs, files."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from bocb_mm.errors import UserError
from bocb_mm.facts import scales
from bocb_mm.probe import plan
from bocb_mm.probe.engine import Outcome, StudyTrials, Trials, place, record_of
from bocb_mm.probe.look import Look, look
from bocb_mm.probe.options import Options, check
from bocb_mm.probe.plan import Protocol, Trial, next_trials
from bocb_mm.probe.target import Target, find_target
from bocb_mm.report import probed
from bocb_mm.runs import exit_codes
from bocb_mm.runs.files import atomic_write_text
from bocb_mm.search.engine import Engine

PROTOCOL_FILE, PAGE_FILE, STUDY = 'protocol.json', 'probe.html', 'runs'
_LEAST_FAILURES = 3  # of the first trials, without any result: the same mistake in all of them


def probe(
    options: Options,
    say: Callable[[str], None] = print,
    make_trials: Callable[..., Trials] = StudyTrials,
) -> tuple[dict[str, Any], int]:
    """Probe a backbone: is it coupled to its optimizer, or is it the learning rate?

    Args:
        options: What to probe and how.
        say: Takes lines for the user.
        make_trials: What trains; :class:`bocb_mm.probe.engine.StudyTrials`.

    Returns:
        What ``probe.json`` holds (empty after a dry run), and an exit status: 0 done, 3 all
        diverged, 75 interrupted.

    Raises:
        UserError: A mistake in what was given.

    Example:
        >>> found, _ = probe(Options(out='out', backbone='timm.resnet18'))  # doctest: +SKIP
        >>> found['gap']['words']  # doctest: +SKIP
        'not coupled, at this budget'
    """
    check(options)
    references = [*shipped_references(), *(probed.read(Path(r)) for r in options.references)]
    out = Path(options.out)
    target, engine = find_target(options), place(options)
    _check_margin(options.margin, target.metric)
    at_a_time = len(engine.gpus) or engine.jobs
    protocol, seen = _protocol(options, target, out, engine, at_a_time, say)
    _check_lengths(target, protocol)
    _announce(at_a_time, target, protocol, seen, say)
    if options.dry_run:
        return {}, exit_codes.COMPLETED
    config = _save_protocol(out, target, protocol, seen)
    config = os.path.abspath(config) if os.path.isfile(config) else config
    trials = make_trials(
        out / STUDY, lambda trial: target.cell(config, protocol, trial),
        dict(options=dict(target.overrides)), engine,
    )  # fmt: skip
    status = _work(protocol, trials, say)
    outcomes = trials.outcomes()
    result = _result(target, protocol, seen, outcomes, options.margin, references)
    write(out, result)
    for sentence in result['sentences']:
        say(sentence)
    say(f'{out / PAGE_FILE}: rates, layers, runs; {out / probed.FILE_NAME}: the numbers')
    if status == 0 and result['best'] is None:
        status = exit_codes.DIVERGED
    return result, status


def shipped_references() -> list[Mapping[str, Any]]:
    """Probes of small networks on the embedded digits, as this release ran them."""
    folder = resources.files(__package__) / 'references'
    files = folder.iterdir() if folder.is_dir() else ()
    texts = [f.read_text(encoding='utf-8') for f in files if f.name.endswith('.json')]
    return [json.loads(text) for text in texts]


# -- the protocol of this probe -----------------------------------------------------------------


def _protocol(
    options: Options, target: Target, out: Path, engine: Engine, at_a_time: int,
    say: Callable[[str], None],
) -> tuple[Protocol, Look]:  # fmt: skip
    """What is tried: as it was begun in the folder, or anew."""
    wanted = Protocol(
        target.starts, options.seeds, options.first_seed, tuple(map(float, options.lengths))
    )
    before = _begun(out)
    if before is None:
        _check_lengths(target, wanted)
        seen = _look(target, options.threads, engine)
        return _shortened(wanted, target, seen, options.minutes, at_a_time), seen
    if options.minutes is not None:  # what fits was measured then
        wanted = wanted.scaled(before['length'])
        say(f'{out}: goes on with its schedule, {target.budget(before["length"])}, whatever fits')
    starts = _plain(wanted.starts)
    differs = [
        name
        for name, was, now in (
            ('the config', before['identity'], target.identity),
            # Each goes its own way through the plan, so that others may join it later.
            (
                'the optimizers or their rates',
                before['starts'],
                {name: starts.get(name) for name in before['starts']},
            ),
            ('--first-seed', before['first_seed'], wanted.first_seed),
            ('the first of --lengths', before['length'], wanted.lengths[0]),
        )
        if was != now
    ]
    if differs:
        raise UserError(
            f'--out {out}: holds a probe of {before["backbone"]} that differs in '
            f'{", ".join(differs)}; give another folder, or the same command as then '
            '(--seeds, --optimizers and further --lengths may grow)'
        )
    return wanted, before['look']


_UNITS = {'pixels': 'pixels', 'number': ''}  # of metrics that are not shown in points


def _check_margin(margin: float | None, metric: str) -> None:
    """The paper's gamma is in points.

    Raises:
        UserError: There is no margin, and the metric is in a unit of its own.
    """
    if margin is None and scales.scale(metric).unit in _UNITS:
        raise UserError(
            f'--margin: {metric} is not in points, which the usual margin is; say what difference '
            'of it matters to you'
        )


def _check_lengths(target: Target, protocol: Protocol) -> None:
    """Refuse lengths that no schedule can have, or that come to one and the same schedule.

    Raises:
        UserError: One is too short, or two are equal.
    """
    seen: dict[str, float] = {}
    for length in protocol.lengths:
        target.options(length)  # refuses a schedule that cannot be so short
        budget = target.budget(length)
        if budget in seen:
            raise UserError(
                f'--lengths: {seen[budget]:g} and {length:g} times the schedule are both {budget}; '
                'leave one out, or give one that is further away'
            )
        seen[budget] = length


def _look(target: Target, threads: int, engine: Engine) -> Look:
    """A look at the target where the engine trains, leaving nothing behind."""
    device = None if engine.address else ','.join(engine.gpus[:1]) or '-1'
    first = next(iter(target.starts))
    with tempfile.TemporaryDirectory(prefix='bocb_probe_') as folder:
        overrides = {**target.overrides, **target.options(1.0)}
        config = target.write(Path(folder))
        return look(config, overrides, first, target.pretrained, threads, device)


def _begun(out: Path) -> dict[str, Any] | None:
    """What the folder says of a probe that was begun there."""
    file = out / PROTOCOL_FILE
    if not file.exists():
        if out.exists() and not out.is_dir():
            raise UserError(f'--out {out}: is a file; name a folder')
        return None
    try:
        found = json.loads(file.read_text(encoding='utf-8'))
        stored = found['protocol']
        if stored['version'] != plan.PROTOCOL:
            raise UserError(
                f'--out {out}: holds a probe of protocol version {stored["version"]}, this release '
                f'runs {plan.PROTOCOL}; results of two versions do not compare: give another --out'
            )
        seen, length = Look(**found['look']), float(stored['lengths'][0])
        seen.seconds(length)
        told = {'backbone': found['backbone'], 'identity': found['identity']}
        told |= {name: stored[name] for name in ('starts', 'first_seed')}
        return {**told, 'length': length, 'look': seen}
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise UserError(f'{file} cannot be read ({error}); give another --out') from None


def _shortened(
    protocol: Protocol, target: Target, seen: Look, minutes: float | None, at_a_time: int
) -> Protocol:
    """With the schedule shortened to fit ``--minutes``.

    Raises:
        UserError: Not even runs of one unit (epoch, or a twentieth of the iterations) fit.
    """
    if minutes is None:
        return protocol
    seconds = 60 * minutes * at_a_time
    training = sum(protocol.runs_at(x) * x / protocol.lengths[0] for x in protocol.lengths)
    training *= seen.seconds_per_iteration * seen.iterations
    fixed = seen.seconds(0.0) * protocol.least_runs
    factor = (seconds - fixed) / training
    if factor >= protocol.lengths[0]:
        return protocol
    least = target.least_length
    if factor < least:
        needed = fixed + least * training
        raise UserError(
            f'--minutes {minutes:g}: too few for {protocol.least_runs} runs; at least '
            f'{math.ceil(needed / 60 / at_a_time)} are expected, or fewer --optimizers'
        )
    return protocol.scaled(math.floor(factor / least) * least)


def _save_protocol(out: Path, target: Target, protocol: Protocol, seen: Look) -> str:
    """Write down what is tried; returns the path of the config."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        config = target.write(out)
        data = {
            'backbone': target.backbone,
            'identity': target.identity,
            'protocol': {**asdict(protocol), 'starts': _plain(protocol.starts)},
            'look': asdict(seen),
        }
        atomic_write_text(out / PROTOCOL_FILE, json.dumps(data, indent=1) + '\n')
    except OSError as error:
        raise UserError(f'--out {out}: cannot be written ({error.strerror})') from None
    return config


def _plain(starts: Mapping[str, tuple[float, float]]) -> dict[str, list[float]]:
    return {name: list(start) for name, start in starts.items()}


def _announce(
    at_a_time: int, target: Target, protocol: Protocol, seen: Look, say: Callable[[str], None]
) -> None:
    """The plan and its cost."""
    length = protocol.lengths[0]
    seconds = sum(seen.seconds(x) * protocol.runs_at(x) for x in protocol.lengths)
    say(
        f'{target.backbone} on {target.dataset}: {protocol.least_runs} runs of '
        f'{target.budget(length)}, about {_minutes(seen.seconds(length))} each, '
        f'{_minutes(seconds / at_a_time)} for {at_a_time} at a time; '
        'more where a best rate lies at an end of those tried'
    )
    for name in protocol.starts:
        tried = sorted(protocol.rate(t) for t in next_trials(protocol, {}) if t.optimizer == name)
        rates = ', '.join(f'{rate:g}' for rate in tried)
        say(f'  {name}: rates {rates}; weight decay {protocol.starts[name][1]:g}')
    numbers = ', '.join(f'{k.replace("_", " ")} {v:.3g}' for k, v in seen.covariates.items())
    if numbers:
        say(f'  gradients at the start: {numbers} (covariates, no verdict)')


def _minutes(seconds: float) -> str:
    return f'{seconds:.0f} s' if seconds < 90 else f'{seconds / 60:.0f} minutes'


# -- running ------------------------------------------------------------------------------------


def _work(protocol: Protocol, trials: Trials, say: Callable[[str], None]) -> int:
    """Train what the plan asks for until it asks for no more."""
    known: set[Trial] = set()

    def results() -> dict[Trial, float]:
        found = trials.outcomes()
        for trial in sorted(found.keys() - known):
            say(_line(protocol, trial, found[trial], len(known) + 1))
            known.add(trial)
        return {t: o.score for t, o in found.items()}

    def more() -> None:
        wanted = next_trials(protocol, results())
        _refuse_hopeless(trials.outcomes(), protocol)
        trials.add(wanted)

    while waiting := next_trials(protocol, results()):
        trials.add(waiting)
        if results().keys() & set(waiting):
            continue  # trained by an earlier call: the plan goes on from there
        status = trials.work(more)
        if status != exit_codes.COMPLETED:
            return status
    return exit_codes.COMPLETED


def _line(protocol: Protocol, trial: Trial, outcome: Outcome, n: int) -> str:
    """One run in a line, as a terminal shows it."""
    value = f'{outcome.value:.4g}' if math.isfinite(outcome.value) else outcome.kind
    length = f' x {trial.length:g}' if trial.length != protocol.lengths[0] else ''
    spent = '' if outcome.seconds is None else f', {outcome.seconds:.0f} s'
    return (
        f'{n} of {max(n, protocol.least_runs)}: {trial.optimizer} {protocol.rate(trial):g} seed '
        f'{trial.seed}{length}: {value}{spent}'
    )


def _refuse_hopeless(outcomes: Mapping[Trial, Outcome], protocol: Protocol) -> None:
    """End where nothing but failures has come out: not one result, not one divergence.

    Raises:
        UserError: The first failure.
    """
    failed = [o for o in outcomes.values() if math.isnan(o.value)]
    if len(failed) == len(outcomes) and len(failed) >= min(_LEAST_FAILURES, len(protocol.starts)):
        first = failed[0]
        raise UserError(
            f'all {len(failed)} runs that were tried failed ({first.kind}: {first.message}); see '
            f'{Path(first.directory) / "log.txt"}'
        )


# -- the answer ---------------------------------------------------------------------------------


def _result(
    target: Target, protocol: Protocol, seen: Look, outcomes: Mapping[Trial, Outcome],
    margin: float | None, references: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    record = record_of(outcomes)
    metric = record.metric if record else target.metric
    evaluator = record.evaluator if record else ''
    raw = [o.value for o in outcomes.values() if math.isfinite(o.value)]
    points = scales.factor(metric, raw, evaluator)
    sign = -1.0 if record is not None and not record.larger_is_better else 1.0
    chance = 100.0 / record.n_classes if record and record.n_classes else 0.0
    floor = chance if metric.rpartition('/')[2] == 'top1' else 0.0
    if sign < 0:
        floor = min((-v * points for v in raw), default=0.0)
    subject = probed.Subject(
        target.backbone, target.task, target.dataset, metric, target.budget(protocol.lengths[0]),
        protocol.version, target.data, sign, floor,
        _UNITS.get(scales.scale(metric, evaluator).unit, 'points'),
    )  # fmt: skip
    runs = [
        probed.Run(
            t.optimizer, protocol.rate(t), protocol.starts[t.optimizer][1], t.seed,
            plan.stage(protocol, t), _points(o.value, points, sign),
            t.length / protocol.lengths[0], o.seconds, o.directory, o.message,
        )
        for t, o in sorted(outcomes.items())
    ]  # fmt: skip
    defaults = {name: start[0] for name, start in protocol.starts.items()}
    result = probed.analyse(subject, runs, defaults, margin or target.margin, references)
    spent = sum(o.seconds or 0.0 for o in outcomes.values())
    return {
        **result,
        'unit': '%' if subject.unit == 'points' else '',
        'covariates': seen.covariates,
        'cost': {'runs': len(runs), 'run_seconds': round(spent, 1), 'look': asdict(seen)},
        'protocol': {**asdict(protocol), 'starts': _plain(protocol.starts)},
        'not_tried': target.not_tried(list(protocol.starts)),
    }


def _points(value: float, factor: float, sign: float) -> float:
    return value * factor * sign if math.isfinite(value) else value


def write(out: Path, result: Mapping[str, Any]) -> None:
    """Write ``probe.json`` and the page."""
    from bocb_mm.report.probe_page import page

    atomic_write_text(out / probed.FILE_NAME, json.dumps(result, indent=1, allow_nan=False) + '\n')
    atomic_write_text(out / PAGE_FILE, page(result))
