"""LION: the sign of an interpolated momentum."""

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

TINY = 2.0**-96
"""What counts as full size on a CPU: an interpolated momentum below 1.3e-29 moves by less."""


class LION(kernels.ScratchMixin, MultiTensorOptimizer):
    """Evolved sign momentum with decoupled decay.

    ``p *= 1 - lr * weight_decay;  p -= lr * sign(b1 m + (1-b1) g);  m = b2 m + (1-b2) g``.
    Every element moves by exactly ``lr``: take a rate 3-10 times below AdamW's and a decay 3-10
    times above.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: Interpolation of the update, decay of the momentum.
        weight_decay: Decoupled.
        foreach: ``None`` chooses by device.
        compile: Compile the step.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1)); p.grad = torch.ones(1)
        >>> LION([p], lr=0.5).step(); p.item()
        0.5

    Source: Chen et al., Symbolic discovery of optimization algorithms, NeurIPS 2023, Algorithm 2.
    """

    statics = ('betas',)

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        compile: bool = False,
    ) -> None:
        check_common(lr, weight_decay)
        check_betas(betas, 2)
        defaults = {'lr': lr, 'betas': betas, 'weight_decay': weight_decay}
        super().__init__(params, defaults, foreach, compile)

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """``exp_avg``: momentum."""
        return {'exp_avg': torch.zeros_like(p)}

    def coefficients(self, group: dict[str, Any], step: int) -> Scalars:
        """Step size and shrink factor."""
        lr, decay = float(group['lr']), group['weight_decay']
        return {'step': -lr, 'shrink': 1 - lr * decay, 'decay': decay}

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: Any, c: Scalars, s: Scalars) -> None:
        """Six passes, one buffer."""
        momentum = state['exp_avg']
        direction = torch._foreach_lerp(momentum, grads, 1 - s['betas'][0])
        torch._foreach_sign_(direction)
        torch._foreach_add_(direction, grads, alpha=0)  # sign(nan) is 0, nan * 0 is nan
        torch._foreach_lerp_(momentum, grads, 1 - s['betas'][1])
        if s['decay']:
            torch._foreach_mul_(params, c['shrink'])
        add_scaled_(params, direction, c['step'])

    def update_block(self, block: Block, c: Scalars, s: Scalars) -> None:
        """SGD, by torch's kernel, along the sign: cut off at :data:`TINY`, which NaN survives."""
        params, grads, state = block
        momentum = state['exp_avg']
        if not kernels.take(params, grads, momentum):
            self.update(*block, c, s)
            return
        b1, b2 = s['betas']
        direction = self.scratch_like(params)
        for g, m, d in zip(grads, momentum, direction):
            torch.lerp(m, g, 1 - b1, out=d)
            d.clamp_(-TINY, TINY)
            m.lerp_(g, 1 - b2)
        kernels.sgd_(
            params, direction, [], lr=-c['step'] / TINY, momentum=0, weight_decay=c['decay'] * TINY
        )
