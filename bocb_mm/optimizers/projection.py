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

from bocb_mm.optimizers.multi_tensor import Scalars, Tensors, add_quotient_
from bocb_mm.optimizers.rows import Part, RowSpace, reduce_segments

_vecdot: Callable[..., Any] = getattr(np, 'vecdot', partial(np.einsum, 'ij,ij->i'))  # numpy < 2


@dataclass
class Layout:
    """How rows belong to tensors.

    Attributes:
        total: Sums rows to tensors: (4, rows) to (4, tensors), written to the second argument.
        largest: Maximum over the rows of each tensor: (rows,) to (tensors,).
        spread: Gives each row the value of its tensor: (tensors,) to (rows,).
        limits: ``delta / sqrt(dim)`` of the rows and of the tensors, shape (rows + tensors,);
            negative for what is never projected.
    """

    total: Callable[[Tensor, Tensor], Any]
    largest: Callable[[Tensor], Tensor]
    spread: Callable[[Tensor], Tensor]
    limits: Tensor


class Products:
    """Inner products of weights ``p``, gradients ``g`` and step ``u``, and the views of them.

    Args:
        rows: Number of rows of all tensors.
        tensors: Number of tensors.
        like: Gives type and device.

    Attributes:
        pp, gg, pg, pu: ``<p, p>``... of each row, then of each tensor, shape (rows + tensors,).
        norms: The first two, shape (2, rows + tensors).
        by_row, by_tensor: All four of the rows, of the tensors.
    """

    def __init__(self, rows: int, tensors: int, like: Tensor) -> None:
        sizes = [rows, tensors]
        table = like.new_empty(4, rows + tensors)
        self.norms = table.narrow(0, 0, 2)
        self.pp, self.gg, self.pg, self.pu = table.unbind()
        self.by_row, self.by_tensor = table.split(sizes, 1)
        self.row_gg, self.tensor_gg = self.gg.split(sizes)
        self.row_pg, self.tensor_pg = self.pg.split(sizes)

    def row_factors(self, layout: Layout, c: Scalars, s: Scalars, out: Tensor) -> Tensor:
        """What each row of the weights is multiplied with before ``step * u`` is subtracted.

        The rows are given; everything is overwritten, because each operation on its own would be
        a dispatch more.

        Args:
            layout: How rows belong to tensors.
            c: ``step``: step size; ``shrink``: rate times decay, 0 without decay.
            s: ``eps``: guards the norms; ``wd_ratio``: share of the decay that acts on projected
                tensors.
            out: Where to write them, shape (rows,).

        Returns:
            ``1 - shrink * wd + step * c`` in ``out``.
        """
        layout.total(self.by_row, self.by_tensor)
        self.norms.sqrt_().add_(s['eps'])
        self.gg.mul_(self.pp)
        # the cosine is below its limit where |<p, g>| - limit |p| |g| is below 0, which NaN is not
        self.pg.abs_().addcmul_(layout.limits, self.gg, value=-1)
        rows_below = layout.largest(self.row_pg) < 0
        tensor_below = self.tensor_pg < 0
        # from here on gg is the factor with a projection
        self.gg.fill_(1 - c['shrink'] * s['wd_ratio'])
        add_quotient_([self.gg], [self.pu], [self.pp.square_()], c['step'])
        others = torch.where(tensor_below, self.tensor_gg, 1 - c['shrink'])
        torch.where(layout.spread(rows_below), self.row_gg, layout.spread(others), out=out)
        return out


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


def as_rows(*tensors: Tensor) -> list[Tensor]:
    """The tensors as (first dimension, rest), their elements in the same order."""
    if all(t.stride() == tensors[0].stride() for t in tensors):
        return [rows_of(t) for t in tensors]
    return [t.flatten(1) for t in tensors]


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
        """Multiply the weights with their factors, as :meth:`Products.row_factors` has them."""
        factors = 1 - c['shrink'] * s['wd_ratio'] + c['step'] * pu / self.squares
        scale_rows_(p, factors) if isinstance(factors, Tensor) else p.mul_(factors)


