"""LARS: SGD with momentum and a layer-wise trust ratio."""

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
from bocb_mm.optimizers.strict import check_common, require


class LARS(MultiTensorOptimizer):
    r"""Momentum on gradients that are scaled to the norm of each layer's weights.

    ::

        r = trust |p| / (|g| + weight_decay |p| + eps)      (1 where |p| or |g| is 0)
        b = momentum b + r (g + weight_decay p);  p -= lr b

    Which parameters take part is explicit and does not depend on their decay: a group with
    ``adapt=False`` has ratio 1, and ``exclude_1d`` leaves parameters of at most one dimension
    (norm, bias) without decay and with ratio 1.

    Departure from the paper: the rate stands outside the buffer, as torch's SGD has it, so that a
    schedule acts at once (the paper's form is ``b = momentum b + lr r (...)``).

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        momentum: Momentum.
        weight_decay: Inside the trust ratio.
        trust_coefficient: Size of a layer's step relative to its weights, before the rate.
        eps: Added to the denominator of the ratio.
        nesterov: Look ahead along the buffer.
        adapt: Whether the trust ratio applies; meant to be set by group. ``adapt=False`` for all is
            plain SGD with momentum, which is what LARS with its default arguments is in the code
            base of the paper's authors (openmixup); whether the paper's rows were made so is not
            known.
        exclude_1d: See above.
        foreach: ``None`` chooses by device.
        compile: Compile the step.

    Example:
        >>> p = torch.nn.Parameter(torch.full((1, 1), 2.0)); p.grad = torch.ones(1, 1)
        >>> LARS([p], lr=1.0).step(); round(p.item(), 6)
        1.998

    Source: You et al., Large batch training of convolutional networks, arXiv 1708.03888, Algorithm
    1.
    """

    elementwise = False
    statics = ('momentum', 'trust_coefficient', 'eps', 'nesterov', 'weight_decay')

    ranges = {'momentum': (0.0, 1.0)}

    def __init__(
        self,
        params: Any,
        lr: float = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        eps: float = 1e-8,
        nesterov: bool = False,
        adapt: bool = True,
        exclude_1d: bool = True,
        *,
        foreach: bool | None = None,
        compile: bool = False,
    ) -> None:
        check_common(lr, weight_decay, eps)
        require(0 <= momentum < 1, 'momentum', momentum, 'a number in [0, 1)')
        require(trust_coefficient > 0, 'trust_coefficient', trust_coefficient, 'above 0')
        require(momentum > 0 or not nesterov, 'momentum', momentum, 'above 0 with nesterov=True')
        defaults = {
            'lr': lr,
            'momentum': momentum,
            'weight_decay': weight_decay,
            'trust_coefficient': trust_coefficient,
            'eps': eps,
            'nesterov': nesterov,
            'adapt': adapt,
            'exclude_1d': exclude_1d,
        }
        super().__init__(params, defaults, foreach, compile)

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """``momentum_buffer``."""
        return {'momentum_buffer': torch.zeros_like(p)}

    def kind(self, p: Tensor, group: dict[str, Any]) -> Any:
        """Whether it is decayed, whether it is adapted."""
        excluded = group['exclude_1d'] and p.dim() <= 1
        return not excluded, group['adapt'] and not excluded

    def coefficients(self, group: dict[str, Any], step: int) -> Scalars:
        """Step size."""
        return {'step': -float(group['lr'])}

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: Any, c: Scalars, s: Scalars) -> None:
        """One buffer."""
        decayed, adapted = s['kind']
        decay = s['weight_decay'] if decayed else 0.0
        buffer, momentum = state['momentum_buffer'], s['momentum']
        scaled = torch._foreach_add(grads, params, alpha=decay) if decay else grads
        if adapted:
            ratios = _trust_ratio(params, grads, decay, s)
            if decay:
                torch._foreach_mul_(scaled, ratios)
            else:
                scaled = torch._foreach_mul(grads, ratios)
        torch._foreach_mul_(buffer, momentum)
        torch._foreach_add_(buffer, scaled)
        if s['nesterov']:
            add_scaled_(params, scaled, c['step'])
            add_scaled_(params, buffer, c['step'] * momentum)
        else:
            add_scaled_(params, buffer, c['step'])

    def update_block(self, block: Block, c: Scalars, s: Scalars) -> None:
        """With torch's SGD kernel, tensor by tensor where each has a ratio of its own."""
        params, grads, state = block
        buffer = state['momentum_buffer']
        if s['nesterov'] or not kernels.take(params, grads, buffer):
            self.update(*block, c, s)
            return
        decayed, adapted = s['kind']
        decay = s['weight_decay'] if decayed else 0.0
        how = {'lr': -c['step'], 'momentum': s['momentum'], 'weight_decay': decay}
        if not adapted:
            kernels.sgd_(params, grads, buffer, **how)
            return
        for p, g, b, ratio in zip(params, grads, buffer, _trust_ratio(params, grads, decay, s)):
            kernels.sgd_([p], [g], [b], scale=ratio.item(), **how)


def _trust_ratio(params: Tensors, grads: Tensors, decay: float, s: Scalars) -> Tensors:
    """``trust |p| / (|g| + decay |p| + eps)`` for each tensor, 0-dim, 1 where a norm is 0."""
    w, g = torch.stack(torch._foreach_norm(params)), torch.stack(torch._foreach_norm(grads))
    ratio = s['trust_coefficient'] * w / (g + decay * w + s['eps'])
    return list(torch.where((w > 0) & (g > 0), ratio, 1.0).unbind())
