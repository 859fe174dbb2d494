"""AdaBound: Adam whose rate per weight is clipped to bounds that close in on SGD's."""

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
    add_scaled_,
    clamp_,
)
from bocb_mm.optimizers.strict import check_betas, check_common, require


class AdaBound(kernels.ScratchMixin, MultiTensorOptimizer):
    r"""Adam with dynamic bounds on the rate of each weight.

    ::

        m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  f = final_lr lr / base_lr
        r = lr sqrt(1-b2^t) / (1-b1^t) / (sqrt(v) + eps)
        r = clip(r, f (1 - 1/(gamma t + 1)), f (1 + 1/(gamma t)))
        p = p (1 - lr weight_decay) - r m

    ``base_lr`` is the group's rate when it was made. It is kept in the group, so that a schedule
    moves the bounds along and a checkpoint keeps them. With ``base_lr`` 0, ``f`` is ``final_lr``
    once the rate is above 0.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: Decay rates of the moments.
        final_lr: Rate that both bounds approach.
        gamma: Speed at which they do.
        eps: Added to the denominator.
        weight_decay: Decoupled as in Table A2 of the BOCB paper.
        decoupled_weight_decay: False adds the decay to the gradient, as AdaBound's authors do.
        base_lr: ``None`` takes each group's ``lr``.
        foreach: ``None`` chooses by device.
        compile: Compile the step.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1)); p.grad = torch.ones(1)
        >>> AdaBound([p], lr=0.5).step(); round(p.item(), 4)
        0.5

    Source: Luo et al., ICLR 2019, Algorithm 2.
    """

    statics = ('betas', 'decoupled_weight_decay')

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        final_lr: float = 0.1,
        gamma: float = 1e-3,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = True,
        base_lr: float | None = None,
        *,
        foreach: bool | None = None,
        compile: bool = False,
    ) -> None:
        check_common(lr, weight_decay, eps)
        check_betas(betas, 2)
        require(final_lr >= 0, 'final_lr', final_lr, 'a number of at least 0')
        require(0 < gamma < 1, 'gamma', gamma, 'a number in (0, 1)')
        defaults = {
            'lr': lr,
            'betas': betas,
            'final_lr': final_lr,
            'gamma': gamma,
            'eps': eps,
            'weight_decay': weight_decay,
            'decoupled_weight_decay': decoupled_weight_decay,
            'base_lr': base_lr,
        }
        super().__init__(params, defaults, foreach, compile)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group and note its rate as ``base_lr``."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group['base_lr'] is None:
            group['base_lr'] = float(group['lr'])

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """``exp_avg``, ``exp_avg_sq``: moments."""
        return {'exp_avg': torch.zeros_like(p), 'exp_avg_sq': torch.zeros_like(p)}

    def coefficients(self, group: dict[str, Any], step: int) -> Scalars:
        """Step size and bounds."""
        b1, b2 = group['betas']
        lr, base, gamma = float(group['lr']), group['base_lr'], group['gamma']
        final = group['final_lr'] * (lr / base if base else float(lr > 0))
        rate = lr * math.sqrt(1 - b2**step) / (1 - b1**step)
        lower, upper = final * (1 - 1 / (gamma * step + 1)), final * (1 + 1 / (gamma * step))
        return {
            'step': rate,
            'eps': group['eps'],
            'lower': lower,
            'upper': upper,
            # the same bounds on the denominator; where both are 0, it is infinite
            'least': rate / upper if upper else math.inf,
            'most': rate / lower if lower else math.inf,
            'shrink': 1 - lr * group['weight_decay'],
            'decay': group['weight_decay'],
        }

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: Any, c: Scalars, s: Scalars) -> None:
        """One buffer."""
        b1, b2 = s['betas']
        m, v = state['exp_avg'], state['exp_avg_sq']
        work = None
        if s['decay'] and not s['decoupled_weight_decay']:
            work = torch._foreach_mul(params, c['decay'])
            torch._foreach_add_(work, grads)
            grads = work
        torch._foreach_lerp_(m, grads, 1 - b1)
        torch._foreach_mul_(v, b2)
        torch._foreach_addcmul_(v, grads, grads, value=1 - b2)
        if work is None:
            work = torch._foreach_sqrt(v)
        else:
            torch._foreach_copy_(work, v)
            torch._foreach_sqrt_(work)
        torch._foreach_add_(work, c['eps'])
        torch._foreach_reciprocal_(work)
        torch._foreach_mul_(work, c['step'])
        clamp_(work, c['lower'], c['upper'])
        torch._foreach_mul_(work, m)
        if s['decay'] and s['decoupled_weight_decay']:
            torch._foreach_mul_(params, c['shrink'])
        add_scaled_(params, work, -1)

    def update_block(self, block: Block, c: Scalars, s: Scalars) -> None:
        """Bounds on the denominator instead, and its root as ``1 / rsqrt``, twice as fast."""
        params, grads, state = block
        b1, b2 = s['betas']
        m, v = state['exp_avg'], state['exp_avg_sq']
        if not kernels.take(params, grads, m, v):
            self.update(*block, c, s)
            return
        coupled = s['decay'] and not s['decoupled_weight_decay']
        numbers = (b2, c['eps'], c['shrink'])
        keep, eps, shrink = (kernels.number(x, params[0]) for x in numbers)
        works = self.shared_scratch(params)
        for p, g, mean, square, work in zip(params, grads, m, v, works):
            if coupled:
                g = torch.add(g, p, alpha=c['decay'], out=work)
            mean.lerp_(g, 1 - b1)
            square.mul_(keep).addcmul_(g, g, value=1 - b2)
            torch.rsqrt(square, out=work).reciprocal_()
            work.add_(eps).clamp_(c['least'], c['most'])
            if s['decay'] and not coupled:
                p.mul_(shrink)
            p.addcdiv_(mean, work, value=-c['step'])
