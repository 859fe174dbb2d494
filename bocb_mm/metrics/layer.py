"""The indicators of one weight, and whether its alpha means something."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bocb_mm.metrics.indicators import l2_norm, pca_energy, spectral_entropy, weight_entropy
from bocb_mm.metrics.powerlaw import PowerLawFit, fit_power_law
from bocb_mm.metrics.spectrum import Spectrum, spectrum
from bocb_mm.metrics.weights import Weight

EIGENVALUE_FLOOR = 1e-5  # WeightWatcher 0.7.7 leaves smaller ones out of the fit
CONV_SCALE = 0.5  # and halves the eigenvalues of a convolution
SKIPPED_BELOW = 8  # and skips layers of fewer eigenvalues
PRECISIONS = ('auto', 'float32', 'float64')

_ROUNDING = 4 * float(np.finfo(np.float32).eps)  # of the largest eigenvalue; 2.5 eps were seen
_STABLE = 2e-4  # relative change of alpha under such rounding that float32 is trusted with
_FAR = 32  # binary digits from 1: float32 holds the sums of squares of what is nearer
_CENTRED_SHARE = 1e-3  # a centred matrix that keeps less than this was cancelled away


@dataclass(frozen=True)
class Settings:
    """The arguments of :func:`bocb_mm.metrics.layer_metrics` that bear on one layer."""

    bins: int = 256
    ks: tuple[int, ...] = (10,)
    fit: str = 'ks'
    min_eigenvalues: int = 20
    precision: str = 'auto'


@np.errstate(over='ignore')  # what no float64 can hold is written as inf
def measure(weight: Weight, settings: Settings) -> dict[str, Any]:
    """One row of the table: see :func:`bocb_mm.metrics.layer_metrics` for its columns."""
    w = weight.tensor.detach()
    w = w.to('cpu', torch.float64 if w.dtype == torch.float64 else torch.float32)
    row: dict[str, Any] = {
        'layer': weight.layer,
        'kind': weight.kind,
        'shape': 'x'.join(map(str, w.shape)),
        'n_params': w.numel(),
        'eligible': False,
    }
    # By numpy: torch would start threads beside each of ours, and malloc keep memory for them.
    low, high = float(w.numpy().min()), float(w.numpy().max())
    if not math.isfinite(low) or not math.isfinite(high):
        return row | {'reason': 'not finite'}
    exponent = _exponent(low, high)
    if exponent:
        w = torch.from_numpy(np.ldexp(w.numpy(), -exponent))
        low, high = math.ldexp(low, -exponent), math.ldexp(high, -exponent)
    weight = dataclasses.replace(weight, tensor=w)
    row |= {
        'entropy': weight_entropy(w, settings.bins, (low, high)),
        'l2_norm': float(np.ldexp(l2_norm(w), exponent)),
    }
    if low == high:
        return row | {'reason': 'zero' if low == 0 else 'constant'}
    try:
        return row | _spectral(weight, settings, exponent)
    except np.linalg.LinAlgError as error:
        return row | {'reason': f'no eigenvalues: {error}'}


def _exponent(low: float, high: float) -> int:
    """Power of two that brings weights far from 1 near it, whose squares would not be numbers."""
    exponent = math.frexp(max(-low, high))[1]
    return exponent if abs(exponent) > _FAR else 0


def _spectral(weight: Weight, settings: Settings, exponent: int) -> dict[str, Any]:
    """What the spectra give, of weights that were divided by ``2**exponent``."""
    floor = float(np.ldexp(EIGENVALUE_FLOOR, -2 * exponent))
    found, values, law = _decompose(weight, settings, floor)
    reason = _why_not(weight, values, law, settings.min_eigenvalues)
    row = {
        'alpha': law.alpha,
        'alpha_xmin': float(np.ldexp(law.xmin, 2 * exponent)),
        'alpha_ks': law.ks,
        'alpha_sigma': law.sigma,
        'n_eigenvalues': len(values),
        'spectral_entropy': spectral_entropy(found.eigenvalues),
        'eligible': not reason,
        'reason': reason,
    }
    for k in settings.ks:
        name = 'pca_energy' if k == settings.ks[0] else f'pca_energy_{k}'
        row[name] = pca_energy(found.centred, k, found.centred_total)
    return row


def _decompose(
    weight: Weight, settings: Settings, floor: float
) -> tuple[Spectrum, np.ndarray, PowerLawFit]:
    """The spectra, the eigenvalues that are fitted, and the fit, in the precision they need."""
    slices = weight.matrices()
    quick = settings.precision == 'auto' and slices.dtype == torch.float32
    precision = 'float32' if quick else settings.precision.replace('auto', 'float64')
    found = spectrum(slices, max(settings.ks), precision)
    values = fitted_eigenvalues(weight, found, floor)
    law = _fit(values, settings.fit)
    if quick and not _float32_suffices(found, values, law, settings, floor):
        found = spectrum(slices, max(settings.ks), 'float64')
        values = fitted_eigenvalues(weight, found, floor)
        law = _fit(values, settings.fit)
    return found, values, law


def fitted_eigenvalues(weight: Weight, found: Spectrum, floor: float) -> np.ndarray:
    """The eigenvalues that WeightWatcher 0.7.7 would fit for this weight, ascending."""
    values = found.eigenvalues
    if weight.kind == 'depthwise':
        filters = weight.tensor.flatten(2).numpy()
        values = np.sort(np.square(filters, dtype=np.float64).sum((0, 1)))
    if weight.kind in ('conv', 'transposed', 'depthwise'):
        values = values * CONV_SCALE
    if len(values) < SKIPPED_BELOW:
        return values[:0]
    return values[values > floor]


def _fit(values: np.ndarray, fit: str) -> PowerLawFit:
    return fit_power_law(values, fit) if len(values) else PowerLawFit()


def _float32_suffices(
    found: Spectrum, values: np.ndarray, law: PowerLawFit, settings: Settings, floor: float
) -> bool:
    """Whether alpha stays where it is when every eigenvalue moves by as much as float32 rounds.

    The least distance may be nearly reached at two places far apart, and a tail may start among
    eigenvalues too small for float32; both show when the fit is repeated with other rounding.
    """
    if not len(values):
        return True
    noise = _ROUNDING * float(values[-1])
    sure = int(np.sum(values > max(floor, noise) + noise))
    if sure < max(settings.min_eigenvalues, SKIPPED_BELOW):
        return False
    if found.centred_total < _CENTRED_SHARE * float(np.sum(found.eigenvalues)):
        return False
    wave = noise * np.cos(2.4 * np.arange(len(values)))  # fixed: random numbers are not ours to use
    for moved in (values + wave, values - wave):
        alpha = _fit(moved[moved > floor], settings.fit).alpha
        if not abs(alpha - law.alpha) <= _STABLE * law.alpha:
            return False
    return True


def _why_not(weight: Weight, values: np.ndarray, law: PowerLawFit, least: int) -> str:
    """Why alpha means nothing here, or ``''``."""
    if weight.kind == 'depthwise':
        return 'one row: a depthwise slice is a vector'
    if min(weight.matrices().shape[1:]) < 2:
        return 'one row: the matrix is a vector'
    if len(values) < least:
        return f'too few eigenvalues: {len(values)} above {EIGENVALUE_FLOOR:g}, {least} needed'
    return '' if math.isfinite(law.alpha) else 'no power law fits'
