"""Sums over rows of many tensors at once, in a number of dispatches that does not grow with them.

PyTorch has no ``_foreach`` reduction over rows. Here tensors are laid one after the other into a
flat buffer by a single ``_foreach_copy_``, and ``torch.segment_reduce`` sums their rows in one
call. The buffer holds half of the weights at a time, so that it stays well below their size with
all the numbers for each row. Its memory is given back between steps; the views into it are made
once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from bocb_mm.optimizers.multi_tensor import Tensors, divided

PARTS = 2
"""Of the weights. Each part more costs AdamP 20 dispatches; with two it takes 60."""

reduce_segments = torch.ops.aten.segment_reduce.out
"""``torch.segment_reduce``, which has no ``out`` in torch 2.9.1, into a tensor."""


class Part:
    """Tensors that are in the flat buffer at the same time.

    Args:
        indices: Which of all the tensors.
        tensors: These; shapes count.
        flat: The buffer, at least in their size.
        start: Rows of the parts before it.

    Attributes:
        work: Views of the buffer with the shapes of the tensors.
        start, rows: Where the rows of the part stand among those of all, and how many they are.
        counts, widths: Rows of each tensor, elements of its rows.
    """

    def __init__(self, indices: list[int], tensors: Tensors, flat: Tensor, start: int) -> None:
        sizes = [t.numel() for t in tensors]
        self.indices = indices
        self.flat = flat.narrow(0, 0, sum(sizes))
        self.pieces = self.flat.split(sizes)
        self.work = [piece.view(t.shape) for piece, t in zip(self.pieces, tensors)]
        self.counts = [t.shape[0] if t.dim() > 1 else 1 for t in tensors]
        self.widths = [size // n for size, n in zip(sizes, self.counts)]
        self.start, self.rows = start, sum(self.counts)
        self._lengths = repeated(self.widths, self.counts, flat)

    def of(self, tensors: Tensors) -> Tensors:
        """Those of the part among what belongs to all the tensors."""
        return [tensors[k] for k in self.indices]

    def own_rows(self, by_row: Tensor) -> Tensor:
        """A view of the part's among numbers for all rows."""
        return by_row.narrow(0, self.start, self.rows)

    def reduce_rows(self, how: str, out: Tensor) -> None:
        """``'sum'`` or ``'mean'`` of each row of what stands in the buffer; (rows of the part,)."""
        reduce_segments(self.flat, how, lengths=self._lengths, unsafe=True, out=out)


class RowSpace:
    """Work space for a list of tensors.

    Rows are those of the first dimension; a tensor of at most one dimension is one row. Rows and
    tensors are ordered by part where numbers for all of them stand in one vector.

    Args:
        params: The tensors; shapes, device and dtype count.

    Attributes:
        parts: They have the buffer by turns; valid between :meth:`borrow` and :meth:`release`.
        rows, widths: Rows of each tensor, elements of its rows; shape (tensors,).
        matrix: Whether a tensor has more than one dimension, shape (tensors,).
        owner: Number of the tensor of each row, shape (rows of all tensors,).
        row_factor: One number a row.
        row_numbers: Views of it by tensor, in the order of ``params``.
        row_views: The same, in shapes that broadcast over the tensors.
    """

    def __init__(self, params: Tensors) -> None:
        first = params[0]
        self._key = [(p.data_ptr(), p.shape) for p in params]
        sizes = [p.numel() for p in params]
        shares = [share for share in divided(sizes, PARTS) if share]
        self._flat = first.new_empty(max(sum(sizes[k] for k in share) for share in shares))
        self.parts: list[Part] = []
        start = 0
        for share in shares:
            part = Part(share, [params[k] for k in share], self._flat, start)
            self.parts.append(part)
            start += part.rows
        counts = [n for part in self.parts for n in part.counts]
        widths = [n for part in self.parts for n in part.widths]
        self.rows, self.widths = (torch.tensor(x, device=first.device) for x in (counts, widths))
        self.order = [k for share in shares for k in share]
        dims = [params[k].dim() for k in self.order]
        self.matrix = torch.tensor([d > 1 for d in dims], device=first.device)
        self.owner = repeated(list(range(len(counts))), counts, first)
        self.row_factor = first.new_empty(start)
        self.row_numbers = self.unordered(self.row_factor.split(counts))
        self.row_views = [
            numbers.view([-1] + [1] * (p.dim() - 1) if p.dim() else [])
            for numbers, p in zip(self.row_numbers, params)
        ]

    def unordered(self, by_tensor: Any) -> Tensors:
        """What is ordered by part, in the order of the tensors."""
        found = dict(zip(self.order, by_tensor))
        return [found[k] for k in range(len(found))]

    def fits(self, params: Tensors) -> bool:
        """Whether the space was made for these tensors."""
        return self._key == [(p.data_ptr(), p.shape) for p in params]

    def borrow(self) -> None:
        """Take the memory of the flat buffer."""
        storage, size = self._flat.untyped_storage(), self._flat.nbytes
        if storage.nbytes() != size:  # a new space has it
            storage.resize_(size)

    def release(self) -> None:
        """Give it back to the allocator."""
        self._flat.untyped_storage().resize_(0)


def repeated(values: list[int], counts: list[int], like: Tensor) -> Tensor:
    """Each value as often as its count says."""
    x, n = (torch.tensor(each, device=like.device) for each in (values, counts))
    return torch.repeat_interleave(x, n, output_size=sum(counts))


class RowSpaceMixin:
    """Keeps a :class:`RowSpace` for each list of tensors that an optimizer updates together."""

    space_class: ClassVar[Any] = RowSpace

    @contextmanager
    def row_space(self, params: Tensors) -> Iterator[Any]:
        """The space of these tensors, its memory borrowed inside the block."""
        spaces = self.__dict__.setdefault('_spaces', {})
        key = (id(params[0]), len(params))
        if key not in spaces or not spaces[key].fits(params):
            spaces[key] = self.space_class(params)
        space = spaces[key]
        space.borrow()
        try:
            yield space
        finally:
            space.release()
