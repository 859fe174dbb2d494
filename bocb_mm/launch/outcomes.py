"""How a trial can end, and what follows from it. A new way to end is one row here."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass

from bocb_mm.errors import UserError
from bocb_mm.runs import exit_codes

RETRY, FINAL = True, False


@dataclass(frozen=True)
class Outcome:
    """One way a trial can end.

    Attributes:
        name: As ``status`` shows it.
        exit_status: Of the trial's process; ``None`` where no process is left to have one.
        retried: Whether another attempt could end otherwise.
        meaning: For people.
    """

    name: str
    exit_status: int | None
    retried: bool
    meaning: str


OUTCOMES = (
    Outcome('completed', exit_codes.COMPLETED, FINAL, 'trained to the end'),
    Outcome('diverged', exit_codes.DIVERGED, FINAL, 'the loss is gone: a result'),
    Outcome('config error', exit_codes.USER_ERROR, FINAL, 'the same mistake again and again'),
    Outcome('out of memory', 4, FINAL, 'the same need again and again'),
    Outcome('error', exit_codes.FAILED, FINAL, 'an unforeseen exception; see its log.txt'),
    Outcome('interrupted', exit_codes.INTERRUPTED, RETRY, 'asked to end, saved a checkpoint'),
    Outcome('machine', 74, RETRY, 'disk full, device, file system or data worker gone'),  # EX_IOERR
    Outcome('killed', None, RETRY, 'a signal ended the process'),
    Outcome('lost', None, RETRY, 'the process that watched over it, or its node, is gone'),
)
BY_NAME = {outcome.name: outcome for outcome in OUTCOMES}
_BY_STATUS = {o.exit_status: o for o in OUTCOMES if o.exit_status is not None}
GIVEN_UP = {o.name for o in OUTCOMES if not o.retried} - {'completed', 'diverged'}
SERVER_GONE = 255
"""What multiprocessing gives as exit status when the server that forked the process is gone."""

_MACHINE_ERRNOS = {
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS, errno.ENODEV, errno.ENOTCONN,
    errno.ECONNRESET, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.EPIPE,
    errno.ENOLCK, errno.EMFILE, errno.ENFILE, errno.EAGAIN,
}  # fmt: skip
# torch raises plain RuntimeErrors for these; the words are those of torch 2.14 and CUDA 13.
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|CUBLAS_STATUS_ALLOC_FAILED", re.I)
_MACHINE = re.compile(
    r'DataLoader worker .*(killed|exited)|CUDA error: (uncorrectable|unspecified|an? (illegal )?'
    r'hardware|the launch timed out|unknown error|initialization error|.*NVLink)'
    r'|No CUDA GPUs are available|no CUDA-capable device|CUDA-capable device\(s\) is/are busy'
    r'|busy or unavailable|CUDA (driver )?initialization|Error 802|system not yet initialized'
    r'|GPU is lost|fallen off the bus|NVLink|driver shutting down'
    r'|NCCL (error|timeout)|No space left on device|Disk quota',
    re.I,
)


def of_exit(status: int) -> Outcome:
    """What an exit status of a trial's process means; a negative one is the signal's number.

    Example:
        >>> of_exit(3).name, of_exit(-9).retried
        ('diverged', True)
    """
    # 128 + n is how torchrun tells that a signal ended one of its processes.
    killed = status < 0 or status == SERVER_GONE or 128 < status <= 128 + 64
    return BY_NAME['killed'] if killed else _BY_STATUS.get(status, BY_NAME['error'])


def exit_status_of(error: BaseException) -> int:
    """Exit status of a trial that an exception ended."""
    status = of_error(error).exit_status
    assert status is not None
    return status


def of_error(error: BaseException) -> Outcome:
    """What an exception that ended a training means.

    The exceptions it arose from count too: a checkpoint that does not fit on the disk is a
    CheckpointError, a user's error by its type, whose context says that there is no space.

    Example:
        >>> of_error(MemoryError()).name, of_error(OSError(errno.ENOSPC, 'full')).name
        ('out of memory', 'machine')
    """
    for cause in _causes(error):
        text = str(cause)
        if isinstance(cause, MemoryError) or (
            isinstance(cause, RuntimeError) and _OUT_OF_MEMORY.search(text)
        ):
            return BY_NAME['out of memory']
        if isinstance(cause, OSError) and cause.errno in _MACHINE_ERRNOS:
            return BY_NAME['machine']
        if isinstance(cause, (RuntimeError, ConnectionError)) and _MACHINE.search(text):
            return BY_NAME['machine']
    return BY_NAME['config error' if isinstance(error, UserError) else 'error']


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
