"""Schedule-free SGD and AdamW: an average of the weights in place of a schedule of the rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bocb_mm.optimizers.base import MultiTensorOptimizer, Scalars, State, Tensors
from bocb_mm.optimizers.foreach import add_scaled_, operand, plus_scaled
from bocb_mm.optimizers.moments import adam_coefficients
from bocb_mm.optimizers.strict import SettingError, require


class ScheduleFree(MultiTensorOptimizer):
    """What both have in common: three points, of which the parameters hold one.

    Gradients are taken at ``y``, which the parameters are in :meth:`train`; the average ``x`` is to
    evaluate and to save, which they are in :meth:`eval`; ``z`` is the state::

        z = z - a u;  x = (1-c) x + c z;  y = (1-b) z + b x

    with ``a`` the rate, in the first ``warmup_steps`` a growing part of it, and ``c`` the share of
    the step's ``a^2`` in the sum of all. The rate is meant to be constant.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give the class the settings that both have."""
        cls.defaults = cls.defaults | {'warmup_steps': 0, 'train_mode': True}
        super().__init_subclass__(**kwargs)

    @classmethod
    def check(cls, group: Mapping[str, Any]) -> None:
        """See the base class."""
        super().check(group)
        value, b = group['warmup_steps'], momentum_of(group)
        require(type(value) is int and value >= 0, 'warmup_steps', value, 'a number of steps')
        key = 'momentum' if 'momentum' in group else 'betas'
        require(0 < b < 1, key, group[key], 'a momentum between 0 and 1, without them')

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """``z``, and the second moment where there is one."""
        return {'z': p.detach().clone(), **super().init_state(p, group)}

    def train(self) -> None:
        """Put ``y`` into the parameters, where they hold ``x``."""
        self._move(True, lambda b: 1 - b)

    def eval(self) -> None:
        """Put ``x`` into the parameters, where they hold ``y``."""
        self._move(False, lambda b: 1 - 1 / b)

    @torch.no_grad()
    def _move(self, train: bool, share: Any) -> None:
        for group in self.param_groups:
            if group['train_mode'] == train:
                continue
            pairs = [(p, self.state[p]['z']) for p in group['params'] if 'z' in self.state[p]]
            for p, z in pairs:
                p.lerp_(z, share(momentum_of(group)))
            group['train_mode'] = train

    def step(self, closure: Any = None) -> Any:
        """As every optimizer's.

        Raises:
            SettingError: The parameters hold ``x``.
        """
        if not all(group['train_mode'] for group in self.param_groups):
            name = type(self).__name__
            raise SettingError(f"{name}: a step in eval mode; call the optimizer's train() first")
        return super().step(closure)

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """Rate of the step, shares of ``y`` and ``z``, and the step of ``y``."""
        warm, b = group['warmup_steps'], momentum_of(group)
        part = min(1.0, step / warm) if warm else 1.0
        n = min(step, warm)
        total = n * (n + 1) * (2 * n + 1) / 6 / warm**2 + step - n if warm else step
        mix = part**2 / total
        rate = group['lr'] * part
        return {'z': -rate, 'mix': mix, 'keep': 1 - mix, 'y': rate * (b * (1 - mix) - 1)}


def momentum_of(group: Mapping[str, Any]) -> float:
    """``b``: the part of ``x`` in ``y``."""
    return group['momentum'] if 'momentum' in group else group['betas'][0]


def move_(params: Tensors, u: Tensors, z: Tensors, c: Scalars) -> None:
    """``y`` towards ``z``, and both against ``u``."""
    torch._foreach_mul_(params, c['keep'])
    add_scaled_(params, z, c['mix'])
    add_scaled_(params, u, c['y'])
    add_scaled_(z, u, c['z'])


class ScheduleFreeSGD(ScheduleFree):
    """Schedule-free SGD: ``u = g + weight_decay y`` in :class:`ScheduleFree`.

    Args:
        params: Parameters or groups.
        lr: Learning rate, constant; about 10 times SGD's, whose momentum adds up to as much.
        momentum: ``b``.
        weight_decay: Coupled, at ``y``.
        warmup_steps: Steps in which the rate grows.
        train_mode: Which point the parameters hold; :meth:`train` and :meth:`eval` set it.
        foreach, compile: Execution mode, see :mod:`.base`.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1)); p.grad = torch.ones(1)
        >>> ScheduleFreeSGD([p], lr=0.5).step(); p.item()
        0.5

    Source: Defazio et al., The road less scheduled, NeurIPS 2024, eq. 3-5.
    """

    defaults = {'lr': 1.0, 'momentum': 0.9, 'weight_decay': 0.0}

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """The base's, and the decay."""
        return ScheduleFree.coefficients(group, step) | {'decay': group['weight_decay']}

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """One buffer."""
        move_(params, plus_scaled(grads, params, c['decay']), state['z'], c)


class ScheduleFreeAdamW(ScheduleFree):
    """Schedule-free AdamW: ``u = g / (sqrt(v / (1-b2^t)) + eps) + weight_decay y``.

    Args:
        params: Parameters or groups.
        lr: Learning rate, constant.
        betas: ``b`` of :class:`ScheduleFree`, and the decay of the second moment.
        eps: Added to the denominator.
        weight_decay: Decoupled, at ``y``.
        warmup_steps: Steps in which the rate grows.
        train_mode: Which point the parameters hold; :meth:`train` and :meth:`eval` set it.
        foreach, compile: Execution mode, see :mod:`.base`.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1)); p.grad = torch.ones(1)
        >>> ScheduleFreeAdamW([p], lr=0.5).step(); round(p.item(), 6)
        0.5

    Source: Defazio et al., The road less scheduled, NeurIPS 2024, Algorithm 1.
    """

    defaults = {'lr': 2.5e-3, 'betas': (0.9, 0.999), 'eps': 1e-8, 'weight_decay': 0.0}
    state_names = ('exp_avg_sq',)

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """The base's, those of the second moment, and the decay."""
        root = (1 - group['betas'][1] ** step) ** 0.5
        adam = {'root': root, 'eps_root': adam_coefficients(group, step)['eps_root']}
        return ScheduleFree.coefficients(group, step) | adam | {'decay': group['weight_decay']}

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """One buffer."""
        v, b2 = state['exp_avg_sq'], s['betas'][1]
        torch._foreach_mul_(v, b2)
        torch._foreach_addcmul_(v, grads, grads, value=1 - b2)
        u = torch._foreach_sqrt(v)
        torch._foreach_add_(u, operand(c['eps_root'], u))
        torch._foreach_reciprocal_(u)
        torch._foreach_mul_(u, grads)
        torch._foreach_mul_(u, c['root'])
        add_scaled_(u, params, c['decay'])
        move_(params, u, state['z'], c)
