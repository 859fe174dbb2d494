"""RunRecordHook: keeps ``run.json`` true from the first iteration to the end, however it ends."""

from __future__ import annotations

import datetime
import importlib
import importlib.metadata
import resource
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import BaseOptimWrapper
from mmengine.runner import Runner

from bocb_mm.config.describe import describe, type_name
from bocb_mm.config.pretraining import name_in, pretraining_of
from bocb_mm.errors import UnknownNameError
from bocb_mm.hooks.pretrained import PRETRAINED_KEY
from bocb_mm.optim_wrappers.timing import StepTimer
from bocb_mm.registry import HOOKS
from bocb_mm.runs.record import RunRecord, config_hash

_PACKAGES = ('bocb_mm', 'torch', 'mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmpose', 'numpy')
# Parts of a config that say where and how often a run was started, not what it trains.
_NOT_HASHED = (
    'work_dir', 'randomness', 'resume', 'load_from', 'launcher', 'log_level', 'filename_stem',
    'model_wrapper_cfg', 'visualizer', 'vis_backends', 'env_cfg',
    'experiment_name', 'data_root', 'pretrained_command',
)  # fmt: skip
_MAX_LOSSES = 400  # enough for a curve; a record stays small


@HOOKS.register_module()
class RunRecordHook(Hook):
    """Write a :class:`bocb_mm.runs.record.RunRecord` as ``run.json`` into the work directory.

    ``custom_hooks = [dict(type='bocb_mm.RunRecordHook')]`` is enough in any mmpretrain, mmdet or
    mmpose config; what is not given is read from the config. Rank 0 writes, at the start, after
    every evaluation and epoch, and at the end; a file is replaced whole or not at all.

    Args:
        task: ``'classification'``, ``'detection'`` or ``'pose'``.
        dataset: Name of the data set in tables, e.g. ``'coco'``.
        backbone: Name of the backbone in tables, e.g. ``'R-50'``.
        pretraining: Name of the pre-training in tables, e.g. ``'LARS'``; ``''`` for none.
        recipe: Name of the training recipe.
        metric: Headline metric as mmengine logs it, larger is better, e.g. ``'coco/AP'``.
        gamma: Threshold of eq. 1 for the table, in points of the metric.

    Raises:
        UserError: The config is of no toolbox whose task is known and ``task`` is not given.
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
        self._given = {
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
        self._timer: StepTimer | None = None

    def before_run(self, runner: Runner) -> None:
        """Start the record, so that a failure in the weights' initialisation is on it as well."""
        if not isinstance(runner.optim_wrapper, BaseOptimWrapper):
            self.record = None  # a test or a validation is not a run
            return
        self._before = RunRecord.find(runner.work_dir)
        self.record = RunRecord(**self._identity(runner), started=_now())
        self._save(runner)

    def before_train(self, runner: Runner) -> None:
        """Count parameters, take over what a resumed run had, start the step timer."""
        record = self._record()
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        record.n_parameters = sum(p.numel() for p in model.parameters())
        record.n_trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        record.max_epochs = getattr(runner.train_loop, 'max_epochs', None)
        record.optimizer_settings = _optimizer_settings(runner)
        if runner.iter > 0:
            self._take_over(runner)
        else:
            self._note_pretrained(runner)
        self._timer = StepTimer(runner.optim_wrapper)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._save(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Bring the progress up to date."""
        self._progress(runner)
        self._save(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Append the evaluation."""
        if self.record is None:
            return
        record = self.record
        numbers = {k: float(v) for k, v in (metrics or {}).items() if _is_number(v)}
        if numbers and record.metric not in numbers:
            text = f'{record.metric} is not among the results ({", ".join(numbers)})'
            record.warn(f'RunRecordHook: {text}; name one of them as metric=')
        record.add_evaluation(int(runner.epoch), runner.iter, numbers)
        self._progress(runner)
        self._save(runner)

    def after_train(self, runner: Runner) -> None:
        """Close the record as completed, or as another hook's ``bocb_mm/status`` says."""
        info = runner.message_hub.runtime_info
        self._progress(runner)
        self._close(
            runner, info.get('bocb_mm/status', 'completed'), info.get('bocb_mm/message', '')
        )

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

    def _record(self) -> RunRecord:
        assert self.record is not None, 'before_run was not called'
        return self.record

    def _identity(self, runner: Runner) -> dict[str, Any]:
        """What the run is: the hook's arguments, and the config for those not given."""
        cfg = runner.cfg
        given = {k: v for k, v in self._given.items() if v is not None}
        if not {'task', 'dataset', 'backbone', 'metric'} <= given.keys():
            described = describe(cfg)
            found = vars(described)
            given = {**found, **given}
        given['backbone'] = _catalog_name('backbones', str(given['backbone']))
        optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
        if 'pretraining' not in given:
            given['pretraining'] = pretraining_of(cfg)
        given.setdefault('recipe', cfg.get('recipe') or '')
        given.setdefault('gamma', cfg.get('gamma'))
        return {
            **given,
            'optimizer': _catalog_name('optimizers', type_name(optimizer)),
            'lr': optimizer.get('lr'),
            'weight_decay': optimizer.get('weight_decay'),
            'seed': runner.seed,
            'versions': _versions(),
            'config': cfg.get('filename_stem') or Path(cfg.filename or '').stem,
            'config_hash': config_hash(
                {k: v for k, v in cfg.to_dict().items() if k not in _NOT_HASHED}
            ),
        }

    def _take_over(self, runner: Runner) -> None:
        """Go on with the evaluations and losses an earlier part of this run recorded."""
        record, before = self._record(), self._before
        if before is None:
            return
        record.started = before.started or record.started
        record.losses = [pair for pair in before.losses if pair[0] <= runner.iter]
        record.warnings = list(before.warnings)
        for evaluation in before.evaluations:
            if (evaluation.get('iteration') or 0) <= runner.iter:
                metrics = {k: v for k, v in evaluation.items() if k not in ('epoch', 'iteration')}
                record.add_evaluation(
                    int(evaluation.get('epoch') or 0),
                    int(evaluation.get('iteration') or 0),
                    metrics,
                )

    def _note_pretrained(self, runner: Runner) -> None:
        """What the network started from, as PretrainedHook found it, not as the config hoped."""
        loaded = runner.message_hub.runtime_info.get(PRETRAINED_KEY)
        if loaded is None:
            return
        record = self._record()
        record.pretrained = loaded
        if loaded and self._given['pretraining'] is None:
            fitting = [entry['source'] for entry in loaded if entry['tensors']]
            record.pretraining = name_in(runner.cfg, fitting[-1]) if fitting else ''

    def _progress(self, runner: Runner) -> None:
        """Epochs, iterations, loss curve, speed and memory so far."""
        record = self._record()
        record.epochs = int(runner.epoch)  # mmengine counts an epoch before it evaluates it
        record.iterations = runner.iter
        scalars = runner.message_hub.log_scalars
        if 'train/loss' in scalars:
            record.losses = _thinned(record.losses, scalars['train/loss'], runner.iter)
        if 'train/time' in scalars:
            times = scalars['train/time'].data[0]
            if len(times):
                record.seconds_per_iteration = float(np.median(times[len(times) // 10 :]))
        if self._timer is not None:
            record.optimizer_step_ms = self._timer.median_ms()
        record.peak_memory_mb = _peak_memory_mb()
        for text in runner.message_hub.runtime_info.get('bocb_mm/warnings', []):
            record.warn(text)

    def _close(self, runner: Runner, status: str, message: str) -> None:
        record = self._record()
        record.status, record.message, record.finished = status, message, _now()
        self._save(runner)

    def _save(self, runner: Runner) -> None:
        if runner.rank == 0:
            self._record().save(runner.work_dir)


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


def _catalog_name(catalog: str, registry_type: str) -> str:
    """The paper's name of a registry type: ``'bocb_mm.r-50'`` becomes ``'R-50'``."""
    module = importlib.import_module(f'bocb_mm.{catalog}')
    name = registry_type.removeprefix('bocb_mm.')
    try:
        return module.get_spec(name).name
    except UnknownNameError:
        return name


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


def _thinned(losses: list[list[float]], buffer: Any, iteration: int) -> list[list[float]]:
    """``losses`` extended by what the message hub's buffer has since, at most 400 points."""
    values = buffer.data[0]
    known = int(losses[-1][0]) if losses else 0
    new = min(iteration - known, len(values))
    stride = max(1, -(-iteration // _MAX_LOSSES))
    first = iteration - new + 1
    fresh = [
        [float(first + k), float(v)]
        for k, v in enumerate(values[len(values) - new :])
        if (first + k) % stride == 0 or first + k == iteration
    ]
    kept = [p for p in losses if p[0] % stride == 0]
    return kept + fresh


def _peak_memory_mb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # Linux counts in KiB
