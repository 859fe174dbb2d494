"""How long ``optimizer.step()`` takes, measured without slowing it. Plain PyTorch."""

from __future__ import annotations

import statistics
import time
from collections import deque
from typing import Any

import torch

#: Steps that allocate state, compile or fill caches; not counted as long as there are later ones.
WARM_UP = 3


class StepTimer:
    """Median time of ``optimizer.step()`` from the optimizer's own step hooks.

    On a CPU two readings of the clock a step. On CUDA two recorded events a step; they are read
    once the device has passed them, and nothing ever waits for the device, so training keeps its
    pace. A step that a loss scaler leaves out is not counted.

    Args:
        optimizer: A ``torch.optim.Optimizer``; or what wraps one in ``.optimizer`` (mmengine's
            OptimWrapper); or several in ``.optim_wrappers`` (OptimWrapperDict), whose medians
            are summed.
        keep: How many of the latest steps the median is taken over.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.SGD([p], lr=0.1)
        >>> timer = StepTimer(optimizer)
        >>> for _ in range(5):
        ...     p.grad = torch.ones(2)
        ...     optimizer.step()
        >>> timer.median_ms() > 0
        True
    """

    def __init__(self, optimizer: Any, keep: int = 1000) -> None:
        self._series = [_Series(o, keep) for o in _optimizers(optimizer)]

    def median_ms(self) -> float | None:
        """Median time of a step so far, in ms; None before the first finished step."""
        medians = [s.median_ms() for s in self._series]
        found = [m for m in medians if m is not None]
        return sum(found) if found else None

    def remove(self) -> None:
        """Take the hooks off; what was measured stays."""
        for series in self._series:
            series.remove()


def _optimizers(source: Any) -> list[torch.optim.Optimizer]:
    if isinstance(source, torch.optim.Optimizer):
        return [source]
    several = getattr(source, 'optim_wrappers', None)
    if isinstance(several, dict):
        return [o for wrapper in several.values() for o in _optimizers(wrapper)]
    return _optimizers(source.optimizer)


class _Series:
    """The measurements of one optimizer."""

    def __init__(self, optimizer: torch.optim.Optimizer, keep: int) -> None:
        self._ms: deque[float] = deque(maxlen=keep)
        self._steps = 0
        self._pending: deque[tuple[Any, Any]] = deque(maxlen=keep)
        self._started: Any = None
        self._depth = 0
        self._cuda = any(p.is_cuda for g in optimizer.param_groups for p in g['params'])
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    def _before(self, *_: Any) -> None:
        # A subclass whose step() calls its parent's runs the hooks of both, one inside the other.
        self._depth += 1
        if self._depth > 1:
            return
        if self._cuda:
            self._started = torch.cuda.Event(enable_timing=True)
            self._started.record()
        else:
            self._started = time.perf_counter()

    def _after(self, *_: Any) -> None:
        self._depth -= 1
        if self._depth > 0:
            return
        if self._cuda:
            end = torch.cuda.Event(enable_timing=True)
            end.record()
            self._pending.append((self._started, end))
            self._harvest()
        else:
            self._add((time.perf_counter() - self._started) * 1e3)

    def _harvest(self) -> None:
        """Read the events that the device has already passed."""
        while self._pending and self._pending[0][1].query():
            start, end = self._pending.popleft()
            self._add(start.elapsed_time(end))

    def _add(self, milliseconds: float) -> None:
        self._steps += 1
        if self._steps == WARM_UP + 1:
            self._ms.clear()
        self._ms.append(milliseconds)

    def median_ms(self) -> float | None:
        self._harvest()
        return statistics.median(self._ms) if self._ms else None

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
