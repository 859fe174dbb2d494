"""Sophia-G: momentum over a diagonal Hessian estimate, clipped."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
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

HESSIANS = ('gnb', 'none')


class Sophia(kernels.ScratchMixin, MultiTensorOptimizer):
    r"""Clipped second-order step with the Gauss-Newton-Bartlett estimate of the Hessian's diagonal.

    ::

        m = b1 m + (1-b1) g
        h = b2 h + (1-b2) B ghat^2                  (every k steps, by update_hessian)
        p = p (1 - lr weight_decay) - lr clip(m / max(rho h, eps), -1, 1)

    ``ghat`` is the gradient of the mean loss on labels drawn from the model's own output and ``B``
    the batch size over all processes. The optimizer cannot make that gradient: with mmengine
    ``bocb_mm.SophiaOptimWrapper`` does; in a plain loop, every ``k`` steps, clear the gradients,
    run the extra backward pass and call :meth:`update_hessian`. Nothing calls it: every weight
    moves by ``lr`` (sign momentum), and a warning says so.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: Decay rates of the momentum and of the Hessian.
        rho: Scale of the Hessian; larger clips less.
        eps: Least denominator.
        weight_decay: Decoupled.
        hessian: ``'gnb'`` expects :meth:`update_hessian`. ``'none'`` keeps the Hessian at 0, so
            that every weight moves by exactly ``lr``: what happens in the code base of the paper's
            authors (openmixup), where nothing updates it.
        foreach: ``None`` chooses by device.
        compile: Compile the step.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1)); p.grad = torch.ones(1)
        >>> opt = Sophia([p], lr=0.5); opt.update_hessian(batch_size=1000); opt.step()
        >>> round(p.item(), 6)      # m / (rho h) = 0.035 / 0.4
        0.95625

    Source: Liu et al., Sophia, arXiv 2305.14342, Algorithms 2 and 3.
    """

    statics = ('betas',)
    PATIENCE = 20
    """Steps without a Hessian after which the warning comes; twice the paper's k."""

    _warned = False

    ranges = {'rho': (0.0, math.inf)}

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.965, 0.99),
        rho: float = 0.04,
        eps: float = 1e-12,
        weight_decay: float = 0.0,
        hessian: str = 'gnb',
        *,
        foreach: bool | None = None,
        compile: bool = False,
    ) -> None:
        check_common(lr, weight_decay, eps)
        check_betas(betas, 2)
        require(rho > 0, 'rho', rho, 'a number above 0')
        require(eps > 0, 'eps', eps, 'a number above 0')
        require(hessian in HESSIANS, 'hessian', hessian, f'one of {", ".join(HESSIANS)}')
        defaults = {
            'lr': lr,
            'betas': betas,
            'rho': rho,
            'eps': eps,
            'weight_decay': weight_decay,
            'hessian': hessian,
            'hessian_updates': 0,
        }
        super().__init__(params, defaults, foreach, compile)

    @property
    def hessian(self) -> str:
        """``'gnb'`` or ``'none'``, see the arguments."""
        return self.param_groups[0]['hessian']

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """``exp_avg``: momentum, ``hessian``: diagonal estimate."""
        return {'exp_avg': torch.zeros_like(p), 'hessian': torch.zeros_like(p)}

    @torch.no_grad()
    def update_hessian(self, batch_size: int) -> None:
        """Take the gradients that stand in ``.grad`` as a sample of the Hessian's diagonal.

        Call it after a backward pass of the mean loss on sampled labels, with AMP's scale removed
        and DDP's average taken, and clear the gradients before the next training pass.

        Args:
            batch_size: Samples the mean was taken over, all processes together.

        Raises:
            SettingError: ``batch_size`` below 1, or the optimizer was built with
                ``hessian='none'``.
        """
        require(batch_size >= 1, 'batch_size', batch_size, 'at least 1')
        require(self.hessian != 'none', 'hessian', self.hessian, "'gnb' to update the Hessian")
        for group in self.param_groups:
            group['hessian_updates'] += 1
            b2 = group['betas'][1]
            for batch in self._batches(group, advance=False):
                hessian = batch.state['hessian']
                torch._foreach_mul_(hessian, b2)
                torch._foreach_addcmul_(
                    hessian, batch.grads, batch.grads, value=(1 - b2) * batch_size
                )

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; warn once where nothing feeds the Hessian."""
        loss = super().step(closure)
        if not self._warned and self._starved():
            self._warned = True
            warnings.warn(
                f'Sophia has had no update_hessian() in {self.PATIENCE} steps: sign momentum. '
                "Use optim_wrapper type 'bocb_mm.SophiaOptimWrapper', or hessian='none' if meant",
                stacklevel=2,
            )
        return loss

    def _starved(self) -> bool:
        group = self.param_groups[0]
        if group['hessian'] == 'none' or group['hessian_updates'] or not group['params']:
            return False
        return self.state[group['params'][0]].get('step', 0) >= self.PATIENCE

    def coefficients(self, group: dict[str, Any], step: int) -> Scalars:
        """Step size, shrink factor, scale and least value of the denominator."""
        lr = float(group['lr'])
        return {
            'step': -lr,
            'shrink': 1 - lr * group['weight_decay'],
            'decay': group['weight_decay'],
            'rho': group['rho'],
            'eps': group['eps'],
        }

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: Any, c: Scalars, s: Scalars) -> None:
        """One buffer."""
        m = state['exp_avg']
        torch._foreach_lerp_(m, grads, 1 - s['betas'][0])
        ratio = torch._foreach_mul(state['hessian'], c['rho'])
        clamp_(ratio, c['eps'], None)
        torch._foreach_reciprocal_(ratio)
        torch._foreach_mul_(ratio, m)
        clamp_(ratio, -1.0, 1.0)
        if s['decay']:
            torch._foreach_mul_(params, c['shrink'])
        add_scaled_(params, ratio, c['step'])

    def update_block(self, block: Block, c: Scalars, s: Scalars) -> None:
        """SGD, by torch's kernel, along the ratio."""
        params, grads, state = block
        moments = state['exp_avg'], state['hessian']
        if not kernels.take(params, grads, *moments):
            self.update(*block, c, s)
            return
        rho = kernels.number(c['rho'], params[0])
        ratios = self.scratch_like(params)
        for g, m, h, ratio in zip(grads, *moments, ratios):
            m.lerp_(g, 1 - s['betas'][0])
            torch.mul(h, rho, out=ratio)
            ratio.clamp_(min=c['eps'])
            torch.div(m, ratio, out=ratio)
            ratio.clamp_(-1.0, 1.0)
        kernels.sgd_(params, ratios, [], lr=-c['step'], momentum=0, weight_decay=c['decay'])
