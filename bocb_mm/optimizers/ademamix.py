"""AdEMAMix: AdamW with a second, much slower momentum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from bocb_mm.optimizers.base import MultiTensorOptimizer, Scalars, State, Tensors
from bocb_mm.optimizers.foreach import add_scaled_, operand
from bocb_mm.optimizers.moments import adam_coefficients, update_moments_
from bocb_mm.optimizers.strict import require


class AdEMAMix(MultiTensorOptimizer):
    """Adam whose momentum is a fast average and ``alpha`` times a slow one.

    ``m, v`` as Adam's, ``n = b3 n + (1-b3) g``;
    ``p = p (1 - lr weight_decay) - lr (m / (1-b1^t) + alpha n) / (sqrt(v / (1-b2^t)) + eps)``.

    With ``warmup`` steps ``alpha`` grows linearly from 0, and the half-life of ``n`` from that of
    ``m``; the authors take the whole training. A slow average of 10,000 steps is worth its memory
    in long trainings.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: Decay rates of fast momentum, second moment, slow momentum.
        alpha: Weight of the slow momentum.
        warmup: Steps until ``alpha`` and ``b3`` have their values; 0 for from the start.
        eps: Added to the denominator.
        weight_decay: Decoupled.
        foreach, compile: Execution mode, see :mod:`.base`.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1)); p.grad = torch.ones(1)
        >>> AdEMAMix([p], lr=0.5, alpha=0.0).step(); round(p.item(), 6)
        0.5

    Source: Pagliardini et al., The AdEMAMix optimizer, ICLR 2025, Algorithm 1.
    """

    defaults = {
        'lr': 1e-3,
        'betas': (0.9, 0.999, 0.9999),
        'alpha': 5.0,
        'warmup': 0,
        'eps': 1e-8,
        'weight_decay': 0.0,
    }
    state_names = ('exp_avg', 'exp_avg_sq', 'exp_avg_slow')
    ranges = {'alpha': (0.0, math.inf)}

    @classmethod
    def check(cls, group: Mapping[str, Any]) -> None:
        """See the base class."""
        super().check(group)
        value = group['warmup']
        require(type(value) is int and value >= 0, 'warmup', value, 'a number of steps')

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """Step size of each momentum, shrink factor, and the slow average's shares."""
        b1, b2, b3 = group['betas']
        part = min(1.0, step / group['warmup']) if group['warmup'] else 1.0
        if 0 < b1 < b3 and part < 1:
            first, last = math.log(b1), math.log(b3)
            b3 = math.exp(first * last / ((1 - part) * last + part * first))
        adam = adam_coefficients(group | {'betas': (b1, b2)}, step)
        lr, root = group['lr'], math.sqrt(1 - b2**step)
        return {
            'eps_root': adam['eps_root'],
            'step': -lr * adam['scale'],
            'slow_step': -lr * root * group['alpha'] * part,
            'shrink': 1 - lr * group['weight_decay'],
            'old': b3,
            'new': 1 - b3,
        }

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """Two buffers."""
        m, v, slow = state['exp_avg'], state['exp_avg_sq'], state['exp_avg_slow']
        update_moments_(m, v, grads, s['betas'][:2])
        torch._foreach_mul_(slow, c['old'])
        add_scaled_(slow, grads, c['new'])
        u = torch._foreach_mul(m, c['step'])
        add_scaled_(u, slow, c['slow_step'])
        root = torch._foreach_sqrt(v)
        torch._foreach_add_(root, operand(c['eps_root'], root))
        torch._foreach_div_(u, root)
        torch._foreach_mul_(params, c['shrink'])
        torch._foreach_add_(params, u)
