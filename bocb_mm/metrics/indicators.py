"""The numbers of one layer: entropy of the weights, of the spectrum, L2 norm, PCA energy.

Each function takes a tensor or a spectrum and returns a float. The exponent alpha has a module of
its own, :mod:`bocb_mm.metrics.powerlaw`.
"""

from __future__ import annotations

import math

import numpy as np
import torch

_BLOCK = 1 << 16  # weights at a time: few enough for the cache, many enough for two threads at once
_SERIAL = 1 << 15  # torch starts threads of its own for more, and malloc keeps memory for each one
_LEAST_RANGE = 1e-33  # bins over less, or over more than its inverse, may overflow in float32


def weight_entropy(
    weights: torch.Tensor, bins: int = 256, span: tuple[float, float] | None = None
) -> float:
    r"""Shannon entropy of the histogram of the weights, in nats.

    .. math:: H = -\sum_i p_i \ln p_i

    with :math:`p_i` the share of the weights in bin i of ``bins`` equal bins from the least weight
    to the largest. High: spread evenly over their range; low: packed together, a few far out.

    Args:
        weights: Any shape and float type, finite.
        bins: Number of bins; entropies of different numbers of bins do not compare.
        span: The least weight and the largest, if they are known.

    Returns:
        Between 0 (all weights in one bin) and ``ln(bins)`` (uniform).

    Example:
        >>> round(weight_entropy(torch.arange(256.0)) / math.log(256), 6)
        1.0

    Source: the paper, appendix A.3, which leaves the bins open.
    """
    flat = weights.detach().reshape(-1)
    low, high = span or (float(v) for v in torch.aminmax(flat))
    if high > low and not _LEAST_RANGE < high / 2 - low / 2 < 1 / _LEAST_RANGE:
        exponent = math.frexp(high / 2 - low / 2)[1]
        near_one = np.ldexp(flat.double().cpu().numpy(), -exponent)
        return weight_entropy(torch.from_numpy(near_one), bins)
    scale = np.float32(bins / (high - low) if high > low else 0.0)
    counts = np.zeros(bins, np.int64)
    # Block by block into the same memory; counting bytes is several times faster than torch.histc.
    places = np.empty(min(_BLOCK, flat.numel()), np.float32)
    index = np.empty(len(places), np.uint8 if bins <= 256 else np.int64)
    for block in flat.split(_BLOCK):
        n = len(block)
        np.subtract(block.float().cpu().numpy(), np.float32(low), out=places[:n])
        np.multiply(places[:n], scale, out=places[:n])
        np.minimum(places[:n], bins - 1, out=places[:n])
        np.copyto(index[:n], places[:n], casting='unsafe')
        for part in torch.from_numpy(index[:n]).split(_SERIAL):
            counts += torch.bincount(part, minlength=bins).numpy()
    p = counts[counts > 0] / flat.numel()
    return abs(float(-np.sum(p * np.log(p))))


def l2_norm(weights: torch.Tensor) -> float:
    r"""Euclidean norm of all weights, in units of the weights.

    .. math:: \|w\|_2 = \sqrt{\sum_i w_i^2}

    Args:
        weights: Any shape and float type.

    Returns:
        At least 0.

    Example:
        >>> l2_norm(torch.tensor([[3.0, 4.0]]))
        5.0

    Source: the paper, appendix A.3.
    """
    flat = weights.detach().reshape(-1)
    # In double precision: a float32 sum over a layer is off by 1e-5.
    blocks = [float(torch.linalg.vector_norm(b.double())) for b in flat.split(_SERIAL // 2)]
    return math.hypot(*blocks)


def spectral_entropy(eigenvalues: np.ndarray) -> float:
    r"""Von Neumann entropy of a spectrum, in nats.

    .. math:: S = -\sum_i p_i \ln p_i, \qquad p_i = \lambda_i / \sum_j \lambda_j

    ``exp(S)`` is the effective rank. WeightWatcher's ``entropy`` is S over the logarithm of the
    rank, of the same eigenvalues.

    Args:
        eigenvalues: Eigenvalues of ``W.T @ W``, none negative.

    Returns:
        Between 0 (rank one) and ``ln(len(eigenvalues))`` (all alike); NaN if all are 0.

    Example:
        >>> round(spectral_entropy(np.ones(8)) / math.log(8), 6)
        1.0

    Source: Roy and Vetterli, The effective rank, EUSIPCO 2007; Martin and Mahoney, JMLR 22, 2021.
    """
    total = float(np.sum(eigenvalues))
    if not total > 0:
        return math.nan
    p = eigenvalues / total
    p = p[p > 0]
    return abs(float(-np.sum(p * np.log(p))))


def pca_energy(eigenvalues: np.ndarray, k: int = 10, total: float | None = None) -> float:
    r"""Share of the variance in the k first principal components.

    .. math:: E_k = \sum_{i=1}^{k} \lambda_i \Big/ \sum_{i=1}^{n} \lambda_i

    Args:
        eigenvalues: Eigenvalues of the covariance matrix, that is of ``W.T @ W`` with the columns
            of W centred (a common factor cancels), in any order.
        k: Components counted, at least 1.
        total: Sum of all eigenvalues, if ``eigenvalues`` holds only the largest ones.

    Returns:
        Between ``min(k, n) / n`` (all directions alike) and 1; NaN if all eigenvalues are 0.

    Example:
        >>> pca_energy(np.array([1.0, 2.0, 5.0]), k=1)
        0.625

    Source: the paper, appendix A.3.
    """
    if total is None:
        total = float(np.sum(eigenvalues))
    if not total > 0:
        return math.nan
    return min(float(np.sum(np.sort(eigenvalues)[-k:])) / total, 1.0)
