"""LayerMetricsHook: measures the layers of a model as it trains, in any MM project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from bocb_mm.errors import UserError
from bocb_mm.metrics import layer_metrics
from bocb_mm.metrics.watch import FILE_NAME, append_rows, keep_rows_until, scalars_of
from bocb_mm.optim_wrappers.schedule_free import show_average
from bocb_mm.registry import HOOKS
from bocb_mm.runs.warn import warn


@HOOKS.register_module()
class LayerMetricsHook(Hook):
    """Append alpha, entropy, L2 norm and PCA energy of every layer to ``layer_metrics.csv``.

    The file stands in the run's directory and has the columns of
    :func:`bocb_mm.metrics.layer_metrics`, then ``epoch`` and ``iteration`` (both count what is
    done, so the start is 0). Medians over the layers (alpha: over those where it means something)
    go to the visualizer. Only the main process measures; weights, random state, train mode and
    gradients are left alone. An error never ends the training: it is logged, and said in run.json.

    Args:
        interval: Epochs (or iterations) between two snapshots. The end is always measured.
        by_epoch: Count in epochs; set it to False for an iteration-based loop.
        layers: Shell patterns of the layers to measure, e.g. ``'backbone.*'``; all by default.
        at_start: Measure before the first iteration too.
        scalars: ``'summary'``: medians to the visualizer; ``'layers'``: every layer's numbers as
            well; ``'none'``.
        **settings: Further arguments of :func:`bocb_mm.metrics.layer_metrics`.

    Raises:
        UserError: An argument is out of its range.

    Example:
        >>> custom_hooks = [dict(type='bocb_mm.LayerMetricsHook', interval=10)]
    """

    priority = 'LOW'

    def __init__(
        self,
        interval: int = 1,
        by_epoch: bool = True,
        layers: str | Sequence[str] | None = None,
        at_start: bool = True,
        scalars: str = 'summary',
        **settings: Any,
    ) -> None:
        if not isinstance(interval, int) or interval < 1:
            raise UserError(f'LayerMetricsHook: interval {interval!r}: at least 1 is expected')
        if scalars not in ('summary', 'layers', 'none'):
            raise UserError(
                f'LayerMetricsHook: scalars {scalars!r}: expected summary, layers or none'
            )
        try:
            layer_metrics({'probe': torch.eye(2)}, **settings)
        except TypeError as error:
            raise UserError(
                f'LayerMetricsHook: {error}; see bocb_mm.metrics.layer_metrics'
            ) from None
        self.interval, self.by_epoch, self.at_start = interval, by_epoch, at_start
        self.scalars, self._settings = scalars, {**settings, 'layers': layers}
        self._done: set[int] = set()

    def before_train(self, runner: Runner) -> None:
        """Take up the file of the run that is resumed, or start it with the first snapshot."""
        if not is_main_process():
            return
        try:
            last = runner.iter if runner.iter > 0 else -1
            self._done = keep_rows_until(self._path(runner), last)
        except Exception as error:
            self._warn(runner, f'{self._path(runner)} cannot be taken up: {_line(error)}')
        if self.at_start and runner.iter == 0:
            self._snapshot(runner, 0, 0)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Measure every ``interval`` iterations, if iterations count."""
        if not self.by_epoch and self.every_n_train_iters(runner, self.interval):
            self._snapshot(runner, runner.epoch, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Measure every ``interval`` epochs, if epochs count."""
        if self.by_epoch and self.every_n_epochs(runner, self.interval):
            self._snapshot(runner, runner.epoch + 1, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Measure the final weights."""
        self._snapshot(runner, runner.epoch, runner.iter)

    def _snapshot(self, runner: Runner, epoch: int, iteration: int) -> None:
        if not is_main_process() or iteration in self._done:
            return
        try:
            show_average(runner.optim_wrapper)
            frame = layer_metrics(runner.model, **self._settings)
            if frame.empty:
                raise UserError(f'no layer matches {self._settings["layers"]!r}')
            append_rows(self._path(runner), frame.assign(epoch=epoch, iteration=iteration))
            self._done.add(iteration)
            self._log(runner, frame, epoch if self.by_epoch else iteration)
        except Exception as error:  # a measurement is not worth a training
            self._warn(runner, f'no snapshot at iteration {iteration}: {_line(error)}')

    def _log(self, runner: Runner, frame: pd.DataFrame, step: int) -> None:
        if self.scalars != 'none':
            values = scalars_of(frame, each_layer=self.scalars == 'layers')
            runner.visualizer.add_scalars(values, step=step)

    def _warn(self, runner: Runner, text: str) -> None:
        warn(runner, f'LayerMetricsHook: {text}')

    @staticmethod
    def _path(runner: Runner) -> Path:
        return Path(runner.work_dir) / FILE_NAME


def _line(error: Exception) -> str:
    return f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'
