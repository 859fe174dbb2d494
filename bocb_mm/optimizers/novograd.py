"""NovoGrad: gradients normalised by a layer-wise second moment."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bocb_mm.optimizers.base import MultiTensorOptimizer, Scalars, State, Tensors
from bocb_mm.optimizers.foreach import add_scaled_
from bocb_mm.optimizers.reductions import norms, per_tensor


class NovoGrad(MultiTensorOptimizer):
    r"""Momentum on gradients that are normalised layer by layer.

    ::

        v = |g|^2 at first, then b2 v + (1-b2) |g|^2           (one number a tensor)
        m = b1 m + g / (sqrt(v) + eps) + weight_decay p;  p -= lr m

    The decay stands apart from the gradient's statistics, but passes through the momentum: a step
    with zero gradient shrinks a weight by ``lr weight_decay``, in the long run by ``1 / (1-b1)`` of
    that.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: Decay rates of the momentum and of the second moment.
        eps: Added to the denominator.
        weight_decay: Decoupled from the statistics, see above.
        grad_averaging: Multiply what enters the momentum by ``1 - b1``.
        foreach, compile: Execution mode, see :mod:`.base`.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1)); p.grad = torch.full((1,), 7.0)
        >>> NovoGrad([p], lr=0.5).step(); round(p.item(), 6)
        0.5

    Source: Ginsburg et al., arXiv 1905.11286, Algorithm 1.
    """

    defaults = {
        'lr': 1e-2,
        'betas': (0.95, 0.98),
        'eps': 1e-8,
        'weight_decay': 0.0,
        'grad_averaging': False,
    }
    elementwise = False

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """``exp_avg``: momentum, ``exp_avg_sq``: second moment of the layer, 0-dim."""
        return {'exp_avg': torch.zeros_like(p), 'exp_avg_sq': p.new_zeros(())}

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """Step size, and the decay that enters the momentum."""
        share = 1 - group['betas'][0] if group['grad_averaging'] else 1.0
        return {'step': -group['lr'], 'decay': share * group['weight_decay']}

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """No buffer; the second moments of all layers are one vector."""
        (b1, b2), m = s['betas'], state['exp_avg']
        squared, old = norms(grads).square(), torch.stack(state['exp_avg_sq'])
        moment = torch.where(old == 0, squared, old * b2 + squared * (1 - b2))
        torch._foreach_copy_(state['exp_avg_sq'], list(moment.unbind()))
        denominators = per_tensor(moment.sqrt() + s['eps'], grads)
        share = 1 - b1 if s['grad_averaging'] else 1.0
        torch._foreach_mul_(m, b1)
        torch._foreach_addcdiv_(m, grads, denominators, value=share)
        add_scaled_(m, params, c['decay'])
        add_scaled_(params, m, c['step'])
