"""One row a layer: the four indicators of every weight of a model, as a DataFrame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from bocb_mm import __version__
from bocb_mm.errors import UserError, unknown_name
from bocb_mm.metrics.layer import PRECISIONS, Settings, measure
from bocb_mm.metrics.powerlaw import FITS
from bocb_mm.metrics.weights import Source, Weight, iter_weights

COLUMNS = (
    'layer', 'kind', 'shape', 'n_params', 'alpha', 'alpha_xmin', 'alpha_ks', 'entropy', 'l2_norm',
    'pca_energy', 'eligible', 'reason', 'spectral_entropy', 'alpha_sigma', 'n_eigenvalues',
    'layer_index', 'settings',
)  # fmt: skip
BACKENDS = ('native', 'weightwatcher')
_AT_ONCE = 2  # layers measured at the same time; a third would not fit the bound on memory
_LARGE = 2048  # matrices from this size on keep all threads busy by themselves


def layer_metrics(
    source: Source,
    *,
    layers: str | Iterable[str] | None = None,
    bins: int = 256,
    k: int | Sequence[int] = 10,
    fit: str = 'ks',
    min_eigenvalues: int = 20,
    split_qkv: bool = True,
    precision: str = 'auto',
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
        precision: ``'auto'``: float32, and float64 for a layer whose alpha would move by more than
            2e-4 of itself under float32's rounding; or ``'float64'`` or ``'float32'`` throughout.
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
        >>> frame.loc[0, ['kind', 'shape']].tolist(), int(frame.loc[0, 'n_params'])
        (['linear', '64x64'], 4096)

    Source: the paper, appendix A.3; Martin, Peng and Mahoney, Nature Communications 12, 2021.
    """
    ks = _check(bins, k, fit, min_eigenvalues, precision, backend)
    record: dict[str, Any] = {
        'bocb_mm': __version__, 'backend': backend, 'fit': fit, 'bins': bins,
        'k': '+'.join(map(str, ks)), 'min_eigenvalues': min_eigenvalues,
        'precision': precision, 'split_qkv': split_qkv,
    }  # fmt: skip
    weights = list(iter_weights(source, layers, split_qkv, trust))
    rows: list[dict[str, Any]] = [{} for _ in weights]
    settings = Settings(bins, ks, fit, min_eigenvalues, precision)
    for done, (index, row) in enumerate(_rows(weights, settings), 1):
        rows[index] = row | {'layer_index': index}
        if progress:
            progress(done, len(weights))
    if backend == 'weightwatcher':
        from bocb_mm.metrics.weightwatcher import replace_alpha

        record |= replace_alpha(rows, weights, fit)
    text = ' '.join(f'{key}={value}' for key, value in record.items())
    extra = [f'pca_energy_{n}' for n in ks[1:]]
    frame = pd.DataFrame([r | {'settings': text} for r in rows], columns=[*COLUMNS, *extra])
    frame.attrs.update(record)
    return frame


def _rows(weights: list[Weight], settings: Settings) -> Iterator[tuple[int, dict[str, Any]]]:
    """Index and row of every weight: those of a small side two at a time, then the large ones.

    The largest of the small ones come first, so that their memory serves the others.

    A BLAS with several threads waits more than it works on small matrices, and comes to a stop
    when the processor is busy with other processes, as data loaders make it.
    """
    threads = torch.get_num_threads()
    order = sorted(range(len(weights)), key=lambda i: -_side(weights[i]))
    small = [i for i in order if _side(weights[i]) < _LARGE]
    large = [i for i in order if _side(weights[i]) >= _LARGE]
    with threadpool_limits(1, 'blas'), ThreadPoolExecutor(min(threads, _AT_ONCE)) as pool:
        yield from zip(small, pool.map(lambda i: measure(weights[i], settings), small))
    for i in large:
        with threadpool_limits(threads, 'blas'):
            row = measure(weights[i], settings)
        yield i, row


def _side(weight: Weight) -> int:
    """Size of the square matrix that is decomposed, roughly."""
    return min(weight.matrices().shape[1:])


def _check(
    bins: int, k: int | Sequence[int], fit: str, least: int, precision: str, backend: str
) -> tuple[int, ...]:
    ks = (k,) if isinstance(k, int) else tuple(dict.fromkeys(k))
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
