"""Prodigy: Adam that finds its own rate, from how far the weights have come."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bocb_mm.optimizers.base import Call, MultiTensorOptimizer, Scalars, State, Tensors
from bocb_mm.optimizers.foreach import add_scaled_
from bocb_mm.optimizers.moments import update_moments_
from bocb_mm.optimizers.reductions import norms
from bocb_mm.optimizers.strict import require


class Prodigy(MultiTensorOptimizer):
    r"""Adam with the rate ``lr d``: ``d`` estimates the distance to the solution from below.

    With ``k = lr`` times Adam's bias correction where it is asked for, over all weights together::

        m = b1 m + (1-b1) d g;  v = b2 v + (1-b2) (d g)^2
        r = sqrt(b2) r + k d^2 <g, p_0 - p>;  s = sqrt(b2) s + k d^2 g
        p = p (1 - k d weight_decay) - k d m / (sqrt(v) + d eps)
        d = max(d, d_coef r / |s|_1)

    With ``safeguard_warmup`` ``s`` leaves out ``k``, or a warm-up would pass for a short distance:
    on, other than the authors have it, because the recipes here warm up. A group with another
    ``lr`` than the largest is Prodigy on its weights divided by that multiple. A step below the
    precision of the weights is no progress: keep them in single precision.

    Args:
        params: Parameters or groups.
        lr: Factor of the rate that is found; leave it, or let a schedule move it.
        betas: Decay rates of the moments.
        eps: Added to the denominator.
        weight_decay: Decoupled.
        d0: ``d`` of the first step; the first group's counts.
        d_coef: Factor of the estimate, the authors' choice of what to tune; the first group's.
        use_bias_correction: See above.
        safeguard_warmup: See above.
        d, d_numerator: ``d`` and ``r``, which the optimizer keeps here as tensors.
        foreach, compile: Execution mode, see :mod:`.base`.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1)); p.grad = torch.ones(1)
        >>> optimizer = Prodigy([p], d0=0.1)
        >>> optimizer.step(); optimizer.step(); round(optimizer.param_groups[0]['d'].item(), 3)
        0.158

    Source: Mishchenko & Defazio, Prodigy: an expeditiously adaptive parameter-free learner, ICML
    2024, Algorithm 4; ``d0`` as a unit of the sums and the options from the authors' code.
    """

    defaults = {
        'lr': 1.0,
        'betas': (0.9, 0.999),
        'eps': 1e-8,
        'weight_decay': 0.0,
        'd0': 1e-6,
        'd_coef': 1.0,
        'use_bias_correction': False,
        'safeguard_warmup': True,
        'd': None,
        'd_numerator': None,
    }
    elementwise = False
    joint = True
    ranges = {'d_coef': (0.0, math.inf)}

    @classmethod
    def check(cls, group: Mapping[str, Any]) -> None:
        """See the base class."""
        super().check(group)
        require(0 < group['d0'] < math.inf, 'd0', group['d0'], 'a number above 0')

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """Adam's moments, ``s``, and where the parameter started."""
        zeros = {name: torch.zeros_like(p) for name in ('exp_avg', 'exp_avg_sq', 's')}
        return zeros | {'p0': p.detach().clone()}

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """What needs no ``d``: step size, and the decay of the sums."""
        b1, b2 = group['betas']
        bias = math.sqrt(1 - b2**step) / (1 - b1**step) if group['use_bias_correction'] else 1.0
        return {'bias': bias, 'step': -group['lr'] * bias, 'old': math.sqrt(b2)}

    def prepare(self, calls: list[Call]) -> None:
        """Add this step to ``r``, and what depends on ``d`` to the coefficients."""
        if not calls:
            return
        first, device = self.param_groups[0], calls[0].params[0].device
        d, r = (
            number(start if first[name] is None else first[name], device)
            for name, start in (('d', first['d0']), ('d_numerator', 0.0))
        )
        r = r * math.sqrt(first['betas'][1])
        top = max(float(group['lr']) for group in self.param_groups)
        for call in calls:
            lr, bias = call.s['lr'], call.c['bias']
            here = number(d, call.params[0].device)
            unit = here / first['d0']
            share = (lr / top if top else 1.0) if call.s['safeguard_warmup'] else lr * bias
            call.c.update(
                d=here,
                share=unit * share,
                unscale=1 / here,
                shrink=1 - here * (lr * bias * call.s['weight_decay']),
            )
            inner = sum(inner_product(piece) for piece in self._pieces(call))
            r = r + number(unit * here * (top * bias) * inner, device)
        for group in self.param_groups:
            group['d'], group['d_numerator'] = d, r

    def finish(self, calls: list[Call]) -> None:
        """Estimate ``d`` anew; it never falls, and stays where there is no gradient at all."""
        if not calls:
            return
        d, r = (self.param_groups[0][name] for name in ('d', 'd_numerator'))
        length = sum(number(norms(call.state['s'], 1).sum(), d.device) for call in calls)
        found = self.param_groups[0]['d_coef'] * r / length
        d = torch.where(found > d, found, d)
        for group in self.param_groups:
            group['d'] = d

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """Two buffers. The roots are divided by ``d``, which then leaves ``eps`` and the step."""
        m, v, total = state['exp_avg'], state['exp_avg_sq'], state['s']
        u = torch._foreach_mul(grads, 1)  # keeps the dtype, also of 0-dim tensors
        torch._foreach_mul_(u, c['d'])
        update_moments_(m, v, u, s['betas'])
        torch._foreach_mul_(total, c['old'])
        add_scaled_(total, u, c['share'])
        del u
        u = torch._foreach_sqrt(v)
        torch._foreach_mul_(u, c['unscale'])
        torch._foreach_add_(u, s['eps'])
        torch._foreach_reciprocal_(u)
        torch._foreach_mul_(u, m)
        torch._foreach_mul_(params, c['shrink'])
        add_scaled_(params, u, c['step'])


def number(x: Any, device: torch.device) -> Tensor:
    """A 0-dim tensor in double precision on the device; nothing waits for it."""
    return torch.as_tensor(x, dtype=torch.float64).to(device, non_blocking=True)


def inner_product(call: Call) -> Tensor:
    """``<g, p_0 - p>`` over all parameters of a call, 0-dim.

    PyTorch has no sum of each of many tensors, but norms: of all, and of what is positive.
    """
    x = torch._foreach_sub(call.state['p0'], call.params)
    torch._foreach_mul_(x, call.grads)
    all_of_it = norms(x, 1).double().sum()
    torch._foreach_clamp_min_(x, 0.0)
    return 2 * norms(x, 1).double().sum() - all_of_it
