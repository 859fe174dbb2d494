"""DivergenceHook: ends a run whose loss is gone, before it costs more time or a good checkpoint."""

from __future__ import annotations

import math
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from bocb_mm.errors import UserError
from bocb_mm.hooks.stopping import Diverged, stop
from bocb_mm.metrics.divergence import LossWatch, all_finite
from bocb_mm.registry import HOOKS


@HOOKS.register_module()
class DivergenceHook(Hook):
    """End the run as *diverged* when its loss is NaN or infinite, or has blown up.

    The rule is :class:`bocb_mm.metrics.divergence.LossWatch`'s. It is computed on the loss's
    device with no copy to the host; the verdict is fetched every ``interval`` iterations and
    before a checkpoint is saved, so that the last checkpoint on the disk always precedes the
    divergence. Parameters are looked at before saving too: the loss of an iteration does not show
    what its own update broke.

    Args:
        factor: How many times the smallest smoothed loss the loss may rise; the default lets a
            loss of a chance-level start pass.
        warmup: Iterations whose losses are no yardstick yet.
        smoothing: Iterations the smoothing remembers.
        interval: Iterations between two looks at the verdict.

    Raises:
        UserError: An argument is out of its range.

    Example:
        >>> custom_hooks = [dict(type='bocb_mm.DivergenceHook')]
    """

    priority = 'NORMAL'  # before whatever saves

    def __init__(
        self, factor: float = 10.0, warmup: int = 100, smoothing: int = 20, interval: int = 50
    ) -> None:
        if not interval >= 1:
            raise UserError(f'DivergenceHook: interval {interval!r}: at least 1 is expected')
        self.rule: dict[str, Any] = {'factor': factor, 'warmup': warmup, 'smoothing': smoothing}
        self.interval = interval
        self._watch = LossWatch(**self.rule)
        self._warned = False

    def before_train(self, runner: Runner) -> None:
        """Forget an earlier training of this process."""
        self._watch = LossWatch(**self.rule)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Take the loss into account, and look at the verdict now and then."""
        loss = outputs.get('loss') if isinstance(outputs, dict) else None
        if loss is None:
            if not self._warned:
                runner.logger.warning('DivergenceHook: the model returns no "loss" to watch')
                self._warned = True
            return
        self._watch.add(torch.as_tensor(loss), runner.iter + 1)
        if (runner.iter + 1) % self.interval == 0:
            self.check(runner)

    def check(self, runner: Runner) -> None:
        """Fetch the verdict, of all processes, and end the run if it is bad.

        Raises:
            Diverged: The run has diverged.
        """
        verdict = self._watch.verdict()
        if verdict is None:
            return
        all_reduce(verdict, op='max')
        smoothed, first = verdict.tolist()
        if first > -math.inf:
            what = 'blew up' if math.isfinite(smoothed) else 'is NaN or infinite'
            self._end(runner, int(-first), f'the loss {what}')

    def check_weights(self, runner: Runner, iteration: int) -> None:
        """As :meth:`check`, and look for parameters that are not finite.

        Args:
            runner: The runner.
            iteration: Iterations done.

        Raises:
            Diverged: The run has diverged.
        """
        self.check(runner)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not all_finite(list(model.parameters())):
            self._end(runner, iteration, 'a weight is NaN or infinite')

    def _end(self, runner: Runner, iteration: int, what: str) -> None:
        last = runner.message_hub.runtime_info.get('last_ckpt')
        kept = f'the last good weights are in {last}' if last else 'no checkpoint was saved before'
        stop(runner, Diverged(f'diverged at iteration {iteration}: {what}; {kept}'))
