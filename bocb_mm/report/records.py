"""Run directories as short summaries."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from bocb_mm.errors import UserError
from bocb_mm.facts import scales
from bocb_mm.report.names import words
from bocb_mm.runs.record import FILE_NAME, RunRecord, RunRecordError, find_runs, status_of

LAYERS_FILE = 'layer_metrics.csv'
# Points kept of a curve: the page draws it 400 pixels wide.
CURVE_POINTS = 60
_COPIED = words(
    'task dataset backbone optimizer lr weight_decay pretraining recipe seed status gamma epochs '
    'max_epochs iterations seconds_per_iteration optimizer_step_ms peak_memory_mb n_parameters '
    'versions config config_hash started message warnings optimizer_settings architecture ann_file '
    'n_classes n_train batch_size image_size lr_origin lr_source evaluator pretrained'
)

Summary = dict[str, Any]
_T = TypeVar('_T')


@dataclass
class Scan:
    """What a look at run directories found.

    Attributes:
        runs: One summary a readable run: the short fields of its record; ``metric`` that it counts
            by, its ``best`` and ``last`` value, whether ``larger_is_better``, the ``metrics`` it
            could count by; ``path``, and ``layers`` (path of its layer metrics or ``''``).
        broken: One line for each record that could not be read.
    """

    runs: list[Summary] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def run_directories(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Run directories at or below ``paths``; a path may also be a ``run.json`` itself.

    Raises:
        UserError: A path does not exist or is a file of another kind.
    """
    roots = []
    for path in map(Path, paths):
        if path.is_file() and path.name != FILE_NAME:
            raise UserError(f'{path}: neither a directory with runs nor a .csv table; give one')
        roots.append(path.parent if path.is_file() else path)
    return list(find_runs(roots))


def read_runs(directories: Iterable[Path], metric: str = '', progress: bool = True) -> Scan:
    """Read the record of every run directory.

    Args:
        directories: Directories that hold a ``run.json``.
        metric: What the runs count by; ``''`` takes the headline metric of each.
        progress: Show a progress bar on stderr when the work takes more than a moment.

    Returns:
        The summaries; a record that cannot be read is named in ``broken``, the rest is read.
    """
    scan = Scan()
    for place in bar(list(directories), 'reading runs', progress, few=200):
        try:
            record = RunRecord.load(place)
        except RunRecordError as error:
            scan.broken.append(str(error))
        else:
            scan.runs.append(summary(record, place, metric))
    return scan


def summary(record: RunRecord, place: Path, metric: str = '') -> Summary:
    """The short fields of a record, and its results by ``metric``, read from its evaluations."""
    name = metric or record.metric
    logged = [e for e in record.evaluations if isinstance(e, dict)]
    values = [v if is_number(v := e.get(name)) else None for e in logged]
    if not logged and not metric:  # a record that somebody else wrote
        values = [record.best, record.last]
    results = [v for v in (scales.result(name, v) for v in values) if v is not None]
    larger = scales.scale(name, record.evaluator).larger_is_better
    if record.metric_rule and not metric:
        larger = record.metric_rule == 'greater'
    layers = place / LAYERS_FILE
    return {
        **{field_: getattr(record, field_) for field_ in _COPIED},
        'status': status_of(place, record),
        'metric': name,
        'larger_is_better': larger,
        'best': (max if larger else min)(results, default=None),
        'last': scales.result(name, values[-1]) if values else None,
        'metrics': _metrics(logged),
        'path': os.fspath(place),
        'layers': os.fspath(layers) if layers.exists() else '',
    }


def _metrics(evaluations: list[dict]) -> list[str]:
    """What was evaluated: the names that a number stands under."""
    names = {str(k) for e in evaluations for k in e} - {'epoch', 'iteration'}
    return sorted(n for n in names if any(is_number(e.get(n)) for e in evaluations))


def is_number(value: Any) -> bool:
    """Whether a value of a run record is a number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, float) or abs(value) < 1e300


def curves(run: Summary) -> dict[str, Any]:
    """``curve`` (epoch or iteration, metric), ``over`` which, and ``losses`` (iteration, loss).

    Read when they are shown: of a whole search that is the best setting of each pair only. A record
    that has become unreadable since has none.
    """
    record = RunRecord.find(run['path'])
    if record is None:
        return {'curve': [], 'losses': [], 'over': ''}
    entries = [e for e in record.evaluations if isinstance(e, dict)]
    over = 'epoch' if any(e.get('epoch') for e in entries) else 'iteration'
    curve = [[e.get(over, i), e.get(run['metric'])] for i, e in enumerate(entries)]
    losses = [p for p in record.losses if isinstance(p, list) and len(p) == 2]
    shown = {'curve': thinned(_numbers(curve)), 'losses': thinned(_numbers(losses))}
    return {**shown, 'over': f'{over}s'}


def _numbers(pairs: list) -> list:
    return [pair for pair in pairs if all(map(is_number, pair))]


def thinned(points: list, keep: int = CURVE_POINTS) -> list:
    """At most ``keep`` of ``points``, evenly spaced, the first and the last among them.

    Example:
        >>> thinned([0, 1, 2, 3, 4], 3)
        [0, 2, 4]
    """
    if len(points) <= keep:
        return points
    step = (len(points) - 1) / (keep - 1)
    return [points[round(i * step)] for i in range(keep)]


def bar(items: list[_T], what: str, show: bool, few: int) -> Iterator[_T]:
    """``items``, with a progress bar on stderr where there are more than ``few`` of them."""
    if not show or len(items) <= few:
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, what, console=Console(stderr=True), transient=True)
