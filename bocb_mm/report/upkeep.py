"""Leave a report alone whose inputs, options and files have not changed. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bocb_mm
from bocb_mm.report.records import signature
from bocb_mm.runs.files import atomic_write_text

MANIFEST = '.bocb_report_manifest.json'
CACHE_FILE = '.bocb_report_cache.json'


@dataclass(frozen=True)
class Options:
    """What a report is made from and how.

    Attributes:
        paths: Directories with runs, and CSV tables.
        paper: Whether the paper's own tables are in it.
        gamma: Threshold of eq. 1 for every table, None for each table's own.
        value: ``'best'`` or ``'last'`` evaluation of a run.
        weights: Weights of the four aspects of the overall ranking.
        cost: What computation is ranked by, a key of :data:`ranking.COSTS`.
        tolerance: Share of the best within which a setting counts as good (tuning ease).
        figures: Whether figures are drawn.
        progress: Whether progress bars are shown.
    """

    paths: tuple[str, ...] = ()
    paper: bool = False
    gamma: float | None = None
    value: str = 'best'
    weights: Mapping[str, float] | None = None
    cost: str = 'memory'
    tolerance: float = 0.01
    figures: bool = True
    progress: bool = True

    def csvs(self) -> list[str]:
        """Those of ``paths`` that are CSV tables."""
        return [p for p in self.paths if os.fspath(p).lower().endswith('.csv')]

    def roots(self) -> list[str]:
        """Those of ``paths`` that are searched for runs."""
        csvs = self.csvs()
        return [p for p in self.paths if p not in csvs]


def fingerprint(options: Options, directories: Iterable[Path]) -> str:
    """A hash of everything a report depends on: options, inputs, and this package's own files."""
    own = Path(__file__).parent
    state = [
        bocb_mm.__version__,
        dataclasses.asdict(options) | {'progress': None},
        [_stamp(p) for p in sorted(own.rglob('*')) if p.is_file() and p.suffix != '.pyc'],
        [_stamp(Path(p)) for p in options.csvs()],
        [[os.fspath(d), *signature(d)] for d in directories],
    ]
    return hashlib.sha256(json.dumps(state, default=str).encode()).hexdigest()


def _stamp(path: Path) -> list[Any]:
    try:
        stat = path.stat()
    except OSError:
        return [path.name, None]
    return [path.name, stat.st_mtime_ns, stat.st_size]


def last_report(out: Path, mark: str) -> dict[str, Any] | None:
    """The manifest of the report in ``out`` if it was made under ``mark`` and is still whole."""
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding='utf-8'))
        files = manifest['files']
        if manifest['fingerprint'] != mark or not files:
            return None
        whole = all(_stamp(out / name) == stamp for name, stamp in files.items())
        return manifest if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def clear(out: Path, files: Iterable[Path]) -> None:
    """Remove what the last report left in ``out`` and this one, of ``files``, did not make.

    Only files that its manifest lists and that nobody has changed since.
    """
    made = {os.fspath(f.relative_to(out)) for f in files}
    try:
        before = json.loads((out / MANIFEST).read_text(encoding='utf-8'))['files']
        for name in before.keys() - made:
            path = out / name
            if path.resolve().is_relative_to(out.resolve()) and _stamp(path) == before[name]:
                path.unlink(missing_ok=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # no manifest, or none of ours: nothing is known to be stale


def remember(out: Path, mark: str, files: Iterable[Path], tables: int, broken: list[str]) -> None:
    """Write the manifest of a report that was just made."""
    stamps = {os.fspath(f.relative_to(out)): _stamp(f) for f in files}
    content = {'fingerprint': mark, 'tables': tables, 'broken': broken, 'files': stamps}
    atomic_write_text(out / MANIFEST, json.dumps(content))
