"""Adan: adaptive Nesterov momentum from gradient differences."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bocb_mm.optimizers import kernels
from bocb_mm.optimizers.multi_tensor import (
    Block,
    MultiTensorOptimizer,
    Scalars,
    Tensors,
    add_number_,
    add_quotient_,
    add_scaled_,
    clip_factor,
)
from bocb_mm.optimizers.strict import check_betas, check_common, require


class Adan(kernels.ScratchMixin, MultiTensorOptimizer):
    r"""Adaptive Nesterov momentum.

    With ``d = g - g_previous`` (0 in the first step)::

        m = b1 m + (1-b1) g;  v = b2 v + (1-b2) d;  n = b3 n + (1-b3) (g + b2 d)^2
        u = (m / (1-b1^t) + b2 v / (1-b2^t)) / (sqrt(n / (1-b3^t)) + eps)
        p = (p - lr u) / (1 + lr weight_decay)      (no_prox: p (1 - lr weight_decay) - lr u)

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: ``(b1, b2, b3)`` as above, which is the convention of the authors' code; the paper
            writes ``1 - b``.
        eps: Added to the denominator.
        weight_decay: Decoupled, by the proximal form.
        max_grad_norm: Clip the global gradient norm to this inside the step; 0 does not clip.
        no_prox: Decay as AdamW does.
        foreach: ``None`` chooses by device.
        compile: Compile the step.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1)); p.grad = torch.ones(1)
        >>> Adan([p], lr=0.5).step(); round(p.item(), 6)
        0.5

    Source: Xie et al., TPAMI 2024, Algorithm 1; bias correction as in the authors' code
    (sail-sg/Adan).
    """

    statics = ('betas', 'no_prox', 'max_grad_norm')

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_grad_norm: float = 0.0,
        no_prox: bool = False,
        *,
        foreach: bool | None = None,
        compile: bool = False,
    ) -> None:
        check_common(lr, weight_decay, eps)
        check_betas(betas, 3)
        require(max_grad_norm >= 0, 'max_grad_norm', max_grad_norm, 'at least 0 (0: no clipping)')
        defaults = {
            'lr': lr,
            'betas': betas,
            'eps': eps,
            'weight_decay': weight_decay,
            'max_grad_norm': max_grad_norm,
            'no_prox': no_prox,
        }
        super().__init__(params, defaults, foreach, compile)

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """The three averages and the previous (clipped) gradient."""
        zeros = {k: torch.zeros_like(p) for k in ('exp_avg', 'exp_avg_diff', 'exp_avg_sq')}
        return zeros | {'previous_grad': torch.zeros_like(p)}

    def before_step(self) -> Scalars:
        """``clip``: factor that brings the global norm down to ``max_grad_norm``."""
        return {'clip': clip_factor(self.param_groups, self.foreach)}

    def coefficients(self, group: dict[str, Any], step: int) -> Scalars:
        """Step sizes with the bias corrections in them."""
        b1, b2, b3 = group['betas']
        lr, decay = float(group['lr']), group['weight_decay']
        root = math.sqrt(1 - b3**step)
        return {
            'step': -lr * root / (1 - b1**step),
            'step_diff': -lr * root * b2 / (1 - b2**step),
            'share_diff': b2 * (1 - b1**step) / (1 - b2**step),
            'eps': group['eps'] * root,
            'shrink': 1 - lr * decay if group['no_prox'] else 1 / (1 + lr * decay),
            # factors of g_previous - g; the first step has no previous gradient
            'diff': (b2 - 1) * (step > 1),
            'look': -b2 * (step > 1),
        }

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: Any, c: Scalars, s: Scalars) -> None:
        """One buffer."""
        b1, b2, b3 = s['betas']
        if s['max_grad_norm']:
            grads = torch._foreach_mul(grads, c['clip'])
        work = state['previous_grad']
        torch._foreach_sub_(work, grads)
        torch._foreach_lerp_(state['exp_avg'], grads, 1 - b1)
        torch._foreach_mul_(state['exp_avg_diff'], b2)
        add_scaled_(state['exp_avg_diff'], work, c['diff'])
        torch._foreach_mul_(work, c['look'])
        torch._foreach_add_(work, grads)
        torch._foreach_mul_(state['exp_avg_sq'], b3)
        torch._foreach_addcmul_(state['exp_avg_sq'], work, work, value=1 - b3)
        if s['max_grad_norm']:  # the clipped gradient is the buffer already
            torch._foreach_copy_(work, state['exp_avg_sq'])
            torch._foreach_sqrt_(work)
        else:
            work = torch._foreach_sqrt(state['exp_avg_sq'])
        add_number_(work, c['eps'])
        if s['decay'] and s['no_prox']:
            torch._foreach_mul_(params, c['shrink'])
        m, v = state['exp_avg'], state['exp_avg_diff']
        if torch.compiler.is_compiling():  # where a buffer costs nothing, but a division does
            both = torch._foreach_mul(m, c['step'])
            add_scaled_(both, v, c['step_diff'])
            torch._foreach_div_(both, work)
            torch._foreach_add_(params, both)
        else:
            add_quotient_(params, m, work, c['step'])
            add_quotient_(params, v, work, c['step_diff'])
        if s['decay'] and not s['no_prox']:
            torch._foreach_mul_(params, c['shrink'])
        torch._foreach_copy_(state['previous_grad'], grads)

    def update_block(self, block: Block, c: Scalars, s: Scalars) -> None:
        """With torch's Adam kernel, whose gradient is the one looked ahead."""
        params, grads, state = block
        if not kernels.take(params, grads, *state.values()):
            self.update(*block, c, s)
            return
        b1, b2, b3 = s['betas']
        late = 1.0 if s['no_prox'] else c['shrink']  # the proximal form shrinks the step too
        if c['clip'] != 1.0:
            grads, unclipped = self.scratch_like(params, 'clipped'), grads
            clip = kernels.number(c['clip'], params[0])
            for x, y in zip(unclipped, grads):
                torch.mul(x, clip, out=y)
        if s['step'] == 1:
            torch._foreach_copy_(state['previous_grad'], grads)
        aheads, moments = self.scratches_like(params, 2)
        averages = state['exp_avg'], state['exp_avg_diff'], state['previous_grad']
        for g, m, v, previous, ahead, moment in zip(grads, *averages, aheads, moments):
            torch.sub(g, previous, out=previous)
            m.lerp_(g, 1 - b1)
            v.lerp_(previous, 1 - b2)
            torch.add(g, previous, alpha=b2, out=ahead)
            torch.add(m, v, alpha=c['share_diff'], out=moment)
            previous.copy_(g)
        kernels.given_moment_(
            params, aheads, (moments, state['exp_avg_sq']),
            lr=-c['step'] * late, b2=b3, eps=c['eps'], shrink=c['shrink'],
        )  # fmt: skip
