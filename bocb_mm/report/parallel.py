"""Work spread over the processors where the system can fork, done in turn where it cannot."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

_T = TypeVar('_T')
_R = TypeVar('_R')
# What the children work on. They inherit it, because functions cannot be sent to a process.
_JOB: tuple[Callable[[Any], Any], Sequence[Any]] = (str, ())


def processors() -> int:
    """How many processors this process may use."""
    allowed = getattr(os, 'sched_getaffinity', None)  # Linux only
    return len(allowed(0)) if allowed else os.cpu_count() or 1


@contextmanager
def spread(
    function: Callable[[_T], _R],
    items: Sequence[_T],
    chunk: int = 1,
    few: int = 8,
    processes: int | None = None,
) -> Iterator[Iterator[_R]]:
    """The results of ``function`` on each of ``items``, in their order, several at a time.

    The children start when the block does, so start no thread before; leaving the block early
    drops what has not begun.

    Args:
        function: What is done with an item; it may be a closure. Its result must be picklable.
        items: What to work on.
        chunk: How many items a child takes at once.
        few: Of fewer items a process is not worth its start: they are done here.
        processes: Number of children; ``None`` takes one a processor, at most 8.

    Yields:
        The results.

    Raises:
        concurrent.futures.process.BrokenProcessPool: A child was killed (out of memory).

    Example:
        >>> with spread(abs, [-1, 2, -3]) as results:
        ...     list(results)
        [1, 2, 3]
    """
    global _JOB
    # An unchanged report does without them.
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    processes = min(processors(), 8) if processes is None else processes
    if processes < 2 or len(items) < few or not hasattr(os, 'fork'):
        yield map(function, items)
        return
    _JOB = (function, items)
    pool = ProcessPoolExecutor(processes, get_context('fork'), initializer=_leave_interrupts)
    try:
        yield pool.map(_nth, range(len(items)), chunksize=chunk)
    finally:
        pool.shutdown(cancel_futures=True)
        _JOB = (str, ())


def _nth(place: int) -> Any:
    function, items = _JOB
    return function(items[place])


def _leave_interrupts() -> None:
    """Ctrl-C is the parent's to answer; the children end with its pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
