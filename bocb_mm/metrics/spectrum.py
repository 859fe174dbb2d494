"""Eigenvalues of weight matrices, as they are and with their columns centred."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

_CHUNK = 1 << 16  # numbers of a matrix, or a quarter of its Gram matrix's, at a time: copies stay
# small
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

    Both come from the smaller Gram matrix G: :math:`W^T W`, centred :math:`G - r\,m m^T` with the
    column means m and r rows, or :math:`W W^T`, centred :math:`C G C`.

    Args:
        slices: ``(slices, rows, columns)``, rows the outputs of the layer. Any float type.
        k: Centred eigenvalues wanted, of all slices together.
        precision: ``'float64'``, or ``'float32'`` for about half the time and an error of about
            3e-7 of the largest eigenvalue.

    Returns:
        The pooled spectra. Negative rounding errors are set to 0.

    Raises:
        numpy.linalg.LinAlgError: LAPACK's iteration did not converge.

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
    """The spectra of many small matrices, a batch at a time: a stem, a patch embedding."""
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
    rows, wide = len(w), w.shape[1] > w.shape[0]
    gram, sums = _gram(w, wide, precision)
    values = np.linalg.eigvalsh(gram)
    if wide:
        gram -= gram.mean(axis=0)
        gram -= gram.mean(axis=1, keepdims=True)
    else:
        mean = (sums / rows).astype(gram.dtype)
        gram -= np.outer(rows * mean, mean)
    total = float(np.trace(gram, dtype=np.float64))
    centred = np.linalg.eigvalsh(gram)[-k:]
    return values.astype(np.float64).clip(min=0), centred.astype(np.float64).clip(min=0), total


def _gram(w: np.ndarray, wide: bool, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """The smaller Gram matrix, and the sums of the columns in float64."""
    n = min(w.shape)
    gram = np.zeros((n, n), precision)
    sums = np.zeros(w.shape[1])
    step = max(_CHUNK // n, n // 4)
    for start in range(0, max(w.shape), step):
        part = w[:, start : start + step] if wide else w[start : start + step]
        block = part.astype(precision, copy=False)
        gram += block @ block.T if wide else block.T @ block
        if not wide:
            sums += block.sum(axis=0, dtype=np.float64)
    return gram, sums
