r"""The nearest orthogonal matrix of many matrices, by Newton-Schulz on stacks of equal shape.

For :math:`X = G / \|G\|_F` with at most as many rows as columns,

.. math::

    A = X X^\top, \qquad X \leftarrow a X + (b A + c A^2) X,

five times with :math:`(a, b, c) = (3.4445, -4.7750, 2.0315)`: singular values go to 0.7 to 1.2, not
to 1, which costs nothing in training. Three operations an iteration for all matrices of a shape.

Where operations are cheap and arithmetic is not, on a CPU, two iterations of a wide matrix go
through :math:`A` alone: eight operations, with half as many products of the matrix itself. More
than two would lose the small singular values to bfloat16.

Sources: Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024; the second
form: Gram Newton-Schulz, dao-lab.ai/blog/2026/gram-newton-schulz.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from bocb_mm.optimizers.foreach import Tensors

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SMALLEST_NORM = 1e-7


def newton_schulz(x: Tensor, steps: int) -> Tensor:
    """Orthogonalise a stack (batch, m, n) with m <= n, which is overwritten."""
    wide = torch.promote_types(x.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=wide)
    x.div_(norm.clamp_(min=SMALLEST_NORM))
    a, b, c = COEFFICIENTS
    # the same memory in each iteration: fresh pages take longer than small products
    after, gram = torch.empty_like(x), x.new_empty(*x.shape[:2], x.shape[1])
    p, q = torch.empty_like(gram), torch.empty_like(gram)
    pairs = steps // 2 if x.is_cpu and x.shape[2] > 2 * x.shape[1] else 0
    for i in range(steps - pairs):
        torch.bmm(x, x.mT, out=gram)
        torch.baddbmm(gram, gram, gram, beta=b, alpha=c, out=p)
        if i < pairs:  # with P = a + p the next A is P A P, and Q = a + q follows from it
            torch.baddbmm(gram, p, gram, beta=a, out=q)
            torch.baddbmm(q, q, p, beta=a, out=gram)
            torch.baddbmm(gram, gram, gram, beta=b, alpha=c, out=q)
            torch.baddbmm(p, q, p, beta=a, out=gram)
            torch.baddbmm(x, gram.add_(q, alpha=a), x, beta=a * a, out=after)  # Q P x
        else:
            torch.baddbmm(x, p, x, beta=a, out=after)
        x, after = after, x
    return x


def orthogonalise_(updates: Tensors, split: int, steps: int) -> None:
    """Replace each tensor, seen as a matrix, by its orthogonal factor.

    Args:
        updates: Tensors of two or more dimensions: rows are the first, columns the rest. Dense, as
            :func:`laid_out` makes them.
        split: Matrices that stand below one another in each; where the rows do not divide, one.
        steps: Iterations.
    """
    stacks: dict[tuple[int, ...], Tensors] = {}
    for u in updates:
        rows = as_matrix(u)
        for part in rows.chunk(split) if len(rows) % split == 0 else (rows,):
            flat = part.mT if part.shape[0] > part.shape[1] else part
            stacks.setdefault(tuple(flat.shape), []).append(flat)
    dtype = dtype_of_products(updates[0].device.type, updates[0].dtype)
    for shape, parts in stacks.items():
        stack = parts[0].new_empty((len(parts), *shape), dtype=dtype)
        x = newton_schulz(torch.stack(parts, out=stack), steps)
        torch._foreach_copy_(parts, list(x.unbind()))


def laid_out(t: Tensor) -> Tensor:
    """``t``, or a copy of it where it cannot be seen as a matrix without one."""
    return t if t.dim() == 2 or t.is_contiguous() or _last(t).is_contiguous() else t.contiguous()


def as_matrix(t: Tensor) -> Tensor:
    """A view (first dimension, the rest); the order of the columns is that of the memory.

    The orthogonal factor of a matrix with permuted columns is the permuted factor.
    """
    return t if t.dim() == 2 else (t if t.is_contiguous() else _last(t)).flatten(1)


def _last(t: Tensor) -> Tensor:
    return t.movedim(1, -1)


def dtype_of_products(device: str, dtype: torch.dtype) -> torch.dtype:
    """bfloat16 for single and half precision where the device multiplies in it, else as wide."""
    if dtype == torch.float64:
        return dtype
    return torch.bfloat16 if _multiplies_in_bfloat16(device) else torch.float32


@functools.cache
def _multiplies_in_bfloat16(device: str) -> bool:
    if device == 'cpu':  # torch < 2.10 does not tell
        has: dict[str, Any] = getattr(torch.cpu, 'get_capabilities', dict)()
        return bool(has.get('avx512_bf16') or has.get('amx_bf16') or has.get('bf16'))
    if device != 'cuda' or not torch.cuda.is_available():
        return False
    return torch.cuda.is_bf16_supported(including_emulation=False)
