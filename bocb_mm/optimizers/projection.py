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

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bocb_mm.optimizers.multi_tensor import Scalars, Tensors
from bocb_mm.optimizers.rows import RowSpace

_vecdot: Callable[..., Any] = getattr(np, 'vecdot', partial(np.einsum, 'ij,ij->i'))  # numpy < 2


@dataclass
class Layout:
    """How rows belong to tensors.

    Attributes:
        total: Sums rows to tensors: (rows, k) to (tensors, k).
        largest: Maximum over the rows of each tensor: (rows,) to (tensors,).
        spread: Gives each row the value of its tensor: (tensors,) to (rows,).
        row_limit: ``delta / sqrt(elements of a row)`` per tensor; negative for one never projected.
        limit: ``delta / sqrt(elements of the tensor)`` per tensor, likewise.
    """

    total: Callable[[Tensor], Tensor]
    largest: Callable[[Tensor], Tensor]
    spread: Callable[[Tensor], Tensor]
    row_limit: Any
    limit: Any


@dataclass
class Found:
    """What the cosines say.

    Attributes:
        by_row: Whether the rows of a tensor lose their own components; shape (tensors,).
        as_whole: Whether the tensor as a whole loses its one, unless ``by_row``; shape (tensors,).
        squares: ``(|p| + eps)^2`` of each row, then of each tensor; shape (rows + tensors,).
    """

    by_row: Tensor
    as_whole: Tensor
    squares: Tensor

    def any(self) -> bool:
        """Whether anything is projected at all; waits for the device."""
        return bool((self.by_row | self.as_whole).any())


def examine(pp: Tensor, gg: Tensor, pg: Tensor, layout: Layout, eps: float) -> Found:
    """Compare weights and gradients.

    Args:
        pp: Inner product of each row of the weights with itself, shape (rows,).
        gg: The same of the gradients.
        pg: Inner product of both.
        layout: How rows belong to tensors.
        eps: Guards the norms.
    """
    rows = torch.stack((pp, gg, pg), 1)
    both = torch.cat([rows, layout.total(rows)])  # rows, then whole tensors: one formula for both
    n = len(rows)
    p_norm, g_norm = (both[:, :2].sqrt() + eps).unbind(1)
    cosine = both[:, 2].abs() / g_norm / p_norm
    by_row = layout.largest(cosine[:n]) < layout.row_limit
    return Found(by_row, cosine[n:] < layout.limit, p_norm.square())


def row_factors(pu: Tensor, found: Found, layout: Layout, c: Scalars, s: Scalars) -> Tensor:
    """What each row of the weights is multiplied with before ``step * u`` is subtracted.

    Args:
        pu: Inner product of each row of the weights with that of the step ``u``, shape (rows,).
        found: What :func:`examine` found.
        layout: How rows belong to tensors.
        c: ``step``: step size; ``shrink``: rate times decay, 0 without decay.
        s: ``wd_ratio``: share of the decay that acts on projected tensors.

    Returns:
        ``1 - shrink * wd + step * c`` per row.
    """
    n = len(pu)
    parallel = pu / found.squares[:n]
    whole = layout.total(pu[:, None]).flatten() / found.squares[n:]
    # of two Python numbers torch.where makes float32, whatever the type of the weights
    ratio = torch.full((), s['wd_ratio'], dtype=pu.dtype, device=pu.device)
    kept = torch.where(found.by_row | found.as_whole, ratio, 1.0)
    others = layout.spread(torch.where(found.as_whole, whole, 0.0))
    along = torch.where(layout.spread(found.by_row), parallel, others)
    return 1 - c['shrink'] * layout.spread(kept) + c['step'] * along


def rows_of(t: Tensor) -> Tensor:
    """``t`` as (first dimension, rest), a view wherever the memory allows one.

    The order inside a row is that of the memory: an inner product does not mind, as long as both
    tensors lie alike.
    """
    if t.dim() == 4 and not t.is_contiguous():
        t = t.permute(0, 2, 3, 1)
    return t.reshape(t.shape[0], -1)


def row_dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each row of ``a`` with that of ``b``: on a CPU numpy's, without a buffer."""
    exact = a.dtype in (torch.float32, torch.float64)
    if torch.compiler.is_compiling() or a.device.type != 'cpu' or not exact:
        return (a * b).sum(1)
    return torch.from_numpy(_vecdot(a.detach().numpy(), b.detach().numpy()))


