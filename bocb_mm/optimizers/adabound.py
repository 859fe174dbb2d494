"""AdaBound: Adam whose rate per weight is clipped to bounds that close in on SGD's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from bocb_mm.optimizers.base import MultiTensorOptimizer, Scalars, State, Tensors
from bocb_mm.optimizers.foreach import operand, plus_scaled
from bocb_mm.optimizers.moments import update_moments_
from bocb_mm.optimizers.strict import require


class AdaBound(MultiTensorOptimizer):
    r"""Adam with dynamic bounds on the rate of each weight.

    ::

        m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  f = final_lr lr / base_lr
        r = lr sqrt(1-b2^t) / (1-b1^t) / (sqrt(v) + eps)
        r = clip(r, f (1 - 1/(gamma t + 1)), f (1 + 1/(gamma t)))
        p = p (1 - lr weight_decay) - r m

    Departures from Algorithm 2, which follow its authors' code (Luolc/AdaBound): the rate does not
    fall with ``1 / sqrt(t)``, which is left to the schedule; the moments are corrected for their
    bias; and the bounds close in at the speed ``gamma``, scaled with the rate.

    ``base_lr`` is the group's rate when it was made. It is kept in the group, so that a schedule
    moves the bounds along and a checkpoint keeps them. With ``base_lr`` 0, ``f`` is ``final_lr``
    once the rate is above 0.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: Decay rates of the moments.
        final_lr: Rate that both bounds approach: that of SGD under the same recipe.
        gamma: Speed at which they do.
        eps: Added to the denominator.
        weight_decay: Decoupled as in Table A2 of the BOCB paper.
        decoupled_weight_decay: False adds the decay to the gradient, as AdaBound's authors do.
        base_lr: ``None`` takes each group's ``lr``.
        foreach, compile: Execution mode, see :mod:`.base`.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1)); p.grad = torch.ones(1)
        >>> AdaBound([p], lr=0.5).step(); round(p.item(), 4)
        0.5

    Source: Luo et al., ICLR 2019, Algorithm 2.
    """

    defaults = {
        'lr': 1e-3,
        'betas': (0.9, 0.999),
        'final_lr': 0.1,
        'gamma': 1e-3,
        'eps': 1e-8,
        'weight_decay': 0.0,
        'decoupled_weight_decay': True,
        'base_lr': None,
    }
    state_names = ('exp_avg', 'exp_avg_sq')
    ranges = {'final_lr': (0.0, math.inf)}

    @classmethod
    def check(cls, group: Mapping[str, Any]) -> None:
        """See the base class."""
        super().check(group)
        require(0 < group['gamma'] < 1, 'gamma', group['gamma'], 'a number in (0, 1)')

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group and note its rate as ``base_lr``."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group['base_lr'] is None:
            group['base_lr'] = float(group['lr'])

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """Step size and bounds."""
        b1, b2 = group['betas']
        lr, base, gamma = group['lr'], group['base_lr'], group['gamma']
        final = group['final_lr'] * (lr / base if base else float(lr > 0))
        return {
            'step': lr * math.sqrt(1 - b2**step) / (1 - b1**step),
            'lower': final * (1 - 1 / (gamma * step + 1)),
            'upper': final * (1 + 1 / (gamma * step)),
            'shrink': 1 - lr * group['weight_decay'],
            'decay': group['weight_decay'],
        }

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """One buffer."""
        m, v = state['exp_avg'], state['exp_avg_sq']
        if not s['decoupled_weight_decay']:
            grads = plus_scaled(grads, params, c['decay'])
        update_moments_(m, v, grads, s['betas'])
        del grads  # where they were decayed, their memory goes to the next list
        rates = torch._foreach_sqrt(v)
        torch._foreach_add_(rates, s['eps'])
        torch._foreach_reciprocal_(rates)
        torch._foreach_mul_(rates, c['step'])
        torch._foreach_clamp_min_(rates, operand(c['lower'], rates))
        torch._foreach_clamp_max_(rates, operand(c['upper'], rates))
        if s['decoupled_weight_decay']:
            torch._foreach_mul_(params, c['shrink'])
        torch._foreach_addcmul_(params, rates, m, value=-1)
