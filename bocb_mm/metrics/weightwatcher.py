"""Alpha from the WeightWatcher library itself, its logging, warnings and prints contained."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from bocb_mm.errors import UserError
from bocb_mm.metrics.weights import Weight

_FITS: dict[str, dict[str, Any]] = {'ks': {}, 'clip_xmax': {'fix_fingers': 'clip_xmax'}}
_COLUMNS = {'alpha': 'alpha', 'xmin': 'alpha_xmin', 'D': 'alpha_ks', 'sigma': 'alpha_sigma'}
_NAME = 'bocb_layer_{}'


def replace_alpha(
    rows: list[dict[str, Any]], weights: Sequence[Weight], fit: str
) -> dict[str, Any]:
    """Put WeightWatcher's alpha, xmin, distance and standard error in the place of ours.

    Layers that it skips (bare parameters, fewer than 8 eigenvalues, not finite) get NaN and are not
    eligible. The weights are handed over as plain Linear and Conv2d layers, so that the split
    matrices of a fused qkv are measured as well.

    Args:
        rows: Rows of the table, in the order of ``weights``; changed in place.
        weights: The weights.
        fit: ``'ks'`` or ``'clip_xmax'``.

    Returns:
        What to record: the version of the library.

    Raises:
        UserError: The library is not installed, or has no such fit.
    """
    if fit not in _FITS:
        raise UserError(f"fit={fit!r}: backend='weightwatcher' has {', '.join(_FITS)}")
    model = nn.Module()
    for index, (row, weight) in enumerate(zip(rows, weights)):
        layer = _as_layer(weight) if row.get('reason') != 'not finite' else None
        if layer is not None:
            model.add_module(_NAME.format(index), layer)
    found = analyze(model, **_FITS[fit]) if len(list(model.children())) else {}
    for index, row in enumerate(rows):
        values = found.get(_NAME.format(index), {})
        row |= {ours: values.get(theirs, float('nan')) for theirs, ours in _COLUMNS.items()}
        if not values and row.get('eligible'):
            row |= {'eligible': False, 'reason': 'skipped by WeightWatcher'}
    return {'weightwatcher': importlib.metadata.version('weightwatcher')}


def analyze(model: nn.Module, **arguments: Any) -> dict[str, dict[str, Any]]:
    """``WeightWatcher(model).analyze()`` as a dict of rows by layer name, without side effects.

    Args:
        model: A module; WeightWatcher writes an attribute ``longname`` into its layers.
        **arguments: Passed on to ``analyze``.

    Returns:
        Layer name to WeightWatcher's row. A fit that failed (alpha -1) is left out.

    Raises:
        UserError: The library is not installed.
    """
    with contained():
        try:
            from weightwatcher import WeightWatcher
        except ImportError:
            raise UserError(
                "backend='weightwatcher': not installed; pip install weightwatcher==0.7.7"
            ) from None
        logging.getLogger('weightwatcher').setLevel(logging.ERROR)
        details = WeightWatcher(model=model).analyze(**arguments)
    if details.empty:
        return {}
    rows = details[details['alpha'] > 0].to_dict('records')
    return {str(row['longname']): {str(k): v for k, v in row.items()} for row in rows}


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Undo what weightwatcher 0.7.7 does to the process when it is imported and run.

    It configures the root logger (level INFO, a handler), sets other libraries' levels, turns
    warnings off for good, and prints.
    """
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    others = {name: logging.getLogger(name).level for name in ('matplotlib', 'weightwatcher')}
    filters = list(warnings.filters)
    sink = io.StringIO()
    try:
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            warnings.simplefilter('ignore')
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, value in others.items():
            logging.getLogger(name).setLevel(value)
        warnings.filters[:] = filters  # type: ignore[index]


def _as_layer(weight: Weight) -> nn.Module | None:
    """A Linear or Conv2d that holds the weight, or None where WeightWatcher has no such layer."""
    w = weight.tensor.detach().to('cpu', torch.float32)
    if w.dim() == 2:
        layer: nn.Module = nn.Linear(1, 1, bias=False)
    elif w.dim() == 4:
        layer = nn.Conv2d(1, 1, 1, bias=False)
    else:
        return None
    layer.weight = nn.Parameter(w, requires_grad=False)
    return layer
