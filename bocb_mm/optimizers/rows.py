"""Sums over rows of many tensors at once, in a number of dispatches that does not grow with them.

PyTorch has no ``_foreach`` reduction over rows. Here all tensors are laid one after the other into
one flat buffer by a single ``_foreach_copy_``, and ``torch.segment_reduce`` sums the rows in one
call. The views into the buffers are made once; the memory of the big buffer is given back between
steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bocb_mm.optimizers.multi_tensor import Tensors


class RowSpace:
    """Work space for a list of tensors.

    Rows are those of the first dimension; a tensor of at most one dimension is one row. Columns are
    all other dimensions together.

    Args:
        params: The tensors; shapes, device and dtype count.
        columns: Also lay out columns; all tensors have two or more dimensions then.

    Attributes:
        work: Views of the flat buffer with the shapes of ``params``; valid after :meth:`borrow`.
        turned: The same, but with the columns of each tensor in one piece.
        rows, widths, sizes: Rows of each tensor, elements of its rows, elements; shape (tensors,).
        matrix: Whether a tensor has more than one dimension, shape (tensors,).
        owner: Index of the tensor of each row, shape (rows of all tensors,).
        row_factor, column_factor: One number a row, one a column.
        row_views, column_views: Views of them that broadcast over each tensor.
        limits: Kept by :mod:`.projection`.
    """

    def __init__(self, params: Tensors, columns: bool = False) -> None:
        first = params[0]
        device = first.device
        self._key = [(p.data_ptr(), p.shape) for p in params]
        self._flat = first.new_empty(sum(p.numel() for p in params))
        self._bytes = self._flat.untyped_storage().nbytes()
        parts = self._flat.split([p.numel() for p in params])
        self.work = [part.view(p.shape) for part, p in zip(parts, params)]
        counts = [p.shape[0] if p.dim() > 1 else 1 for p in params]
        widths = [p.numel() // n for p, n in zip(params, counts)]
        self.rows = torch.tensor(counts, device=device)
        self.widths = torch.tensor(widths, device=device)
        self.sizes = self.rows * self.widths
        self.matrix = torch.tensor([p.dim() > 1 for p in params], device=device)
        self.limits: tuple[float, Tensor, Tensor] | None = None
        self.owner = torch.arange(len(counts), device=device).repeat_interleave(self.rows)
        self.lengths = self.widths[self.owner]
        self.row_factor = first.new_empty(sum(counts))
        self.row_views = [
            part.view([-1] + [1] * (p.dim() - 1) if p.dim() else [])
            for part, p in zip(self.row_factor.split(counts), params)
        ]
        if columns:
            self.turned = [_turned(part, p) for part, p in zip(parts, params)]
            self.column_lengths = self.rows.repeat_interleave(self.widths)
            self.column_factor = first.new_empty(sum(widths))
            self.column_views = [
                part.view(p.shape[1:]) for part, p in zip(self.column_factor.split(widths), params)
            ]
        self.release()

    def fits(self, params: Tensors) -> bool:
        """Whether the space was made for these tensors."""
        return self._key == [(p.data_ptr(), p.shape) for p in params]

    def borrow(self) -> None:
        """Take the memory of the flat buffer."""
        self._flat.untyped_storage().resize_(self._bytes)

    def release(self) -> None:
        """Give it back to the allocator."""
        self._flat.untyped_storage().resize_(0)

    def row_sums(self) -> Tensor:
        """Sums over the rows of what stands in the buffer, shape (rows of all tensors,)."""
        return torch.segment_reduce(self._flat, 'sum', lengths=self.lengths, unsafe=True)

    def column_sums(self) -> Tensor:
        """Sums over the columns of what was written through ``turned``."""
        return torch.segment_reduce(self._flat, 'sum', lengths=self.column_lengths, unsafe=True)

    def tensor_sums(self, by_row: Tensor) -> Tensor:
        """Sums over the rows of each tensor, shape (tensors,)."""
        return torch.segment_reduce(by_row, 'sum', lengths=self.rows, unsafe=True)

    def tensor_maxima(self, by_row: Tensor) -> Tensor:
        """Maxima over the rows of each tensor, shape (tensors,)."""
        return torch.segment_reduce(by_row, 'max', lengths=self.rows, unsafe=True)


def _turned(part: Tensor, p: Tensor) -> Tensor:
    """A view of ``part`` with the shape of ``p`` in which a column of ``p`` lies in one piece."""
    n = p.shape[0]
    strides = [s * n for s in torch.empty(p.shape[1:], device='meta').stride()]
    return part.as_strided(p.shape, (1, *strides), part.storage_offset())


class RowSpaceMixin:
    """Keeps a :class:`RowSpace` for each list of tensors that an optimizer updates together."""

    row_columns = False
    """Whether the spaces lay out columns too."""

    @contextmanager
    def row_space(self, params: Tensors) -> Iterator[RowSpace]:
        """The space of these tensors, its memory borrowed inside the block."""
        spaces = self.__dict__.setdefault('_spaces', {})
        key = (id(params[0]), len(params))
        if key not in spaces or not spaces[key].fits(params):
            spaces[key] = RowSpace(params, self.row_columns)
        space = spaces[key]
        space.borrow()
        try:
            yield space
        finally:
            space.release()
