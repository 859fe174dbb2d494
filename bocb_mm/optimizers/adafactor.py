"""AdaFactor: a factored second moment."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bocb_mm.optimizers.multi_tensor import Batch, MultiTensorOptimizer, Scalars, Tensors
from bocb_mm.optimizers.rows import RowSpace, RowSpaceMixin
from bocb_mm.optimizers.strict import check_common, require


class AdaFactor(RowSpaceMixin, MultiTensorOptimizer):
    r"""Adam without momentum, its second moment kept as row and column means.

    For a matrix (rows first dimension, columns the rest: a kernel is (out, in*k*k)), with
    ``b = 1 - t^decay_rate``::

        r = b r + (1-b) mean_columns(g^2 + eps1);  c = b c + (1-b) mean_rows(g^2 + eps1)
        u = g / sqrt(r c / mean(r));  u = u / max(1, rms(u) / clip_threshold)
        p = p (1 - a weight_decay) - a u,   a = lr  or  lr max(eps2, rms(p)) with scale_parameter

    Parameters of at most one dimension keep the full second moment.

    Three algorithms share the name. This is the paper's with an explicit rate (no relative step).
    Departures from ``torch.optim.Adafactor`` and timm: kernels are factored as above, not over
    their last two dimensions (3 x 3), and ``scale_parameter`` is an argument, off by default, so
    that ``lr`` means what it means for Adam.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        beta1: Momentum of the update; ``None`` keeps none, as in the paper's main setting.
        decay_rate: Exponent of the second moment's decay, negative.
        eps1: Added to the squared gradient.
        eps2: Least scale of a parameter.
        clip_threshold: Largest root mean square of an update.
        weight_decay: Decoupled.
        scale_parameter: Multiply the rate with the root mean square of the parameter.
        foreach: ``None`` chooses by device.
        compile: Compile the step.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1, 1)); p.grad = torch.ones(1, 1)
        >>> AdaFactor([p], lr=0.5).step(); round(p.item(), 6)
        0.5

    Source: Shazeer & Stern, ICML 2018, Algorithm 4.
    """

    elementwise = False
    row_columns = True
    statics = ('beta1', 'eps1', 'eps2', 'clip_threshold', 'scale_parameter')

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        beta1: float | None = None,
        decay_rate: float = -0.8,
        eps1: float = 1e-30,
        eps2: float = 1e-3,
        clip_threshold: float = 1.0,
        weight_decay: float = 0.0,
        scale_parameter: bool = False,
        *,
        foreach: bool | None = None,
        compile: bool = False,
    ) -> None:
        check_common(lr, weight_decay, eps1)
        require(beta1 is None or 0 <= beta1 < 1, 'beta1', beta1, 'None or a number in [0, 1)')
        require(decay_rate < 0, 'decay_rate', decay_rate, 'a number below 0, e.g. -0.8')
        require(clip_threshold > 0, 'clip_threshold', clip_threshold, 'a number above 0')
        defaults = {
            'lr': lr,
            'beta1': beta1,
            'decay_rate': decay_rate,
            'eps1': eps1,
            'eps2': eps2,
            'clip_threshold': clip_threshold,
            'weight_decay': weight_decay,
            'scale_parameter': scale_parameter,
        }
        super().__init__(params, defaults, foreach, compile)

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """``row``, ``col``: means of the second moment, or all of it; momentum ``exp_avg``."""
        state = {} if group['beta1'] is None else {'exp_avg': torch.zeros_like(p)}
        if p.dim() > 1:
            state['row'] = p.new_zeros(p.shape[0])
            state['col'] = p.new_zeros(p.numel() // p.shape[0])
        else:
            state['exp_avg_sq'] = torch.zeros_like(p)
        return state

    def kind(self, p: Tensor, group: dict[str, Any]) -> Any:
        """Whether it is factored."""
        return p.dim() > 1

    def coefficients(self, group: dict[str, Any], step: int) -> Scalars:
        """Step size, decay, and the weight of the new squared gradient."""
        lr = float(group['lr'])
        return {
            'step': -lr,
            'shrink': lr * group['weight_decay'],
            'new': step ** group['decay_rate'],
        }

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: Any, c: Scalars, s: Scalars) -> None:
        """One tensor after the other; one buffer of a tensor's size."""
        for i, (p, g) in enumerate(zip(params, grads)):
            squared = g.square().add_(s['eps1'])
            if s['kind']:
                rows = squared.reshape(p.shape[0], -1)
                row, col = state['row'][i], state['col'][i]
                row.add_((rows.mean(1) - row) * c['new'])
                col.add_((rows.mean(0) - col) * c['new'])
                left = (row / row.mean()).rsqrt_().view(-1, *[1] * (p.dim() - 1))
                u = torch.mul(g, left, out=squared)
                u.mul_(col.rsqrt().view(p.shape[1:]))
            else:
                moment = state['exp_avg_sq'][i]
                moment.add_((squared - moment) * c['new'])
                u = torch.rsqrt(moment, out=squared).mul_(g)
            _descend_(p, u, state['exp_avg'][i] if 'exp_avg' in state else None, c, s)

    def update_grouped(self, batch: Batch, c: Scalars, s: Scalars) -> None:
        """All tensors at once; one flat buffer."""
        params, grads, state = batch
        momentum = state.get('exp_avg')
        if not s['kind']:
            u = torch._foreach_mul(grads, grads)
            torch._foreach_add_(u, s['eps1'])
            torch._foreach_lerp_(state['exp_avg_sq'], u, c['new'])
            torch._foreach_copy_(u, state['exp_avg_sq'])
            torch._foreach_rsqrt_(u)
            torch._foreach_mul_(u, grads)
            _descend_grouped_(params, u, momentum, c, s)
            return
        with self.row_space(params) as space:
            _write_factors(space, grads, state, c['new'], s['eps1'])
            torch._foreach_copy_(space.work, grads)
            torch._foreach_mul_(space.work, space.row_views)
            torch._foreach_mul_(space.work, space.column_views)
            _descend_grouped_(params, space.work, momentum, c, s)


