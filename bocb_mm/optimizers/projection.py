"""The projection of SGDP and AdamP: remove the part of a step that only scales the weights.

For a weight that a normalisation makes scale-invariant, gradient and weight are orthogonal. Where
the absolute cosine between them is below ``delta / sqrt(dim)`` in every row (output channel), each
row of the step ``u`` loses its component along the row of the weights ``p``; else, where that holds
for the tensor as a whole, the whole step does. Then the decay acts with ``wd_ratio`` of its
strength. Both changes are along ``p``, so that a step with projection is one factor for each row
and one addition::

    p = p (1 - shrink wd + step c) - step u,    c = <p, u> / (|p| + eps)^2  or 0

Source: Heo et al., AdamP, ICLR 2021, Algorithms 1 and 2, and the authors' code (clovaai/AdamP).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bocb_mm.optimizers.base import MultiTensorOptimizer, Scalars, Tensors
from bocb_mm.optimizers.foreach import add_scaled_
from bocb_mm.optimizers.strict import require, require_number


class ProjectedOptimizer(MultiTensorOptimizer):
    """Base of both: ``delta`` is the threshold, ``wd_ratio`` the share of the decay."""

    elementwise = False

    @classmethod
    def check(cls, group: Mapping[str, Any]) -> None:
        """See the base class."""
        super().check(group)
        require_number('delta', group['delta'])
        share = group['wd_ratio']
        require(0 <= share <= 1, 'wd_ratio', share, 'a number in [0, 1]')


def descend_projected_(params: Tensors, grads: Tensors, u: Tensors, c: Scalars, s: Scalars) -> None:
    """``p = p (1 - shrink) - step u``, with matrices and kernels projected.

    Args:
        params: Parameters, changed in place.
        grads: Gradients.
        u: Directions of the step.
        c: ``step``: step size; ``shrink``: rate times decay.
        s: ``delta``, ``wd_ratio``, ``eps``.
    """
    vectors = [p for p in params if p.dim() <= 1]
    matrices = [row for row in zip(params, grads, u) if row[0].dim() > 1]
    if vectors:
        torch._foreach_mul_(vectors, 1 - c['shrink'])
    if matrices:
        weights, gradients, directions = (list(column) for column in zip(*matrices))
        torch._foreach_mul_(weights, row_factors(weights, gradients, directions, c, s))
    add_scaled_(params, u, -c['step'])


def row_factors(params: Tensors, grads: Tensors, u: Tensors, c: Scalars, s: Scalars) -> Tensors:
    """What each row of each tensor is multiplied with before ``step u`` is subtracted.

    What is known of the rows stands in tables, (tensors, most rows), that are padded with 0.
    """
    products = [row_products(*row) for row in zip(params, grads, u)]
    p_norm, g_norm, pg, pu = pad_sequence(products, batch_first=True).unbind(-1)
    shapes = torch.tensor([(len(p), p.numel() // len(p)) for p in params], dtype=torch.float32)
    rows, width = shapes.to(pg.device, non_blocking=True).split(1, dim=1)
    padding = torch.arange(pg.shape[1], device=pg.device) >= rows

    def projected(norms: Tensor, gradients: Tensor, inner: Tensor, dim: Tensor) -> Tensor:
        """Whether the cosine is below its limit, which NaN is not."""
        product = (norms + s['eps']) * (gradients + s['eps'])
        return inner.abs() < s['delta'] / dim.sqrt() * product

    def factors(norms: Tensor, inner: Tensor) -> Tensor:
        removed = c['step'] * inner / (norms + s['eps']).square()
        return 1 - c['shrink'] * s['wd_ratio'] + removed

    by_row = (projected(p_norm, g_norm, pg, width) | padding).all(1, keepdim=True)
    whole_p, whole_g = (torch.linalg.vector_norm(x, dim=1, keepdim=True) for x in (p_norm, g_norm))
    whole_pg, whole_pu = (x.sum(1, keepdim=True) for x in (pg, pu))
    as_whole = projected(whole_p, whole_g, whole_pg, width * rows)
    others = torch.where(as_whole, factors(whole_p, whole_pu), 1 - c['shrink'])
    table = torch.where(by_row, factors(p_norm, pu), others)
    return [
        x.narrow(0, 0, len(p)).view(-1, *[1] * (p.dim() - 1))
        for x, p in zip(table.unbind(), params)
    ]


def row_products(p: Tensor, g: Tensor, u: Tensor) -> Tensor:
    """``|p|, |g|, <p, g>, <p, u>`` of each row, shape (first dimension, 4).

    At least in single precision.
    """
    dtype = torch.promote_types(p.dtype, torch.float32)
    dims = tuple(range(1, p.dim()))
    norms = [torch.linalg.vector_norm(t, dim=dims, dtype=dtype) for t in (p, g)]
    return torch.stack(norms + [(p * t).sum(dims, dtype=dtype) for t in (g, u)], dim=1)
