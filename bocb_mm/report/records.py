"""Run directories as short summaries, with a cache so that an unchanged run is not read again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from bocb_mm.errors import UserError
from bocb_mm.files import atomic_write_text
from bocb_mm.report.names import words
from bocb_mm.runs import FILE_NAME, RunRecord, RunRecordError, find_runs

LAYERS_FILE = 'layer_metrics.csv'
CACHE_FORMAT = 1
# Points kept of a curve: the page draws it 400 pixels wide.
CURVE_POINTS = 60
_COPIED = words(
    'task dataset backbone optimizer lr weight_decay pretraining recipe seed status metric gamma '
    'best last epochs max_epochs iterations seconds_per_iteration optimizer_step_ms '
    'peak_memory_mb n_parameters n_trainable versions config config_hash started finished '
    'message warnings optimizer_settings'
)

Summary = dict[str, Any]
_T = TypeVar('_T')


@dataclass
class Scan:
    """What a look at run directories found.

    Attributes:
        runs: One summary a readable run: the fields of its record and ``path``, ``layers`` (path of
            its layer metrics or ``''``), ``curve`` and ``losses`` (thinned to ``CURVE_POINTS``).
        broken: One line for each record that could not be read.
        reused: Number of runs that came from the cache.
    """

    runs: list[Summary] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    reused: int = 0


def run_directories(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Run directories at or below ``paths``; a path may also be a ``run.json`` itself.

    Raises:
        UserError: A path does not exist or is a file of another kind.
    """
    roots = []
    for path in map(Path, paths):
        if path.is_file() and path.name != FILE_NAME:
            raise UserError(f'{path}: neither a directory with runs nor a .csv table')
        roots.append(path.parent if path.is_file() else path)
    return list(find_runs(roots))


def signature(directory: Path) -> tuple[int, ...]:
    """Time of change and size of a run's two files: equal means unchanged."""
    found = []
    for name in (FILE_NAME, LAYERS_FILE):
        try:
            stat = os.stat(directory / name)
            found += [stat.st_mtime_ns, stat.st_size]
        except OSError:
            found += [0, 0]
    return tuple(found)


def read_runs(
    directories: Iterable[Path], cache: Path | None = None, progress: bool = True
) -> Scan:
    """Read the record of every run directory.

    Args:
        directories: Directories that hold a ``run.json``.
        cache: File with the summaries of an earlier call; unchanged runs are taken from it and it
            is brought up to date. ``None`` reads everything.
        progress: Show a progress bar on stderr when the work takes more than a moment.

    Returns:
        The summaries; a record that cannot be read is named in ``broken``, the rest is read.
    """
    known = _load_cache(cache)
    fresh: dict[str, list] = {}
    scan = Scan()
    for directory in bar(list(directories), 'reading runs', progress, few=200):
        place, sign = os.fspath(directory), list(signature(directory))
        entry = known.get(os.path.abspath(place))
        if entry and entry[0] == sign:
            summary = {**entry[1], **_where(directory)}
            scan.reused += 1
        else:
            try:
                summary = summarize(RunRecord.load(directory), directory)
            except RunRecordError as error:
                scan.broken.append(str(error))
                continue
        fresh[os.path.abspath(place)] = [sign, summary]
        scan.runs.append(summary)
    if cache is not None and scan.reused < len(fresh):
        _save_cache(cache, fresh)
    return scan


def summarize(record: RunRecord, directory: Path) -> Summary:
    """The part of a record that the report needs."""
    summary: Summary = {name: getattr(record, name) for name in _COPIED}
    curve = [
        [e.get('epoch', i), e.get(record.metric)]
        for i, e in enumerate(record.evaluations)
        if isinstance(e, dict)
    ]
    return {
        **summary,
        **_where(directory),
        'curve': thinned(curve),
        'losses': thinned([p for p in record.losses if isinstance(p, list) and len(p) == 2]),
    }


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


def _where(directory: Path) -> Summary:
    layers = directory / LAYERS_FILE
    return {'path': os.fspath(directory), 'layers': os.fspath(layers) if layers.is_file() else ''}


def bar(items: list[_T], what: str, show: bool, few: int) -> Iterator[_T]:
    """``items``, with a progress bar on stderr where there are more than ``few`` of them."""
    if not show or len(items) <= few:
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, what, console=Console(stderr=True), transient=True)


def _load_cache(path: Path | None) -> dict[str, list]:
    """The cached summaries; a cache that is missing, damaged or of another format is empty."""
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        if content['format'] == CACHE_FORMAT and isinstance(content['runs'], dict):
            return content['runs']
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}


def _save_cache(path: Path, runs: dict[str, list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({'format': CACHE_FORMAT, 'runs': runs}, separators=(',', ':'))
    atomic_write_text(path, text)
