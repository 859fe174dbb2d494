"""Adan: adaptive Nesterov momentum from gradient differences."""

from __future__ import annotations

import math
from typing import Any

import torch

from bocb_mm.optimizers.base import MultiTensorOptimizer, Scalars, State, Tensors
from bocb_mm.optimizers.foreach import add_quotient_, add_scaled_, operand
from bocb_mm.optimizers.reductions import clipped


class Adan(MultiTensorOptimizer):
    r"""Adaptive Nesterov momentum.

    With ``d = g - g_previous`` (0 in the first step)::

        m = b1 m + (1-b1) g;  v = b2 v + (1-b2) d;  n = b3 n + (1-b3) (g + b2 d)^2
        u = (m / (1-b1^t) + b2 v / (1-b2^t)) / (sqrt(n / (1-b3^t)) + eps)
        p = (p - lr u) / (1 + lr weight_decay)      (no_prox: p (1 - lr weight_decay) - lr u)

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: ``(b1, b2, b3)`` as above, which is the convention of the authors' code; the paper
            writes ``1 - b``.
        eps: Added to the denominator.
        weight_decay: Decoupled, by the proximal form.
        max_grad_norm: Clip the global gradient norm to this inside the step; 0 does not clip.
        no_prox: Decay as AdamW does.
        foreach, compile: Execution mode, see :mod:`.base`.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1)); p.grad = torch.ones(1)
        >>> Adan([p], lr=0.5).step(); round(p.item(), 6)
        0.5

    Source: Xie et al., TPAMI 2024, Algorithm 1; bias correction as in the authors' code
    (sail-sg/Adan).
    """

    defaults = {
        'lr': 1e-3,
        'betas': (0.98, 0.92, 0.99),
        'eps': 1e-8,
        'weight_decay': 0.0,
        'max_grad_norm': 0.0,
        'no_prox': False,
    }
    state_names = ('exp_avg', 'exp_avg_diff', 'exp_avg_sq', 'previous_grad')
    ranges = {'max_grad_norm': (0.0, math.inf)}

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """Step sizes with the bias corrections in them."""
        b1, b2, b3 = group['betas']
        lr, decay = group['lr'], group['weight_decay']
        root = math.sqrt(1 - b3**step)
        return {
            'step': -lr * root / (1 - b1**step),
            'step_diff': -lr * root * b2 / (1 - b2**step),
            'eps': group['eps'] * root,
            'shrink': 1 - lr * decay if group['no_prox'] else 1 / (1 + lr * decay),
            # factors of g_previous - g; the first step has no previous gradient
            'diff': (b2 - 1) * (step > 1),
            'look': -b2 * (step > 1),
        }

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """One buffer."""
        b1, b2, b3 = s['betas']
        m, v, n = (state[key] for key in ('exp_avg', 'exp_avg_diff', 'exp_avg_sq'))
        difference = state['previous_grad']
        grads = clipped(grads, c)
        torch._foreach_sub_(difference, grads)
        torch._foreach_lerp_(m, grads, 1 - b1)
        torch._foreach_mul_(v, b2)
        add_scaled_(v, difference, c['diff'])
        torch._foreach_mul_(difference, c['look'])
        torch._foreach_add_(difference, grads)
        torch._foreach_mul_(n, b3)
        torch._foreach_addcmul_(n, difference, difference, value=1 - b3)
        torch._foreach_copy_(state['previous_grad'], grads)
        del grads  # where they were clipped, their memory goes to the next list
        denominators = torch._foreach_sqrt(n)
        torch._foreach_add_(denominators, operand(c['eps'], n))
        if s['no_prox']:
            torch._foreach_mul_(params, c['shrink'])
        add_quotient_(params, m, denominators, c['step'])
        add_quotient_(params, v, denominators, c['step_diff'])
        if not s['no_prox']:
            torch._foreach_mul_(params, c['shrink'])
