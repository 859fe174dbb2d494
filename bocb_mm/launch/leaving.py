"""How a process of several ends: at once, with its exit status. No torch is imported here."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn


def leaves_at_once(main: Callable[..., int]) -> Callable[..., int]:
    """Decorate a tool's ``main``: a member of a gloo group ends without Python's tear-down.

    There the group's threads may abort a process that has done its work (torch 2.14: "terminate
    called without an active exception", SIGABRT), and its exit status is lost. It goes outside of
    :func:`bocb_mm.errors.one_line_errors`, whose exit status it passes on.
    """

    @functools.wraps(main)
    def wrapped(*args: Any, **kwargs: Any) -> int:
        try:
            status = main(*args, **kwargs)
        except SystemExit as error:
            if not in_gloo_group():
                raise
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            if not in_gloo_group():
                raise
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            status = 1
        return leave(status) if in_gloo_group() else status

    return wrapped


def in_gloo_group() -> bool:
    """Whether this process is one of several that talk through gloo."""
    dist = getattr(sys.modules.get('torch'), 'distributed', None)
    if dist is None or not dist.is_available() or not dist.is_initialized():
        return False
    return dist.get_world_size() > 1 and 'gloo' in dist.get_backend()


def leave(status: int) -> NoReturn:
    """Write out what is buffered and end the process, without its exit handlers."""
    with suppress(OSError, ValueError):  # the disk may be full
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
