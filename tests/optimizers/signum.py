"""A 21st optimizer, as a newcomer would write it: sign of the momentum (arXiv 1802.04434)."""

from typing import Any

import torch

from bocb_mm.optimizers.base import MultiTensorOptimizer
from bocb_mm.optimizers.foreach import add_scaled_


class Signum(MultiTensorOptimizer):
    """``m = b1 m + (1-b1) g;  p = p (1 - lr weight_decay) - lr sign(m)``."""

    defaults = {'lr': 1e-3, 'betas': (0.9, 0.99), 'weight_decay': 0.0}
    state_names = ('exp_avg',)

    @staticmethod
    def coefficients(group: Any, step: int) -> dict[str, Any]:
        return {'step': -group['lr'], 'shrink': 1 - group['lr'] * group['weight_decay']}

    @staticmethod
    def update(params: Any, grads: Any, state: Any, c: Any, s: Any) -> None:
        torch._foreach_lerp_(state['exp_avg'], grads, 1 - s['betas'][0])
        torch._foreach_mul_(params, c['shrink'])
        add_scaled_(params, torch._foreach_sign(state['exp_avg']), c['step'])
