"""A 21st optimizer, as a newcomer would write it: sign of the momentum (arXiv 1802.04434)."""

from typing import Any

import torch

from bocb_mm.optimizers.base import MultiTensorOptimizer, add_scaled_


class Signum(MultiTensorOptimizer):
    """``m = b1 m + (1-b1) g;  p = p (1 - lr weight_decay) - lr sign(m)``."""

    state_names = ('exp_avg',)

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        compile: bool = False,
    ) -> None:
        settings = {'lr': lr, 'betas': betas, 'weight_decay': weight_decay}
        super().__init__(params, foreach=foreach, compile=compile, **settings)

    @staticmethod
    def coefficients(group: Any, step: int) -> dict[str, Any]:
        return {'step': -group['lr'], 'shrink': 1 - group['lr'] * group['weight_decay']}

    @staticmethod
    def update(params: Any, grads: Any, state: Any, c: Any, s: Any) -> None:
        torch._foreach_lerp_(state['exp_avg'], grads, 1 - s['betas'][0])
        torch._foreach_mul_(params, c['shrink'])
        add_scaled_(params, torch._foreach_sign(state['exp_avg']), c['step'])
