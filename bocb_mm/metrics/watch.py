"""Layer metrics of a model as it trains, in a plain PyTorch loop, and the file they go to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from bocb_mm.errors import UserError
from bocb_mm.metrics.table import layer_metrics
from bocb_mm.runs.files import atomic_write_text

FILE_NAME = 'layer_metrics.csv'
_SCALARS = ('alpha', 'entropy', 'l2_norm', 'pca_energy', 'spectral_entropy')


class Watch:
    """What :func:`watch` returns: measures its model when asked, and remembers.

    Attributes:
        history: All snapshots so far in one frame: the columns of
            :func:`bocb_mm.metrics.layer_metrics` and those that say when.
    """

    def __init__(
        self, model: nn.Module, out: str | os.PathLike[str] | None = None, **settings: Any
    ) -> None:
        self._model, self._settings = model, settings
        self._out = None if out is None else Path(out)
        self.history = pd.DataFrame()
        if self._out and not self._out.parent.is_dir():
            raise UserError(f'{self._out}: its directory does not exist; make it first')

    def snapshot(self, **when: int | float | str) -> pd.DataFrame:
        """Measure the model now.

        Args:
            **when: What to call this moment, e.g. ``epoch=3, iteration=1200``; a column each.

        Returns:
            One row a layer.
        """
        frame = layer_metrics(self._model, **self._settings).assign(**when)
        parts = [f for f in (self.history, frame) if len(f)]
        self.history = pd.concat(parts, ignore_index=True) if parts else frame
        if self._out:
            atomic_write_text(self._out, self.history.to_csv(index=False))
        return frame


def watch(model: nn.Module, out: str | os.PathLike[str] | None = None, **settings: Any) -> Watch:
    """Watch the layers of a model in a training loop of your own.

    Args:
        model: Any module; wrapped by DDP or ``torch.compile`` is as good.
        out: CSV file that every snapshot is added to; it starts empty.
        **settings: Arguments of :func:`bocb_mm.metrics.layer_metrics`.

    Returns:
        An object with ``snapshot(**when)`` and ``history``.

    Raises:
        UserError: The directory of ``out`` does not exist.

    Example:
        >>> watcher = watch(nn.Linear(32, 32), bins=64)
        >>> for epoch in range(2):
        ...     _ = watcher.snapshot(epoch=epoch)  # after a round of training
        >>> watcher.history['epoch'].tolist()
        [0, 1]
    """
    return Watch(model, out, **settings)


def scalars_of(frame: pd.DataFrame, each_layer: bool = False) -> dict[str, float]:
    """Numbers of a snapshot for a log: medians over the layers, those of each layer on request.

    The median of alpha is over the layers where it means something. What is not a number is left
    out.

    Args:
        frame: What :func:`bocb_mm.metrics.layer_metrics` gave.
        each_layer: Add the numbers of every layer.

    Example:
        >>> from bocb_mm.metrics import layer_metrics
        >>> sorted(scalars_of(layer_metrics(nn.Linear(32, 32))))[:2]
        ['layer_metrics/alpha', 'layer_metrics/entropy']
    """
    medians = frame[list(_SCALARS)].median()
    medians['alpha'] = frame.loc[frame['eligible'], 'alpha'].median()
    values = {f'layer_metrics/{name}': float(v) for name, v in medians.items()}
    if each_layer:
        for row in frame.to_dict('records'):
            values |= {f'{row["layer"]}/{name}': float(row[name]) for name in _SCALARS}
    return {name: v for name, v in values.items() if pd.notna(v)}


def append_rows(path: str | os.PathLike[str], frame: pd.DataFrame) -> None:
    """Add rows to a CSV file, all or none of them; the header is written once.

    Raises:
        UserError: The file has other columns.
    """
    path = Path(path)
    old = path.read_text(encoding='utf-8') if path.is_file() else ''
    new = frame.to_csv(index=False)
    if old:
        header, _, new = new.partition('\n')
        if old.partition('\n')[0].strip() != header:
            raise UserError(f'{path}: has other columns than these metrics; move it away first')
    atomic_write_text(path, old + new)


def keep_rows_until(path: str | os.PathLike[str], iteration: int) -> set[int]:
    """Drop the rows of a later iteration, as a resumed run needs, and say which are there.

    Args:
        path: A file with a column ``iteration``; nothing happens if it does not exist.
        iteration: Last iteration to keep.

    Returns:
        The iterations that have rows.
    """
    path = Path(path)
    if not path.is_file():
        return set()
    text = path.read_text(encoding='utf-8')
    frame = pd.read_csv(path)
    late = frame['iteration'] > iteration
    if late.all():
        path.unlink()
    elif late.any():
        # Whole lines of the old text, so that no digit of a number changes.
        head, *lines = text.splitlines(keepends=True)
        atomic_write_text(path, head + ''.join(t for t, drop in zip(lines, late) if not drop))
    return set(frame.loc[~late, 'iteration'])
