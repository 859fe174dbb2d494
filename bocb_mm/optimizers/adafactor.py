"""AdaFactor: a factored second moment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bocb_mm.optimizers.base import MultiTensorOptimizer, Scalars, State, Tensors
from bocb_mm.optimizers.foreach import add_scaled_
from bocb_mm.optimizers.reductions import norms, per_tensor
from bocb_mm.optimizers.strict import require, require_number


class AdaFactor(MultiTensorOptimizer):
    r"""Adam without momentum, its second moment kept as row and column means.

    For a matrix (rows first dimension, columns the rest: a kernel is (out, in*k*k)), with
    ``b = 1 - t^decay_rate``::

        r = b r + (1-b) mean_columns(g^2 + eps1);  c = b c + (1-b) mean_rows(g^2 + eps1)
        u = g / sqrt(r c / mean(r));  u = u / max(1, rms(u) / clip_threshold)
        p = p (1 - a weight_decay) - a u,   a = lr  or  lr max(eps2, rms(p)) with scale_parameter

    Parameters of at most one dimension keep the full second moment.

    Three algorithms share the name. This is the paper's with an explicit rate (no relative step).
    Departures from ``torch.optim.Adafactor`` and timm: kernels are factored as above, not over
    their last two dimensions (3 x 3), and ``scale_parameter`` is an argument, off by default, so
    that ``lr`` means what it means for Adam.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        beta1: Momentum of the update; ``None`` keeps none, as in the paper's main setting.
        decay_rate: Exponent of the second moment's decay, negative.
        eps1: Added to the squared gradient.
        eps2: Least scale of a parameter.
        clip_threshold: Largest root mean square of an update.
        weight_decay: Decoupled.
        scale_parameter: Multiply the rate with the root mean square of the parameter.
        foreach, compile: Execution mode, see :mod:`.base`.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1, 1)); p.grad = torch.ones(1, 1)
        >>> AdaFactor([p], lr=0.5).step(); round(p.item(), 6)
        0.5

    Source: Shazeer & Stern, ICML 2018, Algorithm 4.
    """

    defaults = {
        'lr': 1e-3,
        'beta1': None,
        'decay_rate': -0.8,
        'eps1': 1e-30,
        'eps2': 1e-3,
        'clip_threshold': 1.0,
        'weight_decay': 0.0,
        'scale_parameter': False,
    }
    elementwise = False
    ranges = {'eps1': (0.0, math.inf), 'eps2': (0.0, math.inf)}

    @classmethod
    def check(cls, group: Mapping[str, Any]) -> None:
        """See the base class."""
        super().check(group)
        if group['beta1'] is not None:
            require_number('beta1', group['beta1'], below=1)
        threshold, rate = group['clip_threshold'], group['decay_rate']
        require(threshold > 0, 'clip_threshold', threshold, 'a number above 0')
        require(rate < 0, 'decay_rate', rate, 'a number below 0, e.g. -0.8')

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """``row``, ``col``: means of the second moment, or all of it; momentum ``exp_avg``."""
        state = {} if group['beta1'] is None else {'exp_avg': torch.zeros_like(p)}
        if p.dim() > 1:
            state['row'] = p.new_zeros(p.shape[0])
            state['col'] = p.new_zeros(p.numel() // p.shape[0])
        else:
            state['exp_avg_sq'] = torch.zeros_like(p)
        return state

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """Step size, rate times decay, shares of the old and the new second moment."""
        lr, new = group['lr'], step ** group['decay_rate']
        return {'step': -lr, 'shrink': -lr * group['weight_decay'], 'new': new, 'old': 1 - new}

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """One buffer."""
        u = normalised(grads, state, c, s['eps1'])
        roots = [p.numel() ** -0.5 for p in params]
        rates = torch._foreach_mul(
            per_tensor(norms(u), u), [r / s['clip_threshold'] for r in roots]
        )
        torch._foreach_clamp_min_(rates, 1.0)
        torch._foreach_reciprocal_(rates)
        torch._foreach_mul_(rates, c['step'])
        shrink: Any = 1 + c['shrink']
        if s['scale_parameter']:
            scale = torch._foreach_mul(per_tensor(norms(params), params), roots)
            torch._foreach_clamp_min_(scale, s['eps2'])
            torch._foreach_mul_(rates, scale)
            shrink = torch._foreach_mul(scale, c['shrink'])
            torch._foreach_add_(shrink, 1.0)
        torch._foreach_mul_(u, rates)
        if 'exp_avg' in state:
            torch._foreach_lerp_(state['exp_avg'], u, 1 - s['beta1'])
            u = state['exp_avg']
        torch._foreach_mul_(params, shrink)
        torch._foreach_add_(params, u)


def normalised(grads: Tensors, state: State, c: Scalars, eps: float) -> Tensors:
    """The gradients over the root of their second moment, which is updated."""
    squared = torch._foreach_mul(grads, grads)
    torch._foreach_add_(squared, eps)
    if 'exp_avg_sq' in state:
        average_(state['exp_avg_sq'], squared, c)
        del squared  # gives its memory to the next list
        u = torch._foreach_rsqrt(state['exp_avg_sq'])
        torch._foreach_mul_(u, grads)
        return u
    rows, columns = state['row'], state['col']
    average_(rows, [x.flatten(1).mean(1) for x in squared], c)
    average_(columns, [x.flatten(1).mean(0) for x in squared], c)
    del squared
    left = torch._foreach_div(rows, [row.mean() for row in rows])
    torch._foreach_rsqrt_(left)
    right = torch._foreach_rsqrt(columns)
    u = torch._foreach_mul(grads, [x.view(-1, *[1] * (g.dim() - 1)) for x, g in zip(left, grads)])
    torch._foreach_mul_(u, [x.view(g.shape[1:]) for x, g in zip(right, grads)])
    return u


def average_(moments: Tensors, new: Tensors, c: Scalars) -> None:
    """``moments = old moments + new new``, with both shares from ``c``."""
    torch._foreach_mul_(moments, c['old'])
    add_scaled_(moments, new, c['new'])
