"""Sophia-G: momentum over a diagonal Hessian estimate, clipped."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from bocb_mm.optimizers.base import MultiTensorOptimizer, Scalars, State, Tensors
from bocb_mm.optimizers.foreach import add_scaled_
from bocb_mm.optimizers.sharding import local
from bocb_mm.optimizers.strict import require, with_gradient

HESSIANS = ('gnb', 'none')


class Sophia(MultiTensorOptimizer):
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
        hessian_updates: How many estimates have gone in; a group counts them.
        foreach, compile: Execution mode, see :mod:`.base`.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1)); p.grad = torch.ones(1)
        >>> opt = Sophia([p], lr=0.5); opt.update_hessian(batch_size=1000); opt.step()
        >>> round(p.item(), 6)      # m / (rho h) = 0.035 / 0.4
        0.95625

    Source: Liu et al., Sophia, arXiv 2305.14342, Algorithms 2 and 3.
    """

    defaults = {
        'lr': 1e-4,
        'betas': (0.965, 0.99),
        'rho': 0.04,
        'eps': 1e-12,
        'weight_decay': 0.0,
        'hessian': 'gnb',
        'hessian_updates': 0,
    }
    state_names = ('exp_avg', 'hessian')
    ranges = {'rho': (0.0, math.inf)}

    PATIENCE = 20
    """Steps without a Hessian after which the warning comes; twice the paper's k."""

    _warned = False

    @classmethod
    def check(cls, group: Mapping[str, Any]) -> None:
        """See the base class."""
        super().check(group)
        for name in ('rho', 'eps'):
            require(group[name] > 0, name, group[name], 'a number above 0')
        expected = f'one of {", ".join(HESSIANS)}'
        require(group['hessian'] in HESSIANS, 'hessian', group['hessian'], expected)

    @property
    def hessian(self) -> str:
        """``'none'`` where all groups are without a Hessian, else ``'gnb'``; see the arguments."""
        return 'gnb' if self._groups_with_hessian() else 'none'

    def _groups_with_hessian(self) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group['hessian'] != 'none']

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
        groups = self._groups_with_hessian()
        require(bool(groups), 'hessian', 'none', "'gnb' to update the Hessian")
        for group, params in [(group, list(with_gradient(group))) for group in groups]:
            if not params:
                continue
            group['hessian_updates'] += 1
            b2 = group['betas'][1]
            hessian = [local(self.state_of(p, group)['hessian']) for p in params]
            grads = [local(p.grad, p) for p in params]
            torch._foreach_mul_(hessian, b2)
            torch._foreach_addcmul_(hessian, grads, grads, value=(1 - b2) * batch_size)

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
        """Whether a group that expects a Hessian has taken many steps without."""
        for group in self._groups_with_hessian():
            steps = (self.state[p].get('step', 0) for p in group['params'][:1])
            if not group['hessian_updates'] and max(steps, default=0) >= self.PATIENCE:
                return True
        return False

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """Step size and shrink factor."""
        return {'step': -group['lr'], 'shrink': 1 - group['lr'] * group['weight_decay']}

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """One buffer."""
        m = state['exp_avg']
        torch._foreach_lerp_(m, grads, 1 - s['betas'][0])
        ratio = torch._foreach_mul(state['hessian'], s['rho'])
        torch._foreach_clamp_min_(ratio, s['eps'])
        torch._foreach_reciprocal_(ratio)
        torch._foreach_mul_(ratio, m)
        torch._foreach_clamp_min_(ratio, -1.0)
        torch._foreach_clamp_max_(ratio, 1.0)
        torch._foreach_mul_(params, c['shrink'])
        add_scaled_(params, ratio, c['step'])
