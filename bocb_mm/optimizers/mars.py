"""MARS: AdamW on gradients whose variance is reduced by the gradient before."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bocb_mm.optimizers.base import MultiTensorOptimizer, Scalars, State, Tensors
from bocb_mm.optimizers.foreach import add_scaled_
from bocb_mm.optimizers.moments import adam_coefficients, adam_direction
from bocb_mm.optimizers.reductions import norms, per_tensor


class MARS(MultiTensorOptimizer):
    """MARS-AdamW, the variant that takes one gradient a step.

    ``c = g + gamma b1 / (1-b1) (g - g_before)``, ``c = g`` in the first step;
    ``c = c / max(1, |c|)`` for each tensor; then AdamW on ``c``.

    Parameters of at most one dimension take AdamW on ``g``, but with ``optimize_1d``.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: Decay rates of the moments.
        gamma: Strength of the correction.
        eps: Added to the denominator.
        weight_decay: Decoupled.
        optimize_1d: See above.
        foreach, compile: Execution mode, see :mod:`.base`.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1)); p.grad = torch.ones(1)
        >>> MARS([p], lr=0.5).step(); round(p.item(), 6)
        0.5

    Source: Yuan et al., MARS: unleashing the power of variance reduction for training large
    models, ICML 2025, Algorithm 2 with the approximate gradient; the first step as in timm.
    """

    defaults = {
        'lr': 3e-3,
        'betas': (0.95, 0.99),
        'gamma': 0.025,
        'eps': 1e-8,
        'weight_decay': 0.0,
        'optimize_1d': False,
    }
    elementwise = False
    ranges = {'gamma': (0.0, math.inf)}

    @staticmethod
    def kind(p: Tensor, group: dict[str, Any]) -> bool:
        """Whether the parameter's gradient is corrected."""
        return p.dim() > 1 or bool(group['optimize_1d'])

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """Adam's moments, and the gradient before where it is used."""
        names = ('exp_avg', 'exp_avg_sq', 'last_grad')
        return {name: torch.zeros_like(p) for name in names[: 2 + self.kind(p, group)]}

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """Step size, shrink factor, strength of the correction, and those of Adam's direction."""
        b1 = group['betas'][0]
        correction = group['gamma'] * b1 / (1 - b1) if step > 1 else 0.0
        shrink = 1 - group['lr'] * group['weight_decay']
        own = {'step': -group['lr'], 'shrink': shrink, 'correction': correction}
        return adam_coefficients(group, step) | own

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """One buffer."""
        if s['kind']:
            u = adam_direction(corrected(grads, state['last_grad'], c), state, c, s)
        else:
            u = adam_direction(grads, state, c, s)
        torch._foreach_mul_(params, c['shrink'])
        add_scaled_(params, u, c['step'])


def corrected(grads: Tensors, before: Tensors, c: Scalars) -> Tensors:
    """``c`` of the class; the gradients are kept in ``before``."""
    found = torch._foreach_sub(grads, before)
    torch._foreach_copy_(before, grads)
    torch._foreach_mul_(found, c['correction'])
    torch._foreach_add_(found, grads)
    torch._foreach_mul_(found, per_tensor(1 / norms(found).clamp(min=1.0), found))
    return found
