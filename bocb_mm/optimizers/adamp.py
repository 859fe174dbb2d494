"""AdamP: AdamW without the growth of scale-invariant weights."""

from __future__ import annotations

from typing import Any

from bocb_mm.optimizers.base import Scalars, State, Tensors
from bocb_mm.optimizers.moments import adam_coefficients, adam_direction
from bocb_mm.optimizers.projection import ProjectedOptimizer, descend_projected_


class AdamP(ProjectedOptimizer):
    r"""AdamW whose step is projected where weights are scale-invariant.

    ``u = m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps)``, projected as :mod:`.projection` says;
    parameters of one dimension are left to AdamW.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: Decay rates of the moments.
        eps: Added to the denominator and to the norms.
        weight_decay: Decoupled.
        delta: Threshold of the cosine.
        wd_ratio: Share of the decay that acts on projected weights.
        foreach, compile: Execution mode, see :mod:`.base`.

    Example:
        >>> import torch
        >>> p = torch.nn.Parameter(torch.tensor([[1.0, 0.0]])); p.grad = torch.tensor([[0.0, 1.0]])
        >>> AdamP([p], lr=0.5).step(); [round(x, 6) for x in p[0].tolist()]
        [1.0, -0.5]

    Source: Heo et al., ICLR 2021, Algorithm 2.
    """

    defaults = {
        'lr': 1e-3,
        'betas': (0.9, 0.999),
        'eps': 1e-8,
        'weight_decay': 0.0,
        'delta': 0.1,
        'wd_ratio': 0.1,
    }
    state_names = ('exp_avg', 'exp_avg_sq')

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """Step size, rate times decay, and those of Adam's direction."""
        lr = group['lr']
        return adam_coefficients(group, step) | {'step': lr, 'shrink': lr * group['weight_decay']}

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """One buffer, and one of the size of a tensor."""
        u = adam_direction(grads, state, c, s)
        descend_projected_(params, grads, u, c, s)
