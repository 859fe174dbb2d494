"""NovoGrad: gradients normalised by a layer-wise second moment."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bocb_mm.optimizers import kernels
from bocb_mm.optimizers.multi_tensor import (
    Block,
    MultiTensorOptimizer,
    Scalars,
    Tensors,
    add_scaled_,
)
from bocb_mm.optimizers.strict import check_betas, check_common


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
        foreach: ``None`` chooses by device.
        compile: Compile the step.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1)); p.grad = torch.full((1,), 7.0)
        >>> NovoGrad([p], lr=0.5).step(); round(p.item(), 6)
        0.5

    Source: Ginsburg et al., arXiv 1905.11286, Algorithm 1.
    """

    elementwise = False
    statics = ('betas', 'eps', 'weight_decay', 'grad_averaging')

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.95, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        grad_averaging: bool = False,
        *,
        foreach: bool | None = None,
        compile: bool = False,
    ) -> None:
        check_common(lr, weight_decay, eps)
        check_betas(betas, 2)
        defaults = {
            'lr': lr,
            'betas': betas,
            'eps': eps,
            'weight_decay': weight_decay,
            'grad_averaging': grad_averaging,
        }
        super().__init__(params, defaults, foreach, compile)

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """``exp_avg``: momentum, ``exp_avg_sq``: second moment of the layer, 0-dim."""
        return {'exp_avg': torch.zeros_like(p), 'exp_avg_sq': p.new_zeros(())}

    def coefficients(self, group: dict[str, Any], step: int) -> Scalars:
        """Step size."""
        return {'step': -float(group['lr'])}

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: Any, c: Scalars, s: Scalars) -> None:
        """One buffer; the second moments of all layers are one vector."""
        b1 = s['betas'][0]
        update = torch._foreach_div(grads, list(_denominators(grads, state, s).unbind()))
        if s['decay']:
            torch._foreach_add_(update, params, alpha=s['weight_decay'])
        if s['grad_averaging']:
            torch._foreach_mul_(update, 1 - b1)
        torch._foreach_mul_(state['exp_avg'], b1)
        torch._foreach_add_(state['exp_avg'], update)
        add_scaled_(params, state['exp_avg'], c['step'])

    def update_block(self, block: Block, c: Scalars, s: Scalars) -> None:
        """With torch's SGD kernel, tensor by tensor."""
        params, grads, state = block
        buffer = state['exp_avg']
        if not kernels.take(params, grads, buffer):
            self.update(*block, c, s)
            return
        b1 = s['betas'][0]
        share = 1 - b1 if s['grad_averaging'] else 1.0
        denominators = _denominators(grads, state, s).tolist()
        for p, g, m, d in zip(params, grads, buffer, denominators):
            decay = s['weight_decay'] * d  # the kernel divides it by d again
            kernels.sgd_(
                [p], [g], [m], lr=-c['step'], momentum=b1, weight_decay=decay, scale=share / d
            )


def _denominators(grads: Tensors, state: Any, s: Scalars) -> Tensor:
    """``sqrt(v) + eps`` of each tensor, shape (tensors,), with ``v`` updated."""
    b2 = s['betas'][1]
    squared = torch.stack(torch._foreach_norm(grads)).square()
    old = torch.stack(state['exp_avg_sq'])
    moment = torch.where(old == 0, squared, old * b2 + squared * (1 - b2))
    torch._foreach_copy_(state['exp_avg_sq'], list(moment.unbind()))
    return moment.sqrt() + s['eps']
