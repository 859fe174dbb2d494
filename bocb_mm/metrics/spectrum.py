"""Eigenvalues of weight matrices, as they are and with columns centred, from one reduction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bocb_mm.metrics import lapack

_CHUNK = 1 << 16  # numbers of a matrix, or a quarter of its Gram matrix's, at a time: copies and
# BLAS's own buffers stay small
_SMALL, _MANY = 32, 4  # this many matrices of at most this size are quicker done in one call,
_PART = 1 << 14  # of at most this many numbers


@dataclass(frozen=True)
class Spectrum:
    """Pooled spectra of one layer's matrices, float64.

    Attributes:
        eigenvalues: All of ``W.T @ W``: ``slices * min(rows, columns)`` of them, ascending.
        centred: The largest ones after each column's mean is taken off, ascending.
        centred_total: Sum of all eigenvalues of the centred matrices.
    """

    eigenvalues: np.ndarray
    centred: np.ndarray
    centred_total: float


def spectrum(slices: torch.Tensor, k: int = 10, precision: str = 'float64') -> Spectrum:
    r"""Eigenvalues of :math:`W^T W`, and the largest of :math:`W^T C W`, C the centring matrix.

    Let G be the smaller of the two Gram matrices. A Householder reflection turns the direction that
    centring touches into the first basis vector: the column means m if G is :math:`W^T W`
    (centred: :math:`G - r\,m m^T`, r rows), the vector of ones if it is :math:`W W^T` (centred:
    :math:`C G C`). LAPACK's ``sytrd`` then leaves that vector alone, so the tridiagonal matrices of
    both spectra differ in one number, or one row and column, and the expensive O(n^3) step is done
    once.

    Args:
        slices: ``(slices, rows, columns)``, rows the outputs of the layer. Any float type.
        k: Centred eigenvalues wanted, of all slices together.
        precision: ``'float64'``, or ``'float32'`` for about half the time and an error of about
            3e-7 of the largest eigenvalue.

    Returns:
        The pooled spectra. Negative rounding errors are set to 0.

    Example:
        >>> spectrum(torch.eye(3)[None]).eigenvalues
        array([1., 1., 1.])
    """
    if len(slices) >= _MANY and min(slices.shape[1:]) <= _SMALL:
        return _of_small(slices, k)
    parts = [_eigenvalues(w.numpy(), k, precision) for w in slices.detach()]
    values, centred, totals = zip(*parts)
    top = np.sort(np.concatenate(centred))[-k:]
    return Spectrum(np.sort(np.concatenate(values)), top, max(float(sum(totals)), 0.0))


def _of_small(slices: torch.Tensor, k: int) -> Spectrum:
    """The spectra of many small matrices, without the detour: a stem, a patch embedding."""
    plain, centred = [], []
    for part in slices.detach().split(max(1, _PART // slices[0].numel())):
        w = part.contiguous().double().numpy()
        plain.append(_batch(w))
        centred.append(_batch(w - w.mean(axis=1, keepdims=True)))
    values = np.sort(np.concatenate(centred))
    return Spectrum(np.sort(np.concatenate(plain)), values[-k:], float(values.sum()))


def _batch(w: np.ndarray) -> np.ndarray:
    """Eigenvalues of all Gram matrices, not in order, none negative."""
    turned = w.swapaxes(1, 2)
    gram = turned @ w if w.shape[1] >= w.shape[2] else w @ turned
    return np.linalg.eigvalsh(gram).ravel().clip(min=0.0)


def _eigenvalues(w: np.ndarray, k: int, precision: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Eigenvalues of one matrix, the k largest of the centred one, and the sum of the latter's."""
    wide = w.shape[1] > w.shape[0]
    gram, mean = _gram(w, wide, precision)
    direction = np.ones(len(gram), gram.dtype) if wide else mean
    length = float(np.linalg.norm(direction))
    if length > 0:
        lapack.reflect(gram, direction / length)
    d, e = lapack.tridiagonal(gram)
    values = lapack.largest(d, e, len(d)).clip(min=0.0)
    if wide:
        d, e = np.append(d[1:], 0.0), np.append(e[1:], 0.0)[: len(e)]
    else:
        d[0] -= w.shape[0] * length**2
    return values, lapack.largest(d, e, min(k, len(d))).clip(min=0.0), float(d.sum())


def _gram(w: np.ndarray, wide: bool, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Lower triangle of the smaller Gram matrix in Fortran order, and the means of the columns."""
    rows, columns = w.shape
    n = min(rows, columns)
    gram = np.zeros((n, n), precision, order='F')
    sums = np.zeros(columns)
    step = max(_CHUNK // n, n // 4)
    for start in range(0, max(rows, columns), step):
        part = w[:, start : start + step] if wide else w[start : start + step]
        block = _rows_whole(part.astype(precision, copy=False))
        lapack.add_gram(gram, block, wide)
        if not wide:
            sums += block.sum(axis=0, dtype=np.float64)
    return gram, (sums / rows).astype(precision)


def _rows_whole(block: np.ndarray) -> np.ndarray:
    """The block itself if BLAS can read it, each row in one piece; otherwise a copy."""
    apart, step = block.strides
    whole = step == block.itemsize and apart >= step * block.shape[1]
    return block if whole else np.ascontiguousarray(block)
