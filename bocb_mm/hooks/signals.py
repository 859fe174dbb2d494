"""SignalHook: a run that is asked to end saves itself first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from bocb_mm.errors import UserError
from bocb_mm.hooks.safe_checkpoint import SafeCheckpointHook
from bocb_mm.hooks.stopping import Interrupted, stop
from bocb_mm.registry import HOOKS


@HOOKS.register_module()
class SignalHook(Hook):
    """On SIGTERM, SIGINT or SIGUSR1: save a checkpoint after the iteration, end with status 75.

    SIGTERM is what Slurm sends before it ends or pre-empts a job, SIGUSR1 what
    ``sbatch --signal=USR1@120`` sends some time before. A second SIGINT or SIGTERM ends the
    process at once. ``--resume`` goes on from the same iteration. It needs ``SafeCheckpointHook``.

    Args:
        signals: Names of the signals.
        interval: Iterations between two questions to the other processes whether one of them
            got a signal; of no effect in a run of one process.

    Raises:
        UserError: There is no such signal, or the interval is below 1.

    Example:
        >>> custom_hooks = [dict(type='bocb_mm.SignalHook')]
    """

    priority = 'LOWEST'  # the iteration is over, and regular checkpoints are saved

    def __init__(
        self, signals: Sequence[str] = ('SIGTERM', 'SIGINT', 'SIGUSR1'), interval: int = 10
    ) -> None:
        for name in signals:
            if name not in signal.Signals.__members__:
                raise UserError(f'SignalHook: {name!r} is not a signal, e.g. SIGTERM is expected')
        if interval < 1:
            raise UserError(f'SignalHook: interval {interval!r}: at least 1 is expected')
        self.signals = [signal.Signals[name] for name in signals]
        self.interval = interval
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._process = 0

    def before_train(self, runner: Runner) -> None:
        """Catch the signals from now on."""
        self.received, self._process = None, os.getpid()
        if threading.current_thread() is not threading.main_thread():
            runner.logger.warning('SignalHook: not in the main thread, signals are not caught')
            return
        if not self._before:
            self._before = {s: signal.signal(s, self._on_signal) for s in self.signals}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a data worker: its parent decides
            return
        first = self.received is None
        self.received = signal.Signals(number)
        if not first and number != signal.SIGUSR1:
            self._release()
            os.kill(self._process, number)

    def _release(self) -> None:
        """Let the signals do what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Save and end, if a signal came."""
        if self._agreed(runner):
            self._end(runner, between_iterations=True)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """A validation can be cut off if its weights are saved; resuming does it again."""
        if self.received is not None and get_world_size() == 1:
            hook = self._saver(runner)
            state = None if hook is None else hook.state
            if state is not None and state.saved_at == runner.iter:
                self._end(runner, between_iterations=False)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Save and end, if a signal came during the validation."""
        if self._agreed(runner, now=True):
            self._end(runner, between_iterations=False)

    def after_train(self, runner: Runner) -> None:
        """The run is over: signals do again what they did before."""
        self._release()

    def _agreed(self, runner: Runner, now: bool = False) -> bool:
        """Whether any process of the run got a signal."""
        if get_world_size() == 1:
            return self.received is not None
        if not now and (runner.iter + 1) % self.interval:
            return False
        device = next(runner.model.parameters()).device
        got = torch.tensor([float(self.received or 0)], device=device)
        all_reduce(got, op='max')
        number = int(got.item())
        if number:
            self.received = signal.Signals(number)
        return bool(number)

    def _saver(self, runner: Runner) -> SafeCheckpointHook | None:
        return next((h for h in runner.hooks if isinstance(h, SafeCheckpointHook)), None)

    def _end(self, runner: Runner, between_iterations: bool) -> None:
        assert self.received is not None
        name, saver = self.received.name, self._saver(runner)
        self._release()
        if saver is None:
            stop(runner, Interrupted(f'{name}: ended; nothing saved without SafeCheckpointHook'))
        path = saver.save_now(runner, between_iterations)
        done = runner.iter + between_iterations
        text = f'{name}: ended at iteration {done}, saved {path}; go on with --resume'
        stop(runner, Interrupted(text))
