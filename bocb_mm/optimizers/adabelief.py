"""AdaBelief: the second moment is that of the gradient's departure from its average."""

from __future__ import annotations

import math
from typing import Any

import torch

from bocb_mm.optimizers.base import MultiTensorOptimizer, Scalars, State, Tensors
from bocb_mm.optimizers.foreach import add_quotient_, operand


class AdaBelief(MultiTensorOptimizer):
    r"""Adam with the variance of the gradient around its average.

    ::

        m = b1 m + (1-b1) g;  s = b2 s + (1-b2) (g - m)^2 + eps
        p = p (1 - lr weight_decay) - lr m / (1-b1^t) / (sqrt(s / (1-b2^t)) + eps)

    ``eps`` enters the variance in every step, so it is no mere guard: with gradients near 1e-5 the
    step with 1e-8 is 350 times smaller than with 1e-16.

    Departure from the authors' package: no rectification (``bocb_mm.timm.adabelief`` has it), and
    eps 1e-8, their setting for vision, where the package defaults to 1e-16.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: Decay rates of the moments.
        eps: See above.
        weight_decay: Decoupled.
        foreach, compile: Execution mode, see :mod:`.base`.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1)); p.grad = torch.ones(1)
        >>> AdaBelief([p], lr=0.9).step(); round(p.item(), 4)
        0.0

    Source: Zhuang et al., NeurIPS 2020, Algorithm 2.
    """

    defaults = {'lr': 1e-3, 'betas': (0.9, 0.999), 'eps': 1e-8, 'weight_decay': 0.0}
    state_names = ('exp_avg', 'exp_avg_var')

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """Bias corrections are moved into the step size and into the second eps."""
        b1, b2 = group['betas']
        lr, root = group['lr'], math.sqrt(1 - b2**step)
        return {
            'step': -lr * root / (1 - b1**step),
            'eps_root': group['eps'] * root,
            'shrink': 1 - lr * group['weight_decay'],
        }

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """One buffer."""
        b1, b2 = s['betas']
        m, var = state['exp_avg'], state['exp_avg_var']
        torch._foreach_lerp_(m, grads, 1 - b1)
        work = torch._foreach_sub(grads, m)
        torch._foreach_mul_(var, b2)
        torch._foreach_addcmul_(var, work, work, value=1 - b2)
        torch._foreach_add_(var, s['eps'])
        del work  # gives its memory back to the next list
        work = torch._foreach_sqrt(var)
        torch._foreach_add_(work, operand(c['eps_root'], work))
        torch._foreach_mul_(params, c['shrink'])
        add_quotient_(params, m, work, c['step'])
