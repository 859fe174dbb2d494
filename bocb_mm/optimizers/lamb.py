"""LAMB: Adam's direction with a layer-wise trust ratio."""

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
    add_scaled_,
    clip_factor,
    square,
)
from bocb_mm.optimizers.strict import check_betas, check_common, require


class LAMB(kernels.ScratchMixin, MultiTensorOptimizer):
    r"""Adam with the step of each layer scaled to the norm of its weights.

    ``u = m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps) + weight_decay p;  p -= lr |p| / |u| u``,
    with ratio 1 where either norm is 0. Which parameters take part is explicit and does not depend
    on their decay: a group with ``adapt=False`` has ratio 1, and ``exclude_1d`` leaves parameters
    of at most one dimension (norm, bias) without decay and with ratio 1.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: Decay rates of the moments.
        eps: Added to the denominator.
        weight_decay: Inside the trust ratio.
        max_grad_norm: Clip the global gradient norm to this inside the step; 0 does not clip. 1 is
            what timm and mmpretrain do, and so what RSB's rates belong to; the paper does not clip.
        trust_clip: Ratio at most 1 (LAMBC).
        adapt: Whether the trust ratio applies; meant to be set by group.
        exclude_1d: See above.
        foreach: ``None`` chooses by device.
        compile: Compile the step.

    Example:
        >>> p = torch.nn.Parameter(torch.full((1, 1), 2.0)); p.grad = torch.ones(1, 1)
        >>> LAMB([p], lr=0.5).step(); round(p.item(), 6)
        1.0

    Source: You et al., Large batch optimization for deep learning, ICLR 2020, Algorithm 2.
    """

    elementwise = False
    statics = ('betas', 'eps', 'max_grad_norm', 'trust_clip')

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        max_grad_norm: float = 1.0,
        trust_clip: bool = False,
        adapt: bool = True,
        exclude_1d: bool = True,
        *,
        foreach: bool | None = None,
        compile: bool = False,
    ) -> None:
        check_common(lr, weight_decay, eps)
        check_betas(betas, 2)
        require(max_grad_norm >= 0, 'max_grad_norm', max_grad_norm, 'at least 0 (0: no clipping)')
        defaults = {
            'lr': lr,
            'betas': betas,
            'eps': eps,
            'weight_decay': weight_decay,
            'max_grad_norm': max_grad_norm,
            'trust_clip': trust_clip,
            'adapt': adapt,
            'exclude_1d': exclude_1d,
        }
        super().__init__(params, defaults, foreach, compile)

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """``exp_avg``, ``exp_avg_sq``: moments."""
        return {'exp_avg': torch.zeros_like(p), 'exp_avg_sq': torch.zeros_like(p)}

    def kind(self, p: Tensor, group: dict[str, Any]) -> Any:
        """Whether it is decayed, whether it is adapted."""
        excluded = group['exclude_1d'] and p.dim() <= 1
        return not excluded, group['adapt'] and not excluded

    def before_step(self) -> Scalars:
        """``clip``: factor that brings the global norm down to ``max_grad_norm``."""
        return {'clip': clip_factor(self.param_groups, self.foreach)}

    def coefficients(self, group: dict[str, Any], step: int) -> Scalars:
        """``u = scale * m / (sqrt(v) + eps)`` has the bias corrections in ``scale`` and ``eps``."""
        b1, b2 = group['betas']
        root = math.sqrt(1 - b2**step)
        return {
            'scale': root / (1 - b1**step),
            'eps': group['eps'] * root,
            'decay': group['weight_decay'],
            'step': -float(group['lr']),
        }

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: Any, c: Scalars, s: Scalars) -> None:
        """One buffer."""
        b1, b2 = s['betas']
        decayed, adapted = s['kind']
        m, v = state['exp_avg'], state['exp_avg_sq']
        if s['max_grad_norm']:
            u = torch._foreach_mul(grads, c['clip'])
            grads = u
        torch._foreach_lerp_(m, grads, 1 - b1)
        torch._foreach_mul_(v, b2)
        torch._foreach_addcmul_(v, grads, grads, value=1 - b2)
        if s['max_grad_norm']:
            torch._foreach_copy_(u, v)
            torch._foreach_sqrt_(u)
        else:
            u = torch._foreach_sqrt(v)
        add_number_(u, c['eps'])
        torch._foreach_reciprocal_(u)
        torch._foreach_mul_(u, m)
        torch._foreach_mul_(u, c['scale'])
        if decayed and s['decay']:
            add_scaled_(u, params, c['decay'])
        if adapted:
            torch._foreach_mul_(u, trust_ratio(params, u, s['trust_clip']))
        add_scaled_(params, u, c['step'])

    def update_block(self, block: Block, c: Scalars, s: Scalars) -> None:
        """With torch's Adam kernel, which writes ``u`` into a buffer that held ``decay p``."""
        params, grads, state = block
        m, v = state['exp_avg'], state['exp_avg_sq']
        if not kernels.take(params, grads, m, v):
            self.update(*block, c, s)
            return
        decayed, adapted = s['kind']
        numbers = (c['clip'], c['decay'] * decayed)
        clip, decay = (kernels.number(x, params[0]) for x in numbers)
        updates = self.scratch_like(params)
        squares = [(0.0, 0.0)] * len(params)  # of the norms of weights and updates
        for p, g, a, b, u in kernels.parts(params, grads, m, v, updates):
            if c['clip'] != 1.0:
                g, unclipped = self.scratch_like(g, 'clipped'), g
                for x, y in zip(unclipped, g):
                    torch.mul(x, clip, out=y)
            for x, y in zip(p, u):
                torch.mul(x, decay, out=y)
            kernels.adam_(u, g, (a, b), step=s['step'], lr=-1.0, betas=s['betas'], eps=s['eps'])
            if adapted:
                for k, (x, y) in enumerate(zip(p, u)):
                    squares[k] = squares[k][0] + square(x), squares[k][1] + square(y)
        for x, y, (ww, uu) in zip(params, updates, squares):
            ratio = (ww / uu) ** 0.5 if ww > 0 and uu > 0 else 1.0
            x.add_(y, alpha=c['step'] * (min(ratio, 1.0) if s['trust_clip'] else ratio))


def trust_ratio(params: Tensors, updates: Tensors, clip: bool) -> Tensors:
    """``|p| / |u|`` for each tensor, 0-dim, 1 where a norm is 0."""
    w, u = torch.stack(torch._foreach_norm(params)), torch.stack(torch._foreach_norm(updates))
    ratio = torch.where((w > 0) & (u > 0), w / u, 1.0)
    return list((ratio.clamp(max=1.0) if clip else ratio).unbind())