def _write_factors(space: RowSpace, grads: Tensors, state: Any, new: float, eps: float) -> None:
    """Update row and column means; leave the factors of the update in the space."""
    means = []
    for views, key in ((space.work, 'row'), (space.turned, 'col')):
        torch._foreach_copy_(views, grads)
        torch._foreach_mul_(views, views)
        torch._foreach_add_(views, eps)
        if key == 'row':
            now = space.row_sums() / space.lengths
        else:
            now = space.column_sums() / space.column_lengths
        mean = torch.cat(state[key]).lerp_(now, new)
        torch._foreach_copy_(state[key], mean.split([len(t) for t in state[key]]))
        means.append(mean)
    row, column = means
    of_tensor = space.tensor_sums(row) / space.rows
    space.row_factor.copy_((row / of_tensor[space.owner]).rsqrt_())
    space.column_factor.copy_(column.rsqrt_())


def _descend_grouped_(
    params: Tensors, u: Tensors, momentum: Tensors | None, c: Scalars, s: Scalars
) -> None:
    """:func:`_descend_` on lists."""
    sizes = [p.numel() ** -0.5 for p in params]
    roots = torch.tensor(sizes, dtype=params[0].dtype, device=params[0].device)
    rms = torch.stack(torch._foreach_norm(u)) * (roots / s['clip_threshold'])
    factors = c['step'] / rms.clamp_(min=1.0)
    if s['scale_parameter']:
        scale = (torch.stack(torch._foreach_norm(params)) * roots).clamp_(min=s['eps2'])
        factors = factors * scale
    torch._foreach_mul_(u, factors.unbind())
    if momentum is not None:
        torch._foreach_lerp_(momentum, u, 1 - s['beta1'])
        u = momentum
    if s['decay'] and s['scale_parameter']:
        torch._foreach_mul_(params, (1 - c['shrink'] * scale).unbind())
    elif s['decay']:
        torch._foreach_mul_(params, 1 - c['shrink'])
    torch._foreach_add_(params, u)


def _descend_(p: Tensor, u: Tensor, momentum: Tensor | None, c: Scalars, s: Scalars) -> None:
    """Clip the update, scale it with the rate, average it where asked, shrink and step."""
    size = p.numel() ** 0.5
    scale: Any = 1.0
    if s['scale_parameter']:
        scale = (torch.linalg.vector_norm(p) / size).clamp(min=s['eps2'])
    rms = torch.linalg.vector_norm(u) / size
    u.mul_(c['step'] * scale / (rms / s['clip_threshold']).clamp(min=1.0))
    if momentum is not None:
        u = momentum.lerp_(u, 1 - s['beta1'])
    if s['decay']:
        p.mul_(1 - c['shrink'] * scale)
    p.add_(u)
