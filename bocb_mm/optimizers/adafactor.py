"""AdaFactor: a factored second moment."""

from __future__ import annotations

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
    square,
)
from bocb_mm.optimizers.rows import RowSpace, RowSpaceMixin, reduce_segments, repeated
from bocb_mm.optimizers.strict import check_common, require


class FactorSpace(RowSpace):
    """With one number a column: ``column_factor``, by tensor ``column_numbers`` and ``_views``.

    The tensors have two or more dimensions; all but the first are the columns together.
    """

    def __init__(self, params: Tensors) -> None:
        super().__init__(params)
        widths = [n for part in self.parts for n in part.widths]
        self.column_factor = params[0].new_empty(sum(widths))
        self.column_numbers = self.unordered(self.column_factor.split(widths))
        self.column_views = [x.view(p.shape[1:]) for x, p in zip(self.column_numbers, params)]
        self._turned = [
            [_turned(piece, p) for piece, p in zip(part.pieces, part.of(params))]
            for part in self.parts
        ]
        self._lengths = [repeated(part.counts, part.widths, params[0]) for part in self.parts]
        self._columns = self.column_factor.split([sum(part.widths) for part in self.parts])
        self._rows = [part.own_rows(self.row_factor) for part in self.parts]

    def write_factors(self, grads: Tensors, state: Any, new: float, eps: float) -> None:
        """Update row and column means; leave the factors of the update in the space."""
        for k, part in enumerate(self.parts):
            own = part.of(grads)
            torch._foreach_copy_(part.work, own)
            torch._foreach_mul_(part.work, own)
            part.reduce_rows('mean', out=self._rows[k])
            torch._foreach_copy_(self._turned[k], own)
            torch._foreach_mul_(self._turned[k], own)
            reduce_segments(
                part.flat, 'mean', lengths=self._lengths[k], unsafe=True, out=self._columns[k]
            )
        row, column = self.row_factor, self.column_factor
        for means, numbers, moments in (
            (row, self.row_numbers, state['row']),
            (column, self.column_numbers, state['col']),
        ):
            means.add_(eps)
            torch._foreach_lerp_(moments, numbers, new)
            torch._foreach_copy_(numbers, moments)
        of_tensor = torch.segment_reduce(row, 'mean', lengths=self.rows, unsafe=True)
        row.div_(of_tensor.index_select(0, self.owner)).rsqrt_()
        column.rsqrt_()


def _turned(piece: Tensor, p: Tensor) -> Tensor:
    """A view of ``piece`` with the shape of ``p`` in which a column of ``p`` lies in one piece."""
    n = p.shape[0]
    strides = [s * n for s in torch.empty(p.shape[1:], device='meta').stride()]
    return piece.as_strided(p.shape, (1, *strides), piece.storage_offset())


class AdaFactor(kernels.ScratchMixin, RowSpaceMixin, MultiTensorOptimizer):
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
    space_class = FactorSpace
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

    def update_block(self, block: Block, c: Scalars, s: Scalars) -> None:
        """Tensor by tensor on kept memory; torch's SGD kernel shrinks and steps in one pass."""
        params, grads, state = block
        dense = all(t.is_contiguous() for t in (*params, *grads))
        if not dense or not kernels.take(params, grads):
            self.update(*block, c, s)
            return
        for i, (p, g, u) in enumerate(zip(params, grads, self.shared_scratch(params))):
            if s['kind']:
                rows, work = g.view(p.shape[0], -1), u.view(p.shape[0], -1)
                torch.mul(rows, rows, out=work)
                row, col = state['row'][i], state['col'][i]
                row.lerp_(work.mean(1).add_(s['eps1']), c['new'])
                col.lerp_(work.mean(0).add_(s['eps1']), c['new'])
                torch.outer((row / row.mean()).rsqrt_(), col.rsqrt(), out=work)
            else:
                moment = state['exp_avg_sq'][i]
                moment.lerp_(torch.mul(g, g, out=u).add_(s['eps1']), c['new'])
                torch.rsqrt(moment, out=u)
            momentum = state['exp_avg'][i] if 'exp_avg' in state else None
            _descend_dense_(p, u.mul_(g), momentum, c, s)

    def update_grouped(self, batch: Batch, c: Scalars, s: Scalars) -> None:
        """All tensors at once; a flat buffer for half of them."""
        params, grads, state = batch
        momentum = state.get('exp_avg')
        if not s['kind']:
            squared = torch._foreach_mul(grads, grads)
            torch._foreach_add_(squared, s['eps1'])
            torch._foreach_lerp_(state['exp_avg_sq'], squared, c['new'])
            del squared  # gives its memory to the next list
            u = torch._foreach_rsqrt(state['exp_avg_sq'])
            torch._foreach_mul_(u, grads)
            _descend_grouped_(params, u, momentum, c, s)
            return
        with self.row_space(params) as space:
            space.write_factors(grads, state, c['new'], s['eps1'])
            for part in space.parts:
                torch._foreach_copy_(part.work, part.of(grads))
                torch._foreach_mul_(part.work, part.of(space.row_views))
                torch._foreach_mul_(part.work, part.of(space.column_views))
                moments = part.of(momentum) if momentum else None
                _descend_grouped_(part.of(params), part.work, moments, c, s)


def _descend_grouped_(
    params: Tensors, u: Tensors, momentum: Tensors | None, c: Scalars, s: Scalars
) -> None:
    """:func:`_descend_` on lists."""
    roots = [p.numel() ** -0.5 for p in params]
    factors = torch._foreach_norm(u)
    torch._foreach_mul_(factors, [root / s['clip_threshold'] for root in roots])
    torch._foreach_clamp_min_(factors, 1.0)
    torch._foreach_reciprocal_(factors)
    torch._foreach_mul_(factors, c['step'])
    if s['scale_parameter']:
        scale = torch._foreach_norm(params)
        torch._foreach_mul_(scale, roots)
        torch._foreach_clamp_min_(scale, s['eps2'])
        torch._foreach_mul_(factors, scale)
    torch._foreach_mul_(u, factors)
    if momentum is not None:
        torch._foreach_lerp_(momentum, u, 1 - s['beta1'])
        u = momentum
    if s['decay'] and s['scale_parameter']:
        torch._foreach_mul_(scale, -c['shrink'])
        torch._foreach_add_(scale, 1.0)
        torch._foreach_mul_(params, scale)
    elif s['decay']:
        torch._foreach_mul_(params, 1 - c['shrink'])
    torch._foreach_add_(params, u)


def _descend_dense_(p: Tensor, u: Tensor, momentum: Tensor | None, c: Scalars, s: Scalars) -> None:
    """:func:`_descend_` for float32 and float64 in one piece on a CPU."""
    scale = max((square(p) / p.numel()) ** 0.5, s['eps2']) if s['scale_parameter'] else 1.0
    over = (square(u) / u.numel()) ** 0.5 / s['clip_threshold']
    rate = -c['step'] * scale / (1.0 if over <= 1.0 else over)  # NaN where it is NaN
    shrink = c['shrink'] * scale
    if momentum is None and rate:
        kernels.sgd_([p], [u], [], lr=rate, momentum=0.0, weight_decay=shrink / rate)
    elif momentum is not None:
        momentum.lerp_(u.mul_(-rate), 1 - s['beta1'])
        p.mul_(1 - shrink).add_(momentum)


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
