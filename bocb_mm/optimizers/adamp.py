"""AdamP: AdamW without the growth of scale-invariant weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bocb_mm.optimizers import kernels
from bocb_mm.optimizers.multi_tensor import (
    Batch,
    Block,
    MultiTensorOptimizer,
    Scalars,
    Tensors,
    add_number_,
    add_scaled_,
)
from bocb_mm.optimizers.projection import ProjectionSpace, find_one, project_, project_grouped_
from bocb_mm.optimizers.rows import Part, RowSpaceMixin
from bocb_mm.optimizers.strict import check_betas, check_common, require


class AdamP(kernels.ScratchMixin, RowSpaceMixin, MultiTensorOptimizer):
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
        foreach: ``None`` chooses by device.
        compile: Compile the step.

    Example:
        >>> p = torch.nn.Parameter(torch.tensor([[1.0, 0.0]])); p.grad = torch.tensor([[0.0, 1.0]])
        >>> AdamP([p], lr=0.5).step(); [round(x, 6) for x in p[0].tolist()]
        [1.0, -0.5]

    Source: Heo et al., ICLR 2021, Algorithm 2.
    """

    elementwise = False
    space_class = ProjectionSpace
    statics = ('betas', 'eps', 'delta', 'wd_ratio')

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        *,
        foreach: bool | None = None,
        compile: bool = False,
    ) -> None:
        check_common(lr, weight_decay, eps)
        check_betas(betas, 2)
        require(delta >= 0, 'delta', delta, 'at least 0')
        require(0 <= wd_ratio <= 1, 'wd_ratio', wd_ratio, 'a number in [0, 1]')
        defaults = {
            'lr': lr,
            'betas': betas,
            'eps': eps,
            'weight_decay': weight_decay,
            'delta': delta,
            'wd_ratio': wd_ratio,
        }
        super().__init__(params, defaults, foreach, compile)

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """``exp_avg``, ``exp_avg_sq``: moments."""
        return {'exp_avg': torch.zeros_like(p), 'exp_avg_sq': torch.zeros_like(p)}

    def coefficients(self, group: dict[str, Any], step: int) -> Scalars:
        """``step * m / (sqrt(v) + eps)`` has the bias corrections in ``step`` and ``eps``."""
        b1, b2 = group['betas']
        lr, root = float(group['lr']), math.sqrt(1 - b2**step)
        return {
            'step': lr * root / (1 - b1**step),
            'eps': group['eps'] * root,
            'shrink': lr * group['weight_decay'],
            'lr': lr,
            'weight_decay': group['weight_decay'],
        }

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: Any, c: Scalars, s: Scalars) -> None:
        """One tensor after the other; one buffer of a tensor's size."""
        b1, b2 = s['betas']
        m, v = state['exp_avg'], state['exp_avg_sq']
        torch._foreach_lerp_(m, grads, 1 - b1)
        torch._foreach_mul_(v, b2)
        torch._foreach_addcmul_(v, grads, grads, value=1 - b2)
        u = torch._foreach_sqrt(v)
        add_number_(u, c['eps'])
        torch._foreach_reciprocal_(u)
        torch._foreach_mul_(u, m)
        descend_projected_(params, grads, u, c, s)

    def update_block(self, block: Block, c: Scalars, s: Scalars) -> None:
        """With torch's Adam kernel: on the weights, or on a buffer for what is projected."""
        params, grads, state = block
        m, v = state['exp_avg'], state['exp_avg_sq']
        if not kernels.take(params, grads, m, v):
            self.update(*block, c, s)
            return
        how = {'step': s['step'], 'betas': s['betas'], 'eps': s['eps']}
        plain: list[tuple[Tensor, ...]] = []
        for p, g, a, b in zip(params, grads, m, v):
            projected = find_one(p, g, s)
            if projected is None:
                plain.append((p, g, a, b))
                continue
            (u,) = self.scratch_like([p])
            kernels.adam_([u.zero_()], [g], ([a], [b]), lr=-1.0, **how)
            projected.scale_(p, projected.inner(p, u), c | {'step': c['lr']}, s)
            p.add_(u, alpha=-c['lr'])
        if plain:
            p, g, a, b = (list(column) for column in zip(*plain))
            kernels.adam_(p, g, (a, b), lr=c['lr'], weight_decay=c['weight_decay'], **how)

    def update_grouped(self, batch: Batch, c: Scalars, s: Scalars) -> None:
        """All tensors at once; a flat buffer for half of them, which denominators enter twice."""
        params, grads, state = batch
        b1, b2 = s['betas']
        m, v = state['exp_avg'], state['exp_avg_sq']
        torch._foreach_lerp_(m, grads, 1 - b1)
        torch._foreach_mul_(v, b2)
        torch._foreach_addcmul_(v, grads, grads, value=1 - b2)

        def write_denominators(part: Part) -> None:
            torch._foreach_copy_(part.work, part.of(v))
            torch._foreach_sqrt_(part.work)
            add_number_(part.work, c['eps'])

        def write_step(part: Part) -> None:
            write_denominators(part)
            torch._foreach_reciprocal_(part.work)
            torch._foreach_mul_(part.work, part.of(m))

        with self.row_space(params) as space:
            project_grouped_(space, params, grads, write_step, c, s)
            for part in space.parts:
                write_denominators(part)
                weights, moments = part.of(params), part.of(m)
                torch._foreach_addcdiv_(weights, moments, part.work, value=-c['step'])


def descend_projected_(params: Tensors, grads: Tensors, u: Tensors, c: Scalars, s: Scalars) -> None:
    """``p = p * row factors - step * u`` tensor by tensor; vectors are only shrunk."""
    for p, g, each in zip(params, grads, u):
        if p.dim() > 1:
            project_(p, g, each, c, s)
        elif s['decay']:
            p.mul_(1 - c['shrink'])
    add_scaled_(params, u, -c['step'])