def single_layout(p: Tensor, delta: float) -> Layout:
    """The layout of one tensor alone."""
    n, size = p.shape[0], p.numel()
    return Layout(
        total=lambda x: x.sum(0, keepdim=True),
        largest=lambda x: x.amax(0, keepdim=True),
        spread=lambda x: x.expand(n),
        row_limit=delta / (size // n) ** 0.5,
        limit=delta / size**0.5,
    )


def as_rows(*tensors: Tensor) -> list[Tensor]:
    """The tensors as (first dimension, rest), their elements in the same order."""
    if all(t.stride() == tensors[0].stride() for t in tensors):
        return [rows_of(t) for t in tensors]
    return [t.flatten(1) for t in tensors]


def examine_one(p: Tensor, g: Tensor, s: Scalars) -> tuple[Found, Layout]:
    """:func:`examine` for one tensor; ``s``: ``delta`` and ``eps``."""
    layout = single_layout(p, s['delta'])
    a, b = as_rows(p, g)
    pp, gg = (torch.linalg.vector_norm(x, dim=1).square() for x in (a, b))
    return examine(pp, gg, row_dot(a, b), layout, s['eps']), layout


@dataclass
class Projected:
    """How one tensor is projected: by row, with values of shape (rows,), or as a whole, by number.

    Attributes:
        squares: ``(|p| + eps)^2``.
        pg: Inner product of weights and gradients.
    """

    squares: Any
    pg: Any

    def inner(self, p: Tensor, x: Tensor) -> Any:
        """Inner product of the weights and another tensor."""
        a, b = as_rows(p, x)
        return row_dot(a, b) if isinstance(self.pg, Tensor) else _dot(a, b)

    def scale_(self, p: Tensor, pu: Any, c: Scalars, s: Scalars) -> None:
        """Multiply the weights with their factors, as :func:`row_factors` has them."""
        factors = 1 - c['shrink'] * s['wd_ratio'] + c['step'] * pu / self.squares
        scale_rows_(p, factors) if isinstance(factors, Tensor) else p.mul_(factors)


def find_one(p: Tensor, g: Tensor, s: Scalars) -> Projected | None:
    """How a tensor on a CPU is projected, if it is; ``s``: ``delta`` and ``eps``.

    :func:`examine` for one tensor, which stops as soon as the answer is known: at the first row
    that is not orthogonal it goes on to the tensor as a whole.
    """
    if p.dim() < 2:
        return None
    a, b = as_rows(p, g)
    limit, eps = s['delta'] / a.shape[1] ** 0.5, s['eps']
    if all(_whole(x, y, limit, eps) for x, y in zip(a[:2], b[:2])):
        p_norm, g_norm = (torch.linalg.vector_norm(x, dim=1) + eps for x in (a, b))
        pg = row_dot(a, b)
        if (pg.abs() / g_norm / p_norm).max() < limit:
            return Projected(p_norm.square(), pg)
    return _whole(a, b, s['delta'] / p.numel() ** 0.5, eps)


def _whole(a: Tensor, b: Tensor, limit: float, eps: float) -> Projected | None:
    """What holds for all elements at once, if their cosine is below the limit, which NaN is not."""
    p_norm, g_norm = (_dot(x, x) ** 0.5 + eps for x in (a, b))
    pg = _dot(a, b)
    below = p_norm > 0 and g_norm > 0 and abs(pg) / g_norm / p_norm < limit
    return Projected(p_norm**2, pg) if below else None


def _dot(a: Tensor, b: Tensor) -> float:
    return (torch.dot(a, b) if a.dim() == 1 else torch.dot(a.reshape(-1), b.reshape(-1))).item()


def project_(p: Tensor, g: Tensor, u: Tensor, c: Scalars, s: Scalars) -> None:
    """Multiply the weights of one tensor with their row factors."""
    found, layout = examine_one(p, g, s)
    scale_rows_(p, row_factors(row_dot(*as_rows(p, u)), found, layout, c, s))


def scale_rows_(p: Tensor, factors: Tensor) -> None:
    """``p[i] *= factors[i]``."""
    p.mul_(factors.view(-1, *[1] * (p.dim() - 1)))


def project_grouped_(
    space: RowSpace,
    params: Tensors,
    grads: Tensors,
    write_step: Callable[[Tensors], None],
    c: Scalars,
    s: Scalars,
) -> None:
    """Multiply the weights of all tensors with their row factors, in one go.

    Args:
        space: Work space made for ``params``; borrowed.
        params: Weights, changed in place.
        grads: Gradients.
        write_step: Writes the step ``u`` into the views it is given.
        c: As for :func:`row_factors`.
        s: As for :func:`row_factors`, and ``delta``.
    """
    products = []
    for left, right in ((params, None), (grads, None), (grads, params)):
        torch._foreach_copy_(space.work, left)
        torch._foreach_mul_(space.work, space.work if right is None else right)
        products.append(space.row_sums())
    write_step(space.work)
    torch._foreach_mul_(space.work, params)
    products.append(space.row_sums())
    delta = s['delta']
    if space.limits is None or space.limits[0] != delta:
        never = torch.where(space.matrix, 1.0, -torch.inf)
        space.limits = (delta, delta * never / space.widths**0.5, delta * never / space.sizes**0.5)
    layout = Layout(
        total=space.tensor_sums,
        largest=space.tensor_maxima,
        spread=lambda x: x[space.owner],
        row_limit=space.limits[1],
        limit=space.limits[2],
    )
    pp, gg, pg, pu = products
    found = examine(pp, gg, pg, layout, s['eps'])
    space.row_factor.copy_(row_factors(pu, found, layout, c, s))
    torch._foreach_mul_(params, space.row_views)
