"""Weight tensors in, numbers out: PL alpha, entropy, L2 norm and PCA energy of every layer.

Nothing here imports mmengine; the hook in :mod:`bocb_mm.hooks` calls it.
"""

from bocb_mm.metrics.indicators import l2_norm, pca_energy, spectral_entropy, weight_entropy
from bocb_mm.metrics.powerlaw import PowerLawFit, fit_power_law
from bocb_mm.metrics.spectrum import Spectrum, spectrum
from bocb_mm.metrics.table import COLUMNS, layer_metrics
from bocb_mm.metrics.watch import Watch, watch
from bocb_mm.metrics.weights import Weight, iter_weights

__all__ = [
    'COLUMNS',
    'PowerLawFit',
    'Spectrum',
    'Watch',
    'Weight',
    'fit_power_law',
    'iter_weights',
    'l2_norm',
    'layer_metrics',
    'pca_energy',
    'spectral_entropy',
    'spectrum',
    'watch',
    'weight_entropy',
]
