"""LARS: SGD with momentum and a layer-wise trust ratio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from bocb_mm.optimizers.base import MultiTensorOptimizer, Scalars, State, Tensors
from bocb_mm.optimizers.foreach import add_scaled_
from bocb_mm.optimizers.reductions import decayed_and_adapted, norms, per_tensor
from bocb_mm.optimizers.strict import require


class LARS(MultiTensorOptimizer):
    r"""Momentum on gradients that are scaled to the norm of each layer's weights.

    ::

        r = trust |p| / (|g| + weight_decay |p| + eps)      (1 where |p| or |g| is 0)
        b = momentum b + r (g + weight_decay p);  p -= lr b

    Which parameters take part is explicit and does not depend on their decay: a group with
    ``adapt=False`` has ratio 1, and ``exclude_1d`` leaves parameters of at most one dimension
    (norm, bias) without decay and with ratio 1.

    Departure from the paper: the rate stands outside the buffer, as torch's SGD has it, so that a
    schedule acts at once (the paper's form is ``b = momentum b + lr r (...)``).

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        momentum: Momentum.
        weight_decay: Inside the trust ratio.
        trust_coefficient: Size of a layer's step relative to its weights, before the rate.
        eps: Added to the denominator of the ratio.
        nesterov: Look ahead along the buffer.
        adapt: Whether the trust ratio applies; meant to be set by group. ``adapt=False`` for all is
            plain SGD with momentum, which is what LARS with its default arguments is in the code
            base of the paper's authors (openmixup); whether the paper's rows were made so is not
            known.
        exclude_1d: See above.
        foreach, compile: Execution mode, see :mod:`.base`.

    Example:
        >>> p = torch.nn.Parameter(torch.full((1, 1), 2.0)); p.grad = torch.ones(1, 1)
        >>> LARS([p], lr=1.0).step(); round(p.item(), 6)
        1.998

    Source: You et al., Large batch training of convolutional networks, arXiv 1708.03888, Algorithm
    1.
    """

    defaults = {
        'lr': 1.0,
        'momentum': 0.9,
        'weight_decay': 0.0,
        'trust_coefficient': 0.001,
        'eps': 1e-8,
        'nesterov': False,
        'adapt': True,
        'exclude_1d': True,
    }
    elementwise = False
    kind = staticmethod(decayed_and_adapted)
    state_names = ('momentum_buffer',)
    ranges = {'momentum': (0.0, 1.0)}

    @classmethod
    def check(cls, group: Mapping[str, Any]) -> None:
        """See the base class."""
        super().check(group)
        trust = group['trust_coefficient']
        require(trust > 0, 'trust_coefficient', trust, 'a number above 0')
        good = group['momentum'] > 0 or not group['nesterov']
        require(good, 'momentum', group['momentum'], 'above 0 with nesterov=True')

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """Step sizes along the buffer and, with ``nesterov``, along the gradient; decay."""
        lr = group['lr']
        ahead = group['momentum'] if group['nesterov'] else 1.0
        return {'step': -lr * ahead, 'step_now': -lr, 'decay': group['weight_decay']}

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """No buffer."""
        decayed, adapted = s['kind']
        buffer = state['momentum_buffer']
        ratio: Any = 1.0
        if adapted:
            w_norm, g_norm = norms(params), norms(grads)
            divisor = g_norm + (c['decay'] * w_norm if decayed else 0.0) + s['eps']
            ratio = s['trust_coefficient'] * w_norm / divisor
            ratio = torch.where((w_norm > 0) & (g_norm > 0), ratio, 1.0)
        decay = ratio * c['decay']
        torch._foreach_mul_(buffer, s['momentum'])
        add_scaled_(buffer, grads, per_tensor(ratio, grads))
        if decayed:
            add_scaled_(buffer, params, per_tensor(decay, params))
        if s['nesterov']:
            if decayed:
                torch._foreach_mul_(params, per_tensor(1 + c['step_now'] * decay, params))
            add_scaled_(params, grads, per_tensor(c['step_now'] * ratio, grads))
        add_scaled_(params, buffer, c['step'])
