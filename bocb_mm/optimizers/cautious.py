"""CAdamW: AdamW that leaves out what disagrees with the gradient in sign."""

from __future__ import annotations

from typing import Any

import torch

from bocb_mm.optimizers.base import MultiTensorOptimizer, Scalars, State, Tensors
from bocb_mm.optimizers.foreach import add_scaled_
from bocb_mm.optimizers.moments import adam_coefficients, adam_direction
from bocb_mm.optimizers.reductions import norms, per_tensor

SMALLEST_SHARE = 1e-3


class CAdamW(MultiTensorOptimizer):
    """Cautious AdamW.

    With Adam's direction ``u``: ``mask = (u g > 0);  u = u mask / max(mean(mask), 1e-3)``, the mean
    over the tensor;  ``p = p (1 - lr weight_decay) - lr u``.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: Decay rates of the moments.
        eps: Added to the denominator.
        weight_decay: Decoupled.
        foreach, compile: Execution mode, see :mod:`.base`.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1)); p.grad = torch.ones(1)
        >>> CAdamW([p], lr=0.5).step(); round(p.item(), 6)
        0.5

    Source: Liang et al., Cautious optimizers, arXiv 2411.16085, Algorithm 2, with the scale of
    the authors' code.
    """

    defaults = {'lr': 1e-3, 'betas': (0.9, 0.999), 'eps': 1e-8, 'weight_decay': 0.0}
    elementwise = False
    state_names = ('exp_avg', 'exp_avg_sq')

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """Step size, shrink factor, and those of Adam's direction."""
        shrink = 1 - group['lr'] * group['weight_decay']
        return adam_coefficients(group, step) | {'step': -group['lr'], 'shrink': shrink}

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """Two buffers."""
        u = adam_direction(grads, state, c, s)
        mask = torch._foreach_mul(u, grads)
        torch._foreach_sign_(mask)
        torch._foreach_clamp_min_(mask, 0.0)
        torch._foreach_mul_(u, mask)
        share = per_tensor(norms(mask).square_(), u)  # of zeros and ones: their number
        del mask
        torch._foreach_div_(share, [float(p.numel()) for p in params])
        torch._foreach_clamp_min_(share, SMALLEST_SHARE)
        torch._foreach_div_(u, share)
        torch._foreach_mul_(params, c['shrink'])
        add_scaled_(params, u, c['step'])
