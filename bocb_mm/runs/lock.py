"""A lock on a work directory: two trainings in one directory would overwrite each other's files."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bocb_mm.errors import UserError

FILE_NAME = '.run.lock'


class DirectoryInUse(UserError):
    """Another process trains in the directory."""


_FLOCK = '@hhqqi'  # struct flock of 64-bit Linux: type, whence, start, length, process
_HERE = f'on {socket.gethostname()}'
_held: dict[str, int] = {}  # real path -> open file; POSIX locks do not keep out one's own process


def acquire(work_dir: str | os.PathLike[str], name: str = FILE_NAME) -> None:
    """Take the directory's lock for this process, which may have it already.

    It is a POSIX record lock: the kernel frees it when the process ends, however it ends, child
    processes do not inherit it, and it works over NFS if the server runs its lock service
    (without one, ``No locks available`` is reported and the run goes on unprotected).

    Args:
        work_dir: The directory; it is made.
        name: Of the lock's file.

    Raises:
        DirectoryInUse: Another process trains there.
        UserError: The directory cannot be written.

    Example:
        >>> acquire('work_dirs/r50')  # doctest: +SKIP
    """
    import fcntl

    directory = Path(work_dir)
    key = os.path.realpath(directory / name)
    if key in _held:
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        fd = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(
            f'{directory}: cannot be written ({error.strerror}); give another --work-dir'
        ) from None
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        owner = os.pread(fd, 200, 0).decode(errors='replace').strip() or 'another process'
        os.close(fd)
        raise DirectoryInUse(
            f'{directory}: {owner} is training here; wait for it, or give another --work-dir'
        ) from None
    except OSError as error:  # a file system without locks
        os.close(fd)
        print(f'warning: {directory}: cannot be locked ({error.strerror}), going on without')
        return
    os.ftruncate(fd, 0)
    os.pwrite(fd, f'process {os.getpid()} {_HERE}\n'.encode(), 0)
    _held[key] = fd


def release(work_dir: str | os.PathLike[str], name: str = FILE_NAME) -> None:
    """Give the lock back; nothing happens if this process does not have it.

    The file stays: removing it would let two processes lock two files of one name.
    """
    fd = _held.pop(os.path.realpath(Path(work_dir) / name), None)
    if fd is not None:
        with suppress(OSError):
            os.ftruncate(fd, 0)
        os.close(fd)


def is_held(work_dir: str | os.PathLike[str], name: str = FILE_NAME) -> bool | None:
    """Whether a process that is alive has the directory's lock; nothing is changed.

    Returns:
        ``None`` if it cannot be told: there is no lock file, or the file system has no locks.

    Example:
        >>> is_held('work_dirs/none') is None
        True
    """
    import fcntl

    file = Path(work_dir) / name
    if _held and os.path.realpath(file) in _held:
        return True
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, wanted)  # asking takes no lock
        return struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK
    except OSError:
        return None
    finally:
        os.close(fd)


def owner_died(directory: str | os.PathLike[str], name: str = FILE_NAME) -> bool:
    """Whether a process of this machine had the lock and ended without giving it back.

    Of another machine's it cannot be told where each keeps its own locks of a shared folder.
    """
    file = Path(directory) / name
    if os.path.realpath(file) in _held:  # closing the file would lose the lock
        return False
    try:
        owner = file.read_text(encoding='utf-8').strip()
    except (OSError, ValueError):
        return False
    return owner.endswith(_HERE) and is_held(directory, name) is False


class RunLock:
    """The same as a context manager, for a training that starts and ends in one function."""

    @staticmethod
    @contextmanager
    def in_directory(work_dir: str | os.PathLike[str], enabled: bool = True) -> Iterator[None]:
        """Hold the directory's lock for the length of a block.

        Args:
            work_dir: The directory.
            enabled: False in all processes of a distributed run but the first.

        Raises:
            UserError: As :func:`acquire`.
        """
        if enabled:
            acquire(work_dir)
        try:
            yield
        finally:
            if enabled:
                release(work_dir)
