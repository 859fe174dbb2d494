"""LION: the sign of an interpolated momentum."""

from __future__ import annotations

from typing import Any

import torch

from bocb_mm.optimizers.base import MultiTensorOptimizer, Scalars, State, Tensors
from bocb_mm.optimizers.foreach import add_scaled_


class LION(MultiTensorOptimizer):
    """Evolved sign momentum with decoupled decay.

    ``p *= 1 - lr * weight_decay;  p -= lr * sign(b1 m + (1-b1) g);  m = b2 m + (1-b2) g``.
    Every element moves by exactly ``lr``: take a rate 3-10 times below AdamW's and a decay 3-10
    times above.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: Interpolation of the update, decay of the momentum.
        weight_decay: Decoupled.
        foreach, compile: Execution mode, see :mod:`.base`.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1)); p.grad = torch.ones(1)
        >>> LION([p], lr=0.5).step(); p.item()
        0.5

    Source: Chen et al., Symbolic discovery of optimization algorithms, NeurIPS 2023, Algorithm 2.
    """

    defaults = {'lr': 1e-4, 'betas': (0.9, 0.99), 'weight_decay': 0.0}
    state_names = ('exp_avg',)

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """Step size and shrink factor."""
        return {'step': -group['lr'], 'shrink': 1 - group['lr'] * group['weight_decay']}

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """One buffer."""
        momentum, (b1, b2) = state['exp_avg'], s['betas']
        direction = torch._foreach_lerp(momentum, grads, 1 - b1)
        torch._foreach_sign_(direction)
        torch._foreach_add_(direction, grads, alpha=0)  # sign(nan) is 0, nan * 0 is nan
        torch._foreach_lerp_(momentum, grads, 1 - b2)
        torch._foreach_mul_(params, c['shrink'])
        add_scaled_(params, direction, c['step'])
