"""One row a layer: the four indicators of every weight of a model, as a DataFrame."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from bocb_mm import __version__
from bocb_mm.errors import UserError, unknown_name
from bocb_mm.metrics.indicators import l2_norm, pca_energy, spectral_entropy, weight_entropy
from bocb_mm.metrics.powerlaw import FITS, PowerLawFit, fit_power_law
from bocb_mm.metrics.spectrum import Spectrum, spectrum
from bocb_mm.metrics.weights import Source, Weight, iter_weights

COLUMNS = (
    'layer', 'kind', 'shape', 'n_params', 'alpha', 'alpha_xmin', 'alpha_ks', 'entropy', 'l2_norm',
    'pca_energy', 'eligible', 'reason', 'spectral_entropy', 'alpha_sigma', 'n_eigenvalues',
    'layer_index', 'settings',
)  # fmt: skip
BACKENDS = ('native', 'weightwatcher')
PRECISIONS = {'float32': torch.float32, 'float64': torch.float64}
EIGENVALUE_FLOOR = 1e-5  # WeightWatcher 0.7.7 leaves smaller ones out of the fit
CONV_SCALE = 0.5  # and halves the eigenvalues of a convolution
SKIPPED_BELOW = 8  # and skips layers of fewer eigenvalues


def layer_metrics(
    source: Source,
    *,
    layers: str | Iterable[str] | None = None,
    bins: int = 256,
    k: int | Sequence[int] = 10,
    fit: str = 'ks',
    min_eigenvalues: int = 20,
    split_qkv: bool = True,
    precision: str = 'float64',
    backend: str = 'native',
    trust: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    r"""Measure every weight with two or more dimensions.

    ``alpha`` and ``spectral_entropy`` are of the eigenvalues of :math:`W^T W`, those of a
    convolution's k*k slices pooled and halved as WeightWatcher 0.7.7 does; ``pca_energy`` of the
    same matrices with their columns centred. A depthwise convolution is one matrix with a filter a
    row, except for its alpha, which is WeightWatcher's and marked as not eligible.

    Args:
        source: A module, a state dict, or a checkpoint: see
            :func:`bocb_mm.metrics.weights.iter_weights`.
        layers: Shell patterns of the names of the layers to measure; all by default.
        bins: Bins of the histogram behind ``entropy``.
        k: Components in ``pca_energy``. Of several, the first one fills that column and each other
            one a column ``pca_energy_<k>`` at the end.
        fit: ``'ks'``, ``'median'`` or ``'clip_xmax'``: see :func:`fit_power_law`.
        min_eigenvalues: Fewer non-zero eigenvalues than this are not eligible.
        split_qkv: Measure the three matrices of a fused qkv projection one by one.
        precision: ``'float64'``, or ``'float32'``: faster, alpha good to about 1e-3.
        backend: ``'native'``, or ``'weightwatcher'`` to take alpha from the library itself.
        trust: Unpickle a checkpoint without restriction.
        progress: Called with (layers done, layers in all).

    Returns:
        One row a layer, the columns :data:`COLUMNS`. ``entropy`` and ``spectral_entropy`` are in
        nats, ``alpha_xmin`` in squared units of the weights. ``eligible`` says whether alpha means
        something, ``reason`` why not. ``settings`` (and ``attrs``) hold the arguments and version.

    Raises:
        UserError: An argument that does not fit, or nothing to measure in ``source``.

    Example:
        >>> frame = layer_metrics(torch.nn.Linear(64, 64))
        >>> frame.loc[0, ['layer', 'kind', 'eligible']].tolist()
        ['', 'linear', True]

    Source: the paper, appendix A.3; Martin, Peng and Mahoney, Nature Communications 12, 2021.
    """
    ks = _check(bins, k, fit, min_eigenvalues, precision, backend)
    settings = {
        'bocb_mm': __version__, 'backend': backend, 'fit': fit, 'bins': bins,
        'k': '+'.join(map(str, ks)), 'min_eigenvalues': min_eigenvalues,
        'precision': precision, 'split_qkv': split_qkv,
    }  # fmt: skip
    weights = list(iter_weights(source, layers, split_qkv, trust))
    rows = []
    for index, weight in enumerate(weights):
        row = _measure(weight, bins, ks, fit, min_eigenvalues, PRECISIONS[precision])
        rows.append(row | {'layer_index': index})
        if progress:
            progress(index + 1, len(weights))
    if backend == 'weightwatcher':
        from bocb_mm.metrics.weightwatcher import replace_alpha

        settings |= replace_alpha(rows, weights, fit)
    text = ' '.join(f'{key}={value}' for key, value in settings.items())
    extra = [f'pca_energy_{n}' for n in ks[1:]]
    frame = pd.DataFrame([r | {'settings': text} for r in rows], columns=[*COLUMNS, *extra])
    frame.attrs.update(settings)
    return frame


def _check(
    bins: int, k: int | Sequence[int], fit: str, least: int, precision: str, backend: str
) -> list[int]:
    ks = [k] if isinstance(k, int) else list(k)
    if not ks or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in ks):
        raise UserError(f'k={k!r}: expected a whole number of at least 1, or several')
    for name, value, smallest in (('bins', bins, 2), ('min_eigenvalues', least, 2)):
        if not isinstance(value, int) or value < smallest:
            raise UserError(f'{name}={value!r}: expected a whole number of at least {smallest}')
    for kind, name, known in (
        ('fit', fit, FITS),
        ('precision', precision, PRECISIONS),
        ('backend', backend, BACKENDS),
    ):
        if name not in known:
            raise unknown_name(kind, str(name), known, f'one of {", ".join(known)}')
    return ks


def _measure(
    weight: Weight, bins: int, ks: list[int], fit: str, least: int, dtype: torch.dtype
) -> dict[str, Any]:
    w = weight.tensor.detach()
    w = w.to('cpu', torch.float64 if w.dtype == torch.float64 else torch.float32)
    weight = dataclasses.replace(weight, tensor=w)
    row: dict[str, Any] = {
        'layer': weight.layer,
        'kind': weight.kind,
        'shape': 'x'.join(map(str, w.shape)),
        'n_params': w.numel(),
        'eligible': False,
    }
    low, high = (float(v) for v in torch.aminmax(w))
    if not math.isfinite(low + high):
        return row | {'reason': 'not finite'}
    row |= {'entropy': weight_entropy(w, bins), 'l2_norm': l2_norm(w)}
    if low == high:
        return row | {'reason': 'zero' if low == 0 else 'constant'}
    found = spectrum(weight.matrices(), dtype)
    values = pooled_eigenvalues(weight, found)
    law = PowerLawFit() if len(values) < SKIPPED_BELOW else fit_power_law(above_floor(values), fit)
    reason = _why_not(weight, values, law, least)
    row |= {
        'alpha': law.alpha,
        'alpha_xmin': law.xmin,
        'alpha_ks': law.ks,
        'alpha_sigma': law.sigma,
        'n_eigenvalues': len(above_floor(values)),
        'spectral_entropy': spectral_entropy(found.plain),
        'pca_energy': pca_energy(found.centred, ks[0]),
        'eligible': not reason,
        'reason': reason,
    }
    return row | {f'pca_energy_{n}': pca_energy(found.centred, n) for n in ks[1:]}


def pooled_eigenvalues(weight: Weight, found: Spectrum) -> np.ndarray:
    """The eigenvalues that WeightWatcher 0.7.7 would fit for this weight, before its floor."""
    if weight.kind == 'depthwise':
        columns = weight.tensor.detach().flatten(2).double().square().sum((0, 1))
        return np.sort((CONV_SCALE * columns).cpu().numpy())
    return found.plain * (CONV_SCALE if weight.kind == 'conv' else 1.0)


def above_floor(values: np.ndarray) -> np.ndarray:
    """Eigenvalues that count as not zero."""
    return values[values > EIGENVALUE_FLOOR]


def _why_not(weight: Weight, values: np.ndarray, law: PowerLawFit, least: int) -> str:
    """Why alpha means nothing here, or ``''``."""
    if weight.kind == 'depthwise':
        return 'one row: a depthwise slice is a vector'
    if min(weight.matrices().shape[1:]) < 2:
        return 'one row: the matrix is a vector'
    count = len(above_floor(values))
    if count < least:
        return f'too few eigenvalues: {count} above {EIGENVALUE_FLOOR:g}, {least} needed'
    return '' if math.isfinite(law.alpha) else 'no power law fits'
