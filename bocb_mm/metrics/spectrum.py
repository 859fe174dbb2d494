"""Eigenvalues of weight matrices, as they are and with columns centred, from one reduction.

NumPy and SciPy only: LAPACK lets go of Python's lock, so that two threads do two matrices at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import blas, eigvalsh_tridiagonal, lapack

_ROUTINES = {
    'float32': (blas.ssyrk, blas.ssymv, blas.ssyr2, lapack.ssytrd, lapack.ssytrd_lwork),
    'float64': (blas.dsyrk, blas.dsymv, blas.dsyr2, lapack.dsytrd, lapack.dsytrd_lwork),
}
_CHUNK = 1 << 22  # numbers converted to float64 at a time: memory stays small
_SMALL, _MANY = 32, 4  # this many matrices of at most this size are quicker done in one call,
_PART = 1 << 16  # of at most this many numbers


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
    parts = [_eigenvalues(w, k, precision) for w in slices.detach()]
    values, centred, totals = zip(*parts)
    top = np.sort(np.concatenate(centred))[-k:]
    return Spectrum(np.sort(np.concatenate(values)), top, max(float(sum(totals)), 0.0))


def _of_small(slices: torch.Tensor, k: int) -> Spectrum:
    """The spectra of many small matrices, without the detour: a stem, a patch embedding."""
    plain, centred = [], []
    for part in slices.detach().split(max(1, _PART // slices[0].numel())):
        w = part.double().numpy()
        plain.append(_batch(w))
        centred.append(_batch(w - w.mean(axis=1, keepdims=True)))
    values = np.sort(np.concatenate(centred))
    return Spectrum(np.sort(np.concatenate(plain)), values[-k:], float(values.sum()))


def _batch(w: np.ndarray) -> np.ndarray:
    """Eigenvalues of all Gram matrices, not in order, none negative."""
    turned = w.swapaxes(1, 2)
    gram = turned @ w if w.shape[1] >= w.shape[2] else w @ turned
    return np.linalg.eigvalsh(gram).ravel().clip(min=0.0)


def _eigenvalues(w: torch.Tensor, k: int, precision: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Eigenvalues of one matrix, the k largest of the centred one, and the sum of the latter's."""
    wide = w.shape[1] > w.shape[0]
    gram, mean = _gram(w, wide, precision)
    direction = np.ones(len(gram), gram.dtype) if wide else mean
    length = float(np.linalg.norm(direction))
    if length > 0:
        gram = _reflected(gram, direction / length)
    d, e = _tridiagonal(gram)
    values = _largest(d, e, len(d))
    if wide:
        d, e = np.append(d[1:], 0.0), np.append(e[1:], 0.0)[: len(e)]
    else:
        d[0] -= w.shape[0] * length**2
    return values, _largest(d, e, k), float(d.sum())


def _gram(w: torch.Tensor, wide: bool, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Lower triangle of the smaller Gram matrix in Fortran order, and the means of the columns."""
    syrk = _ROUTINES[precision][0]
    rows, columns = w.shape
    n = min(rows, columns)
    gram = np.zeros((n, n), precision, order='F')
    sums = np.zeros(columns)
    step = max(1, _CHUNK // (n if precision == 'float64' else 1))
    for start in range(0, max(rows, columns), step):
        part = w[:, start : start + step] if wide else w[start : start + step]
        block = np.ascontiguousarray(part.numpy(), precision)
        # Row by row in memory is the transpose in Fortran order.
        gram = syrk(1.0, block.T, trans=wide, beta=1.0, c=gram, lower=1, overwrite_c=1)
        if not wide:
            sums += block.sum(axis=0, dtype=np.float64)
    return gram, (sums / rows).astype(precision)


def _reflected(gram: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """``H @ gram @ H``, H the Householder reflection that turns ``unit`` into plus or minus e1."""
    _, symv, syr2, *_ = _routines(gram)
    u = unit.copy()
    u[0] += np.copysign(u.dtype.type(1), u[0])
    beta = 2 / np.dot(u, u)
    p = symv(beta, gram, u, lower=1)
    q = p - (beta / 2) * np.dot(p, u) * u
    return syr2(-1.0, u, q, a=gram, lower=1, overwrite_a=1)


def _tridiagonal(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Diagonal and off-diagonal of the tridiagonal form; the first basis vector stays."""
    n = len(gram)
    if n == 1:
        return gram[0].astype(np.float64), np.empty(0)
    *_, sytrd, workspace = _routines(gram)
    size, _ = workspace(n, lower=1)
    _, d, e, _, info = sytrd(gram, lower=1, lwork=int(size), overwrite_a=1)
    if info != 0:
        raise ArithmeticError(f'LAPACK sytrd returned {info}')
    return d.astype(np.float64), e.astype(np.float64)


def _largest(d: np.ndarray, e: np.ndarray, k: int) -> np.ndarray:
    """The k largest eigenvalues of a symmetric tridiagonal matrix, ascending, none negative."""
    n = len(d)
    if n == 1:
        return d.clip(min=0.0)
    few: dict[str, Any] = {'lapack_driver': 'sterf'}
    if 4 * k < n:  # bisection beats the QL iteration, which only gives all of them
        few = {'lapack_driver': 'stebz', 'select': 'i', 'select_range': (n - k, n - 1)}
    return eigvalsh_tridiagonal(d, e, check_finite=False, **few)[-k:].clip(min=0.0)


def _routines(gram: np.ndarray) -> tuple[Any, ...]:
    return _ROUTINES[gram.dtype.name]