def find_one(p: Tensor, g: Tensor, s: Scalars) -> Projected | None:
    """How a tensor on a CPU is projected, if it is; ``s``: ``delta`` and ``eps``.

    It stops as soon as the answer is known: at the first row that is not orthogonal it goes on to
    the tensor as a whole.
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
    n, width = p.shape[0], p.numel() // p.shape[0]
    products = Products(n, 1, p)
    a, b = as_rows(p, g)
    pairs = ((a, a), (b, b), (a, b), as_rows(p, u))
    products.by_row.copy_(torch.stack([row_dot(x, y) for x, y in pairs]))
    row_limit = s['delta'] / width**0.5
    limits = p.new_full((n + 1,), row_limit)
    limits[n:] = row_limit / n**0.5
    layout = Layout(
        total=lambda rows, out: out.copy_(rows.sum(1, keepdim=True)),
        largest=lambda x: x.amax(0, keepdim=True),
        spread=lambda x: x.expand(n),
        limits=limits,
    )
    scale_rows_(p, products.row_factors(layout, c, s, out=p.new_empty(n)))


def scale_rows_(p: Tensor, factors: Tensor) -> None:
    """``p[i] *= factors[i]``."""
    p.mul_(factors.view(-1, *[1] * (p.dim() - 1)))


class ProjectionSpace(RowSpace):
    """With the inner products, and where those of each part stand among them."""

    def __init__(self, params: Tensors) -> None:
        super().__init__(params)
        n = len(self.owner)
        self.products = Products(n, len(params), params[0])
        rows = self.products.by_row.unbind()
        self.products_of = [[part.own_rows(x) for x in rows] for part in self.parts]
        self._counts = self.rows.repeat(4, 1)
        self._delta: float | None = None

    def layout(self, delta: float) -> Layout:
        """How the rows belong to the tensors; those of one dimension are never projected."""
        if delta != self._delta:
            never = torch.where(self.matrix, 1.0, -torch.inf).to(self.row_factor)
            of_rows = (never / self.widths**0.5).index_select(0, self.owner)
            self._limits = delta * torch.cat([of_rows, never / (self.rows * self.widths) ** 0.5])
            self._delta = delta
        return Layout(self._total, self._largest, self._spread, self._limits)

    def _total(self, rows: Tensor, out: Tensor) -> None:
        reduce_segments(rows, 'sum', lengths=self._counts, axis=1, unsafe=True, out=out)

    def _largest(self, x: Tensor) -> Tensor:
        return torch.segment_reduce(x, 'max', lengths=self.rows, unsafe=True)

    def _spread(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.owner)


def project_grouped_(
    space: ProjectionSpace,
    params: Tensors,
    grads: Tensors,
    write_step: Callable[[Part], None],
    c: Scalars,
    s: Scalars,
) -> None:
    """Multiply the weights of all tensors with their row factors, in one go.

    Args:
        space: Work space made for ``params``; borrowed.
        params: Weights, changed in place.
        grads: Gradients.
        write_step: Writes the step ``u`` of a part into its ``work``.
        c: As for :meth:`Products.row_factors`.
        s: As for :meth:`Products.row_factors`, and ``delta``.
    """
    for part, (pp, gg, pg, pu) in zip(space.parts, space.products_of):
        p, g = part.of(params), part.of(grads)
        for left, right, out in ((p, p, pp), (g, g, gg), (g, p, pg)):
            torch._foreach_copy_(part.work, left)
            torch._foreach_mul_(part.work, right)
            part.reduce_rows('sum', out)
        write_step(part)
        torch._foreach_mul_(part.work, p)
        part.reduce_rows('sum', pu)
    space.products.row_factors(space.layout(s['delta']), c, s, out=space.row_factor)
    torch._foreach_mul_(params, space.row_views)
