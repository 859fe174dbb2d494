"""The rule by which a loss has diverged. Plain PyTorch; nothing is copied to the host."""

from __future__ import annotations

import math

import torch

from bocb_mm.errors import UserError


class LossWatch:
    r"""Tells from the losses of a training, on their device, whether and when it has diverged.

    With :math:`l_t` the loss at iteration :math:`t`, the smoothed loss is
    :math:`s_t = s_{t-1} + (l_t - s_{t-1}) / \min(t, m)` and :math:`b_t` is the smallest
    :math:`s` since iteration :math:`w`. The run has diverged when

    .. math:: l_t \notin \mathbb{R} \quad\text{or}\quad
              t > w,\; s_t - b_t > f \max(|b_t|, |s_w| / 10)

    (a loss may be negative, as mmpose's RLELoss is, or pass through zero).

    Args:
        factor: :math:`f`; at least 1.
        warmup: :math:`w`, iterations whose losses are no yardstick yet; at least 0.
        smoothing: :math:`m`, iterations the smoothing remembers; at least 1.

    Raises:
        UserError: An argument is out of its range.

    Example:
        >>> watch = LossWatch()
        >>> for iteration, loss in enumerate([2.0, 1.5, float('nan')], start=1):
        ...     watch.add(torch.tensor(loss), iteration)
        >>> watch.verdict().tolist()
        [nan, -3.0]
    """

    def __init__(self, factor: float = 10.0, warmup: int = 100, smoothing: int = 20) -> None:
        for name, value, least in (
            ('factor', factor, 1),
            ('warmup', warmup, 0),
            ('smoothing', smoothing, 1),
        ):
            if not value >= least:
                raise UserError(f'divergence: {name} {value!r}: at least {least} is expected')
        self.factor, self.warmup, self.smoothing = factor, warmup, smoothing
        self._seen = 0
        self._state: torch.Tensor | None = None  # s_t, b_t, |s_w|, first bad iteration or inf

    @torch.no_grad()
    def add(self, loss: torch.Tensor, iteration: int) -> None:
        """Take one loss into account.

        Args:
            loss: Any shape; its mean counts.
            iteration: Its number, from 1.
        """
        loss = loss.detach().float().mean()
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

    def verdict(self) -> torch.Tensor | None:
        """The smoothed loss, and minus the first bad iteration (minus infinity: none), shape (2,).

        On the loss's device; the maximum over processes is the verdict of all. ``None`` before the
        first loss.
        """
        if self._state is None:
            return None
        verdict = self._state[[0, 3]]
        verdict[1].neg_()
        return verdict


def all_finite(parameters: list[torch.Tensor]) -> bool:
    """Whether every parameter is finite; one copy to the host.

    Example:
        >>> all_finite([torch.ones(3), torch.tensor([float('inf')])])
        False
    """
    tensors = [p.detach() for p in parameters if p.is_floating_point()]
    norms = torch._foreach_norm(tensors) if tensors else []
    return not norms or bool(torch.stack([n.float() for n in norms]).isfinite().all())
