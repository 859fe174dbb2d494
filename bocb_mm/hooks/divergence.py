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
from bocb_mm.registry import HOOKS


@HOOKS.register_module()
class DivergenceHook(Hook):
    r"""End the run as *diverged* when its loss is NaN or infinite, or has blown up.

    With :math:`l_t` the loss at iteration :math:`t`, the smoothed loss is
    :math:`s_t = s_{t-1} + (l_t - s_{t-1}) / \min(t, m)` and :math:`b_t` is the smallest
    :math:`s` since iteration :math:`w`. The run has diverged when

    .. math:: l_t \notin \mathbb{R} \quad\text{or}\quad
              t > w,\; s_t - b_t > f \max(|b_t|, |s_w| / 10)

    (a loss may be negative, as mmpose's RLELoss is, or pass through zero).
    All of it is reckoned on the loss's device with no copy to the host; the verdict is fetched
    every ``interval`` iterations and before a checkpoint is saved, so that the last checkpoint
    on the disk always precedes the divergence. Weights are looked at before saving too: the loss
    of an iteration does not show what its own update broke.

    Args:
        factor: :math:`f`; the default lets a loss of a chance-level start pass.
        warmup: :math:`w`, iterations whose losses are no yardstick yet.
        smoothing: :math:`m`, iterations the smoothing remembers.
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
        for name, value, least in (
            ('factor', factor, 1.0),
            ('warmup', warmup, 0),
            ('smoothing', smoothing, 1),
            ('interval', interval, 1),
        ):
            if not value >= least:
                raise UserError(f'DivergenceHook: {name} {value!r}: at least {least} is expected')
        self.factor, self.warmup, self.smoothing = factor, warmup, smoothing
        self.interval = interval
        self._seen = 0
        self._state: torch.Tensor | None = None  # s_t, b_t, |s_w|, first bad iteration or inf
        self._told = False

    def before_train(self, runner: Runner) -> None:
        """Forget an earlier training of this process."""
        self._seen, self._state = 0, None

    @torch.no_grad()
    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Note the loss, on its device."""
        loss = outputs.get('loss') if isinstance(outputs, dict) else None
        if loss is None:
            if not self._told:
                runner.logger.warning('DivergenceHook: the model returns no "loss" to watch')
                self._told = True
            return
        self._note(torch.as_tensor(loss).detach().float().mean(), runner.iter + 1)
        if (runner.iter + 1) % self.interval == 0:
            self.check(runner)

    def _note(self, loss: torch.Tensor, iteration: int) -> None:
        if self._state is None:
            self._state = torch.tensor([0.0, math.inf, 0.0, math.inf], device=loss.device)
        self._seen += 1
        smoothed, smallest, start, first = self._state
        smoothed.lerp_(loss, 1 / min(self._seen, self.smoothing))
        bad = ~torch.isfinite(loss)
        if self._seen > self.warmup:
            torch.fmin(smallest, smoothed, out=smallest)
            scale = torch.maximum(smallest.abs(), start / 10)
            bad = bad | (smoothed - smallest > self.factor * scale)
        else:
            torch.abs(smoothed, out=start)
        first.copy_(torch.where(bad, first.clamp(max=iteration), first))

    def check(self, runner: Runner) -> None:
        """Fetch the verdict, of all processes, and end the run if it is bad.

        Raises:
            Diverged: The run has diverged.
        """
        if self._state is None:
            return
        verdict = self._state[[0, 3]]
        verdict[1].neg_()
        all_reduce(verdict, op='max')
        smoothed, first = verdict.tolist()
        if first > -math.inf:
            what = 'blew up' if math.isfinite(smoothed) else 'is NaN or infinite'
            self._end(runner, int(-first), f'the loss {what}')

    def check_weights(self, runner: Runner, iteration: int) -> None:
        """As :meth:`check`, and look for weights that are not finite.

        Args:
            runner: The runner.
            iteration: Iterations done.

        Raises:
            Diverged: The run has diverged.
        """
        self.check(runner)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        tensors = [p.detach() for p in model.parameters() if p.is_floating_point()]
        norms = torch._foreach_norm(tensors) if tensors else []
        if norms and not all(torch.stack([n.float() for n in norms]).isfinite().tolist()):
            self._end(runner, iteration, 'a weight is NaN or infinite')

    def _end(self, runner: Runner, iteration: int, what: str) -> None:
        last = runner.message_hub.runtime_info.get('last_ckpt')
        kept = f'the last good weights are in {last}' if last else 'no checkpoint was saved before'
        stop(runner, Diverged(f'diverged at iteration {iteration}: {what}; {kept}'))
