"""RunRecordHook: keeps ``run.json`` true from the first iteration to the end, however it ends."""

from __future__ import annotations

import datetime
import importlib.metadata
import resource
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import BaseOptimWrapper
from mmengine.runner import IterBasedTrainLoop, Runner

from bocb_mm.compat import accumulative_counts, resumed_from
from bocb_mm.config.identity import data_facts, identity
from bocb_mm.config.metric import Headline, among, headline_of
from bocb_mm.config.pretraining import name_in
from bocb_mm.hooks.harmless import harmless
from bocb_mm.hooks.pretrained import PRETRAINED_KEY
from bocb_mm.optim_wrappers.timing import StepTimer
from bocb_mm.registry import HOOKS
from bocb_mm.runs import lock, warn
from bocb_mm.runs.record import RunRecord

_PACKAGES = ('bocb_mm', 'torch', 'mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmpose', 'numpy')


@HOOKS.register_module()
class RunRecordHook(Hook):
    """Write a :class:`bocb_mm.runs.record.RunRecord` as ``run.json`` into the work directory.

    ``custom_hooks = [dict(type='bocb_mm.RunRecordHook')]`` is enough in any MM project; what is not
    given is read from the config, and what that does not say is recorded under its own name. Rank 0
    writes, at the start, after every evaluation and epoch, and at the end; a file is replaced whole
    or not at all. It holds the directory's lock, by which others see that the run is alive.

    What the run is (its names, pre-training, rate, config) is settled at its first start; a resumed
    run keeps it. An error of this hook is a warning and never ends a training; a test or a
    validation leaves no record.

    Args:
        task: ``'classification'``, ``'detection'``, ``'pose'`` or another.
        dataset: Name of the data set in tables, e.g. ``'coco'``.
        backbone: Name of the backbone in tables, e.g. ``'R-50'``.
        pretraining: Name of the pre-training in tables, e.g. ``'LARS'``; ``''`` for none.
        recipe: Name of the training recipe.
        metric: Headline metric as mmengine logs it, e.g. ``'coco/AP'``. By default the config's
            ``headline_metric``, what ``save_best`` names, the evaluator's, or the first result.
        gamma: Threshold of eq. 1 for the table, in points of the metric.

    Example:
        >>> custom_hooks = [dict(type='bocb_mm.RunRecordHook', backbone='my_net')]
    """

    priority = 'VERY_LOW'  # after the hooks whose findings it writes down

    def __init__(
        self,
        task: str | None = None,
        dataset: str | None = None,
        backbone: str | None = None,
        pretraining: str | None = None,
        recipe: str | None = None,
        metric: str | None = None,
        gamma: float | None = None,
    ) -> None:
        self._given: dict[str, Any] = {
            'task': task,
            'dataset': dataset,
            'backbone': backbone,
            'pretraining': pretraining,
            'recipe': recipe,
            'metric': metric,
            'gamma': gamma,
        }
        self.record: RunRecord | None = None
        self._before: RunRecord | None = None
        self._headline = Headline('')
        self._timer: StepTimer | None = None
        self._writes = False

    @harmless
    def before_run(self, runner: Runner) -> None:
        """Start the record, so that a failure in the weights' initialisation is on it as well."""
        self.record, self._writes = None, False
        if not isinstance(runner.optim_wrapper, BaseOptimWrapper):
            return  # a test or a validation is not a run
        if runner.rank == 0:
            lock.acquire(runner.work_dir)
        start = resumed_from(runner)
        self._before = RunRecord.find(runner.work_dir)
        if self._before is None and start is not None:
            self._before = RunRecord.find(Path(start).parent)
        fields = identity(runner.cfg, self._given)
        self._headline = headline_of(runner.cfg, fields['task'])
        if self._given['metric'] is not None:
            self._headline = Headline(fields['metric'], given=True)
        seed, versions = runner.seed, _versions()
        self.record = RunRecord(**fields, seed=seed, versions=versions, started=_now())
        self._writes = start is None  # a resumed run may be refused yet, and then nothing changes
        self._save(runner)

    @harmless
    def before_train(self, runner: Runner) -> None:
        """Count parameters, take over what a resumed run had, start the step timer."""
        record = self.record
        if record is None:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        parameters = list(model.parameters())
        record.n_parameters = sum(p.numel() for p in parameters)
        record.n_trainable = sum(p.numel() for p in parameters if p.requires_grad)
        by_epoch = not isinstance(runner.train_loop, IterBasedTrainLoop)  # whose epochs are 1
        record.max_epochs = getattr(runner.train_loop, 'max_epochs', None) if by_epoch else None
        record.optimizer_settings = _optimizer_settings(runner)
        record.batch_size = _batch_size(runner)
        for name, value in data_facts(runner.train_dataloader.dataset, record.task).items():
            setattr(record, name, value)
        if runner.iter > 0 and self._before is not None:
            record.go_on_from(self._before, runner.iter)
        elif runner.iter == 0:
            self._note_pretrained(runner)
        self._timer = StepTimer(runner.optim_wrapper)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._writes = True
        self._save(runner)

    @harmless
    def after_train_epoch(self, runner: Runner) -> None:
        """Bring the progress up to date."""
        self._progress(runner)
        self._save(runner)

    @harmless
    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Append the evaluation."""
        record = self.record
        if record is None:
            return
        numbers = {k: float(v) for k, v in (metrics or {}).items() if _is_number(v)}
        found = among(self._headline, numbers)
        judged = any(record.metric in e for e in record.evaluations)
        if found is not None and found != record.metric and not judged:
            record.judge_by(found)
        if numbers and record.metric not in numbers:
            known = ', '.join(numbers)
            warn.warn(
                runner,
                f'RunRecordHook: {record.metric} is not among the results ({known}); name one of '
                'them with --metric or RunRecordHook(metric=...)',
            )
        record.add_evaluation(int(runner.epoch), runner.iter, numbers)
        self._progress(runner)
        self._save(runner)

    @harmless
    def after_train(self, runner: Runner) -> None:
        """Close the record as completed, or as another hook's ``bocb_mm/status`` says."""
        info = runner.message_hub.runtime_info
        status, message = info.get('bocb_mm/status', 'completed'), info.get('bocb_mm/message', '')
        if self.record is not None and self.record.best is None and status == 'completed':
            text = 'this run ends without a result to compare: '
            if runner.val_loop is None:  # as its config wants it
                runner.logger.warning(f'{text}it has no validation')
            else:
                warn.warn(runner, f'{text}{self.record.metric or "no metric"} was never measured')
        self._progress(runner)
        self._close(runner, status, message)

    @harmless
    def after_run(self, runner: Runner) -> None:
        """Give the lock back."""
        if self.record is not None and runner.rank == 0:
            lock.release(runner.work_dir)

    @harmless
    def run_failed(self, runner: Runner, error: BaseException) -> None:
        """Close the record of a training that an error ended; the training glue calls it."""
        if self.record is None or self.record.status != 'running':
            return
        info = runner.message_hub.runtime_info
        status = 'interrupted' if isinstance(error, KeyboardInterrupt) else 'failed'
        text = ' '.join(f'{type(error).__name__}: {error}'.split())
        self._close(
            runner,
            info.get('bocb_mm/status', status),
            info.get('bocb_mm/message', text[:2000]),
        )

    def _note_pretrained(self, runner: Runner) -> None:
        """What the network started from, as PretrainedHook found it, not as the config hoped."""
        loaded = runner.message_hub.runtime_info.get(PRETRAINED_KEY)
        if loaded is None or self.record is None:
            return
        self.record.pretrained = loaded
        if loaded and self._given['pretraining'] is None:
            fitting = [entry['source'] for entry in loaded if entry['tensors']]
            self.record.pretraining = name_in(runner.cfg, fitting[-1]) if fitting else ''

    def _progress(self, runner: Runner) -> None:
        """Epochs, iterations, loss curve, speed and memory so far."""
        record = self.record
        if record is None:
            return
        record.epochs = int(runner.epoch)  # mmengine counts an epoch before it evaluates it
        record.iterations = runner.iter
        scalars = runner.message_hub.log_scalars
        if 'train/loss' in scalars:
            record.add_losses(scalars['train/loss'].data[0], runner.iter)
        if 'train/time' in scalars:
            times = scalars['train/time'].data[0]
            if len(times):
                record.seconds_per_iteration = float(np.median(times[len(times) // 10 :]))
        if self._timer is not None:
            record.optimizer_step_ms = self._timer.median_ms()
        record.peak_memory_mb = _peak_memory_mb()
        for text in runner.message_hub.runtime_info.get(warn.KEY, []):
            record.warn(text)

    def _close(self, runner: Runner, status: str, message: str) -> None:
        if self.record is not None:
            self.record.status, self.record.message, self.record.finished = status, message, _now()
            self._save(runner)

    def _save(self, runner: Runner) -> None:
        if self.record is not None and self._writes and runner.rank == 0:
            self.record.save(runner.work_dir)


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec='seconds')


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) or (
        isinstance(value, torch.Tensor) and value.numel() == 1
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _batch_size(runner: Runner) -> int | None:
    """Samples an optimizer step sees, over all processes."""
    loader = runner.train_dataloader
    size = getattr(loader.batch_sampler, 'batch_size', loader.batch_size)
    counts = accumulative_counts(runner.optim_wrapper)
    return None if size is None else int(size) * runner.world_size * counts


def _optimizer_settings(runner: Runner) -> dict[str, Any]:
    """Every setting the optimizer runs with: its defaults, overridden by the config."""
    wrapper = runner.optim_wrapper
    defaults = dict(getattr(getattr(wrapper, 'optimizer', None), 'defaults', {}))
    configured = dict((runner.cfg.get('optim_wrapper') or {}).get('optimizer') or {})
    for key in ('type', 'params'):  # mmengine leaves the tensors in its config
        configured.pop(key, None)
    settings = {**defaults, **configured}
    hessian = getattr(wrapper, 'hessian_kind', None)
    return {**settings, 'hessian_kind': hessian} if hessian else settings


def _peak_memory_mb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # Linux counts in KiB
