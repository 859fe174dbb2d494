"""A training in a process of its own, forked from one that has paid for the imports.

The chain and the search both train so. Nothing but the fork is shared with the parent, so nothing
that a training does harms the next one, and its memory is free when it ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from bocb_mm.errors import UserError
from bocb_mm.runs import exit_codes

LOG_FILE = 'log.txt'
_PR_SET_PDEATHSIG = 1


def status_of(error: BaseException) -> int:
    """Exit status of a training that an exception ended."""
    return exit_codes.USER_ERROR if isinstance(error, UserError) else exit_codes.FAILED


def run_forked(
    train: Callable[[], int],
    log: Path,
    parent: int,
    error_pipe: int | None = None,
    status_of: Callable[[BaseException], int] = status_of,
) -> NoReturn:
    """All that the forked process does: train with its output in a file, exit; it never returns.

    Args:
        train: Trains, and returns an exit status of :mod:`bocb_mm.runs.exit_codes`, or raises.
        log: The file all output goes to, at its end; its directory is made.
        parent: Process id of the parent, read before the fork.
        error_pipe: File descriptor that gets one line on why the training failed.
        status_of: Exit status of an exception.
    """
    status = exit_codes.FAILED
    try:
        os.setsid()  # Ctrl-C is for the parent, which passes it on once
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        _end_with(parent)
        _prefer_for_oom_killer()
        log.parent.mkdir(parents=True, exist_ok=True)
        _log_to(log)
        status = train()
    except BaseException as error:
        status = status_of(error)
        line = ' '.join(_one_line(error).split())
        if error_pipe is not None:
            os.write(error_pipe, line.encode()[:2000])
        if isinstance(error, UserError):
            print(f'error: {line}', flush=True)
        else:
            traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # no exit handlers of the parent


def _one_line(error: BaseException) -> str:
    return str(error) if isinstance(error, UserError) else f'{type(error).__name__}: {error}'


def _end_with(parent: int) -> None:
    """Get SIGTERM when the parent dies, however it dies (Linux)."""
    if sys.platform == 'linux':
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(exit_codes.INTERRUPTED)


def _prefer_for_oom_killer() -> None:
    """When memory runs out, the kernel ends the training rather than its parent."""
    try:
        Path('/proc/self/oom_score_adj').write_text('500', encoding='ascii')
    except OSError:
        return


def _log_to(path: Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    # The parent's streams need not be those two: a notebook and a test runner have their own.
    sys.stdout = os.fdopen(1, 'w', buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, 'w', buffering=1, closefd=False)
