"""Writing files so that a reader sees the old content or the new one, never a part of it."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from bocb_mm.errors import UserError


@contextmanager
def atomic_open(path: str | os.PathLike[str], mode: str = 'w') -> Iterator[IO]:
    """Open a file whose content appears under ``path`` only when the block ends without error.

    The content goes to a temporary file in the same directory, is flushed to the disk (fsync) and
    renamed. On an error, ``path`` keeps what it had and the temporary file is removed.

    Args:
        path: The file to write. Its directory must exist.
        mode: ``'w'`` for UTF-8 text, ``'wb'`` for bytes.

    Yields:
        The temporary file, open for writing.

    Raises:
        OSError: The directory is missing, read-only or full.

    Example:
        >>> with atomic_open(path) as f:  # doctest: +SKIP
        ...     f.write('all or nothing')
    """
    path = Path(path)
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.', suffix='.tmp')
    try:
        with os.fdopen(fd, mode, encoding=None if 'b' in mode else 'utf-8') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp made it private to its owner
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(path.parent)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Delete what processes that died in :func:`atomic_open` of ``path`` left beside it."""
    path = Path(path)
    for leftover in path.parent.glob(f'.{glob.escape(path.name)}.*.tmp'):
        leftover.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Make a rename durable; some network file systems refuse, and then there is nothing to do."""
    with suppress(OSError):
        fd = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def check_parent(option: str, path: str | os.PathLike[str]) -> None:
    """Refuse a file that cannot be written because its directory is not there, before any work.

    Args:
        option: What the path was given as, e.g. ``'--out'``.
        path: The file.

    Raises:
        UserError: Its directory does not exist, or it is a directory itself.
    """
    if Path(path).is_dir():
        raise UserError(f'{option} {path}: is a directory; name a file in it')
    if not Path(path).resolve().parent.is_dir():
        raise UserError(f'{option} {path}: its directory does not exist; make it first')


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` whole or not at all; see :func:`atomic_open`."""
    with atomic_open(path) as file:
        file.write(text)
