"""Run directories as short summaries, with a cache so that an unchanged run is not read again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from bocb_mm.errors import UserError
from bocb_mm.report.names import words
from bocb_mm.report.parallel import spread
from bocb_mm.runs.files import atomic_write_text
from bocb_mm.runs.record import FILE_NAME, RunRecord, RunRecordError, find_runs

LAYERS_FILE = 'layer_metrics.csv'
CACHE_FORMAT = 2
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
        runs: One summary a readable run: the short fields of its record, ``path``, and ``layers``
            (path of its layer metrics or ``''``). Its curves: :func:`curves`.
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
            raise UserError(f'{path}: neither a directory with runs nor a .csv table; give one')
        roots.append(path.parent if path.is_file() else path)
    return list(find_runs(roots))


def signature(directory: str | os.PathLike[str]) -> tuple[int, ...]:
    """Time of change and size of a run's two files: equal means unchanged."""
    place, found = os.fspath(directory), []
    for name in (FILE_NAME, LAYERS_FILE):
        try:
            stat = os.stat(f'{place}/{name}')
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
    places = [os.fspath(d) for d in directories]
    signs = {place: list(signature(place)) for place in places}
    entries = {place: known.get(os.path.abspath(place)) for place in places}
    kept = {place: e[1] for place, e in entries.items() if e and e[0] == signs[place]}
    fresh: dict[str, list] = {}
    scan = Scan(reused=len(kept))
    changed = [place for place in places if place not in kept]
    with spread(_read, changed, chunk=64, few=400) as read:
        for place in bar(places, 'reading runs', progress, few=200):
            summary, problem = (kept[place], '') if place in kept else next(read)
            if summary is None:
                scan.broken.append(problem)
                continue
            fresh[os.path.abspath(place)] = [signs[place], summary]
            scan.runs.append({**summary, **_where(place, signs[place])})
    if cache is not None and scan.reused < len(fresh):
        _save_cache(cache, fresh)
    return scan


def _read(place: str) -> tuple[Summary | None, str]:
    """The summary of the run in a directory, or why there is none."""
    try:
        record = RunRecord.load(place)
    except RunRecordError as error:
        return None, str(error)
    return {name: getattr(record, name) for name in _COPIED}, ''


def curves(run: Summary) -> dict[str, list]:
    """``curve`` (epoch, metric) and ``losses`` (iteration, loss) of a run, thinned.

    Read when they are shown: of a whole search that is the best setting of each pair only. A record
    that has become unreadable since has none.
    """
    record = RunRecord.find(run['path'])
    if record is None:
        return {'curve': [], 'losses': []}
    curve = [
        [e.get('epoch', i), e.get(record.metric)]
        for i, e in enumerate(record.evaluations)
        if isinstance(e, dict)
    ]
    losses = [p for p in record.losses if isinstance(p, list) and len(p) == 2]
    return {'curve': thinned(curve), 'losses': thinned(losses)}


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


def _where(place: str, sign: Sequence[int]) -> Summary:
    """Where a run is, as it was named this time, and its layer metrics if it has some."""
    layers_changed = sign[2]  # 0: no such file
    return {'path': place, 'layers': os.path.join(place, LAYERS_FILE) if layers_changed else ''}


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
