"""SGDP: SGD with momentum without the growth of scale-invariant weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bocb_mm.optimizers import kernels
from bocb_mm.optimizers.adamp import descend_projected_
from bocb_mm.optimizers.multi_tensor import Batch, Block, MultiTensorOptimizer, Scalars, Tensors
from bocb_mm.optimizers.projection import ProjectionSpace, find_one, project_grouped_
from bocb_mm.optimizers.rows import Part, RowSpaceMixin
from bocb_mm.optimizers.strict import check_common, require


class SGDP(RowSpaceMixin, MultiTensorOptimizer):
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
        foreach: ``None`` chooses by device.
        compile: Compile the step.

    Example:
        >>> p = torch.nn.Parameter(torch.tensor([[1.0, 0.0]])); p.grad = torch.tensor([[0.0, 1.0]])
        >>> SGDP([p], lr=0.5).step(); p[0].tolist()
        [1.0, -0.5]

    Source: Heo et al., ICLR 2021, Algorithm 1.
    """

    elementwise = False
    space_class = ProjectionSpace
    statics = ('momentum', 'dampening', 'nesterov', 'eps', 'delta', 'wd_ratio')

    ranges = {'momentum': (0.0, 1.0)}

    def __init__(
        self,
        params: Any,
        lr: float = 0.1,
        momentum: float = 0.9,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        eps: float = 1e-8,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        *,
        foreach: bool | None = None,
        compile: bool = False,
    ) -> None:
        check_common(lr, weight_decay, eps)
        require(0 <= momentum < 1, 'momentum', momentum, 'a number in [0, 1)')
        require(delta >= 0, 'delta', delta, 'at least 0')
        require(0 <= wd_ratio <= 1, 'wd_ratio', wd_ratio, 'a number in [0, 1]')
        defaults = {
            'lr': lr,
            'momentum': momentum,
            'dampening': dampening,
            'weight_decay': weight_decay,
            'nesterov': nesterov,
            'eps': eps,
            'delta': delta,
            'wd_ratio': wd_ratio,
        }
        super().__init__(params, defaults, foreach, compile)

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """``momentum_buffer``."""
        return {'momentum_buffer': torch.zeros_like(p)}

    def coefficients(self, group: dict[str, Any], step: int) -> Scalars:
        """Step size, and the rate times the decay."""
        lr = float(group['lr'])
        return {'step': lr, 'shrink': lr * group['weight_decay'] / (1 - group['momentum'])}

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: Any, c: Scalars, s: Scalars) -> None:
        """One tensor after the other."""
        buffer, momentum = state['momentum_buffer'], s['momentum']
        torch._foreach_mul_(buffer, momentum)
        torch._foreach_add_(buffer, grads, alpha=1 - s['dampening'])
        u = buffer
        if s['nesterov']:
            u = torch._foreach_mul(buffer, momentum)
            torch._foreach_add_(u, grads)
        descend_projected_(params, grads, u, c, s)

    def update_block(self, block: Block, c: Scalars, s: Scalars) -> None:
        """With torch's SGD kernel on the weights, after what the projection changes of them.

        The product of weight and step follows from those of weight, gradient and old buffer.
        """
        params, grads, state = block
        buffer, momentum, share = state['momentum_buffer'], s['momentum'], 1 - s['dampening']
        if not kernels.take(params, grads, buffer):
            self.update(*block, c, s)
            return
        for p, g, b in zip(params, grads, buffer):
            projected = find_one(p, g, s)
            if projected is not None:
                pu = momentum * projected.inner(p, b) + share * projected.pg
                if s['nesterov']:
                    pu = projected.pg + momentum * pu
                projected.scale_(p, pu, c, s)
            elif s['decay']:
                p.mul_(1 - c['shrink'])
        kernels.sgd_(
            params, grads, buffer,
            lr=c['step'], momentum=momentum, scale=share, nesterov=s['nesterov'],
        )  # fmt: skip

    def update_grouped(self, batch: Batch, c: Scalars, s: Scalars) -> None:
        """All tensors at once; a flat buffer for half of them."""
        params, grads, state = batch
        buffer, momentum = state['momentum_buffer'], s['momentum']
        torch._foreach_mul_(buffer, momentum)
        torch._foreach_add_(buffer, grads, alpha=1 - s['dampening'])

        def write_step(part: Part) -> None:
            torch._foreach_copy_(part.work, part.of(buffer))
            if s['nesterov']:
                torch._foreach_mul_(part.work, momentum)
                torch._foreach_add_(part.work, part.of(grads))

        with self.row_space(params) as space:
            project_grouped_(space, params, grads, write_step, c, s)
        if s['nesterov']:
            torch._foreach_add_(params, grads, alpha=-c['step'])
        scale = momentum if s['nesterov'] else 1.0
        torch._foreach_add_(params, buffer, alpha=-c['step'] * scale)
