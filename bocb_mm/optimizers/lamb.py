"""LAMB: Adam's direction with a layer-wise trust ratio."""

from __future__ import annotations

import math
from typing import Any

import torch

from bocb_mm.optimizers.base import MultiTensorOptimizer, Scalars, State, Tensors
from bocb_mm.optimizers.foreach import add_scaled_
from bocb_mm.optimizers.moments import adam_coefficients, adam_direction
from bocb_mm.optimizers.reductions import clipped, decayed_and_adapted, norms, per_tensor


class LAMB(MultiTensorOptimizer):
    r"""Adam with the step of each layer scaled to the norm of its weights.

    ``u = m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps) + weight_decay p;  p -= lr |p| / |u| u``,
    with ratio 1 where either norm is 0. Which parameters take part is explicit and does not depend
    on their decay: a group with ``adapt=False`` has ratio 1, and ``exclude_1d`` leaves parameters
    of at most one dimension (norm, bias) without decay and with ratio 1.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: Decay rates of the moments.
        eps: Added to the denominator.
        weight_decay: Inside the trust ratio.
        max_grad_norm: Clip the global gradient norm to this inside the step; 0 does not clip. 1 is
            what timm and mmpretrain do, and so what RSB's rates belong to; the paper does not clip.
        trust_clip: Ratio at most 1 (LAMBC).
        adapt: Whether the trust ratio applies; meant to be set by group.
        exclude_1d: See above.
        foreach, compile: Execution mode, see :mod:`.base`.

    Example:
        >>> p = torch.nn.Parameter(torch.full((1, 1), 2.0)); p.grad = torch.ones(1, 1)
        >>> LAMB([p], lr=0.5).step(); round(p.item(), 6)
        1.0

    Source: You et al., Large batch optimization for deep learning, ICLR 2020, Algorithm 2.
    """

    defaults = {
        'lr': 1e-3,
        'betas': (0.9, 0.999),
        'eps': 1e-6,
        'weight_decay': 0.0,
        'max_grad_norm': 1.0,
        'trust_clip': False,
        'adapt': True,
        'exclude_1d': True,
    }
    elementwise = False
    kind = staticmethod(decayed_and_adapted)
    state_names = ('exp_avg', 'exp_avg_sq')
    ranges = {'max_grad_norm': (0.0, math.inf)}

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """Step size, decay, and those of Adam's direction."""
        adam = adam_coefficients(group, step)
        return adam | {'step': -group['lr'], 'decay': group['weight_decay']}

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """One buffer."""
        decayed, adapted = s['kind']
        u = adam_direction(clipped(grads, c), state, c, s)
        if decayed:
            add_scaled_(u, params, c['decay'])
        if adapted:
            w_norm, u_norm = norms(params), norms(u)
            ratio = torch.where((w_norm > 0) & (u_norm > 0), w_norm / u_norm, 1.0)
            if s['trust_clip']:
                ratio = ratio.clamp(max=1.0)
            torch._foreach_mul_(u, per_tensor(ratio, u))
        add_scaled_(params, u, c['step'])
