"""Writing the quickstart's data once."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from bocb_mm.datasets.digits import write_digits
from bocb_mm.datasets.scenes import write_scenes
from bocb_mm.datasets.stick_figures import write_figures

VERSION = 1  # raise it when a generator changes, so that old folders are written anew
GENERATORS: dict[str, Callable[[Path, int], dict[str, int]]] = {
    'digits': write_digits,
    'scenes': write_scenes,
    'figures': write_figures,
}
ROOT_VARIABLE = 'BOCB_DATA_ROOT'
STAMP = 'stamp.json'


def quickstart_root() -> Path:
    """``quickstart`` below the data root, which is ``data`` or what ``BOCB_DATA_ROOT`` says."""
    return Path(os.environ.get(ROOT_VARIABLE, 'data')) / 'quickstart'


def prepare_quickstart(
    root: str | os.PathLike[str] | None = None, seed: int = 0
) -> dict[str, Path]:
    """Write the digits, the scenes and the figures, unless they are there from an earlier call.

    The same seed gives the same files. Each set is written beside its place and renamed, so that
    an interrupted call leaves no half of one.

    Args:
        root: Folder to hold the three sets; :func:`quickstart_root` by default.
        seed: Seed of the split and of what is composed.

    Returns:
        The folder of each set by name: ``digits``, ``scenes``, ``figures``.

    Example:
        >>> folders = prepare_quickstart('data/quickstart')  # doctest: +SKIP
        >>> folders['scenes']  # doctest: +SKIP
        PosixPath('data/quickstart/scenes')
    """
    root = quickstart_root() if root is None else Path(root)
    root.mkdir(parents=True, exist_ok=True)
    return {name: _prepare(root / name, write, seed) for name, write in GENERATORS.items()}


def _prepare(folder: Path, write: Callable[[Path, int], dict[str, int]], seed: int) -> Path:
    stamp = {'version': VERSION, 'seed': seed}
    if _read_stamp(folder) == stamp:
        return folder
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f'.{folder.name}.'))
    try:
        write(temporary, seed)
        (temporary / STAMP).write_text(json.dumps(stamp) + '\n', encoding='utf-8')
        temporary.chmod(0o755)  # mkdtemp made it private to its owner
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def _read_stamp(folder: Path) -> object:
    try:
        return json.loads((folder / STAMP).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
