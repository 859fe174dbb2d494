"""The projection of SGDP and AdamP: remove the part of a step that only scales the weights.

For a weight that a normalisation makes scale-invariant, gradient and weight are orthogonal. Where the
absolute cosine between them is below ``delta / sqrt(dim)`` in every row (output channel), each row of
the step ``u`` loses its component along the row of the weights ``p``; else, where that holds for the
tensor as a whole, the whole step does. Then the decay acts with ``wd_ratio`` of its strength. Both
changes are along ``p``, so that a step with projection is one factor for each row and one addition::

    p = p (1 - shrink wd + step c) - step u,    c = <p, u> / (|p| + eps)^2  or 0

Source: Heo et al., AdamP, ICLR 2021, Algorithms 1 and 2, and the authors' code (clovaai/AdamP).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class RowProducts:
    """Inner products of the rows of one or more tensors, each of shape (rows,).

    Attributes:
        pp: Weight with itself.
        gg: Gradient with itself.
        pg: Weight with gradient.
        pu: Weight with the step.
    """

    pp: Tensor
    gg: Tensor
    pg: Tensor
    pu: Tensor


@dataclass
class Layout:
    """How rows belong to tensors.

    Attributes:
        total: Sums rows to tensors.
        largest: Maximum over the rows of each tensor.
        spread: Gives each row the value of its tensor.
        row_limit: ``delta / sqrt(elements of a row)``, per tensor.
        limit: ``delta / sqrt(elements of the tensor)``, per tensor.
    """

    total: Callable[[Tensor], Tensor]
    largest: Callable[[Tensor], Tensor]
    spread: Callable[[Tensor], Tensor]
    row_limit: Any
    limit: Any


def row_factors(
    r: RowProducts, layout: Layout, step: Any, shrink: Any, wd_ratio: float, eps: float
) -> Tensor:
    """What each row of the weights is multiplied with, before ``step * u`` is subtracted.

    Args:
        r: Inner products.
        layout: How rows belong to tensors.
        step: Step size.
        shrink: Rate times decay; 0 without decay.
        wd_ratio: Share of the decay that acts on projected tensors.
        eps: Guards the norms.

    Returns:
        ``1 - shrink * wd + step * c`` per row.
    """
    p_norm, g_norm = r.pp.sqrt() + eps, r.gg.sqrt() + eps
    by_row = layout.largest(r.pg.abs() / g_norm / p_norm) < layout.row_limit
    pp, gg, pg, pu = (layout.total(x) for x in (r.pp, r.gg, r.pg, r.pu))
    norm = pp.sqrt() + eps
    as_whole = pg.abs() / (gg.sqrt() + eps) / norm < layout.limit
    decay = torch.where(by_row | as_whole, 1 - shrink * wd_ratio, 1 - shrink).to(pp)
    whole = torch.where(as_whole, pu / norm.square(), 0.0)
    c = torch.where(layout.spread(by_row), r.pu / p_norm.square(), layout.spread(whole))
    return layout.spread(decay) + step * c


def rows_of(t: Tensor) -> Tensor:
    """``t`` as (first dimension, rest), a view wherever the memory allows one.

    The order inside a row is that of the memory: an inner product does not mind, as long as both
    tensors lie alike.
    """
    if t.dim() == 4 and not t.is_contiguous():
        t = t.permute(0, 2, 3, 1)
    return t.reshape(t.shape[0], -1)


def row_dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each row of ``a`` with that of ``b``, without a buffer for the products."""
    return torch.bmm(a.unsqueeze(1), b.unsqueeze(2)).flatten()


def single(p: Tensor, delta: float) -> Layout:
    """The layout of one tensor."""
    rows = p.shape[0]
    return Layout(
        total=lambda x: x.sum().reshape(1),
        largest=lambda x: x.amax().reshape(1),
        spread=lambda x: x.expand(rows),
        row_limit=delta / (p.numel() // rows) ** 0.5,
        limit=delta / p.numel() ** 0.5,
    )
