"""SGDP: SGD with momentum without the growth of scale-invariant weights."""

from __future__ import annotations

from typing import Any

import torch

from bocb_mm.optimizers.base import Scalars, State, Tensors
from bocb_mm.optimizers.projection import ProjectedOptimizer, descend_projected_


class SGDP(ProjectedOptimizer):
    r"""SGD with momentum whose step is projected where weights are scale-invariant.

    ::

        b = momentum b + (1 - dampening) g;  u = b  (nesterov: g + momentum b)
        p = p (1 - lr weight_decay / (1-momentum)) - lr u

    with ``u`` and the decay changed as :mod:`.projection` says; parameters of one dimension are
    left to SGD. The decay is decoupled and carries ``1/(1-momentum)``, which is what SGD's coupled
    decay reaches.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        momentum: Momentum.
        dampening: Share of the gradient that the buffer leaves out.
        weight_decay: Decoupled, see above.
        nesterov: Look ahead along the buffer.
        eps: Added to the norms.
        delta: Threshold of the cosine.
        wd_ratio: Share of the decay that acts on projected weights.
        foreach, compile: Execution mode, see :mod:`.base`.

    Example:
        >>> p = torch.nn.Parameter(torch.tensor([[1.0, 0.0]])); p.grad = torch.tensor([[0.0, 1.0]])
        >>> SGDP([p], lr=0.5).step(); p[0].tolist()
        [1.0, -0.5]

    Source: Heo et al., ICLR 2021, Algorithm 1.
    """

    defaults = {
        'lr': 0.1,
        'momentum': 0.9,
        'dampening': 0.0,
        'weight_decay': 0.0,
        'nesterov': False,
        'eps': 1e-8,
        'delta': 0.1,
        'wd_ratio': 0.1,
    }
    state_names = ('momentum_buffer',)
    ranges = {'momentum': (0.0, 1.0)}

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """Step size, and the rate times the decay."""
        lr = group['lr']
        return {'step': lr, 'shrink': lr * group['weight_decay'] / (1 - group['momentum'])}

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """One buffer of the size of a tensor; with ``nesterov`` one of all."""
        u = buffer = state['momentum_buffer']
        torch._foreach_mul_(buffer, s['momentum'])
        torch._foreach_add_(buffer, grads, alpha=1 - s['dampening'])
        if s['nesterov']:
            u = torch._foreach_add(grads, buffer, alpha=s['momentum'])
        descend_projected_(params, grads, u, c, s)
