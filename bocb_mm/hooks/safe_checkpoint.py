"""SafeCheckpointHook: checkpoints that survive a crash and resume bit-equal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import BaseOptimWrapper
from mmengine.runner import Runner

from bocb_mm.checkpoints.plain import check_optimizer, make_plain
from bocb_mm.checkpoints.read import install_safe_loading, is_trusting, safe_globals
from bocb_mm.checkpoints.rotation import Rotation
from bocb_mm.checkpoints.write import save_atomically
from bocb_mm.compat import allow_mmengine_checkpoints, average_before_loading, resumed_from
from bocb_mm.errors import CheckpointError
from bocb_mm.hooks.divergence import DivergenceHook
from bocb_mm.registry import HOOKS
from bocb_mm.resume.find import STATE_KEY
from bocb_mm.resume.state import RunState
from bocb_mm.runs import lock, record
from bocb_mm.runs.files import remove_leftovers


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, same arguments, with four promises more.

    - **Whole or not at all.** A file is written under a temporary name in the same directory,
      flushed to the disk, read back by the safe reader and renamed; then ``last_checkpoint`` is
      replaced; then older files are deleted. Whenever the process dies, ``last_checkpoint`` names
      a complete file. On a full disk the old files stay, the log says so, and training goes on;
      only the last checkpoint, or one a signal asked for, fails the run. An optimizer whose state
      could not be read back ends the run after its first iteration, with the reason.
    - **Bit-equal.** The random states, the position in the data and half-accumulated gradients
      are saved: on a CPU a resumed run ends with the weights of an uninterrupted one, from the
      middle of an epoch too. Validation leaves the random state as it found it.
    - **Changed settings** take effect on resuming (rate, schedule, length, weight decay) or are
      refused (optimizer, batch size); see :mod:`bocb_mm.resume.schedules`.
    - **Safe reading.** mmengine reads all checkpoints through :mod:`bocb_mm.checkpoints.read`.

    It locks the work directory against a second training. A validation that was cut off is done
    on resuming. It works with ``Runner`` and ``FlexibleRunner``.

    Raises:
        CheckpointError: ``out_dir`` is an address, not a directory.

    Example:
        >>> default_hooks = dict(checkpoint=dict(type='bocb_mm.SafeCheckpointHook', interval=1))
    """

    out_dir: str
    last_ckpt: str | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if '://' in str(self.out_dir or ''):
            raise CheckpointError(
                f'{self.out_dir}: SafeCheckpointHook saves to local directories; name one'
            )
        self._configured_out_dir = self.out_dir
        self._meta: dict[str, int] = {}
        self.state: RunState | None = None
        # Here, since FlexibleRunner loads before the first call of a hook.
        allow_mmengine_checkpoints(safe_globals())
        install_safe_loading()
        average_before_loading()

    def before_run(self, runner: Runner) -> None:
        """Take the directory's lock and note the settings before anything is loaded."""
        if isinstance(runner.optim_wrapper, BaseOptimWrapper):  # else it is a test or a validation
            self._start(runner)

    def _start(self, runner: Runner) -> RunState:
        if self.state is None:
            if is_main_process():
                lock.acquire(runner.work_dir)
            self.state = RunState(runner)
            if not any(isinstance(hook, _CutOffValidation) for hook in runner.hooks):
                runner.register_hook(_CutOffValidation(self), priority='LOWEST')
        return self.state

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Before Runner.resume uses it: refuse what does not fit."""
        source = resumed_from(runner)
        if source is not None:
            self._start(runner).take(runner, checkpoint, source)

    def before_train(self, runner: Runner) -> None:
        """Bring data, schedule and random state to where the checkpoint was saved."""
        self.out_dir = self._configured_out_dir  # mmengine adds the run's name each time
        super().before_train(runner)
        self.out_dir = os.fspath(self.out_dir)
        pointer = Path(runner.work_dir, 'last_checkpoint')
        steps = runner.message_hub.runtime_info.get('keep_ckpt_ids', [])
        template, keep = self.filename_tmpl, self.max_keep_ckpts
        self.rotation = Rotation(self.out_dir, pointer, template, keep, steps)
        if is_main_process():
            self.rotation.prepare()
            remove_leftovers(Path(runner.work_dir, record.FILE_NAME))
        self._state.begin(runner)

    @property
    def _state(self) -> RunState:
        assert self.state is not None, 'before_run was not called'
        return self.state

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Count the position in the data, and save if iterations count."""
        if self._state.count() == 1 and not is_trusting():
            check_optimizer(runner.optim_wrapper)  # now, not after an epoch
        last = self.is_last_train_iter(runner)
        regular = self.every_n_train_iters(runner, self.interval, self.save_begin)
        if not self.by_epoch and (regular or (self.save_last and last)):
            done = runner.iter + 1
            self._save(runner, done, {'epoch': runner.epoch, 'iter': done}, must=last)

    def before_train_epoch(self, runner: Runner) -> None:
        """Tell the data loader which epoch it is."""
        self._state.begin_epoch(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Note that the next batch is the first of an epoch, and save if epochs count."""
        self._state.end_epoch(runner)
        last = self.is_last_train_epoch(runner)
        regular = self.every_n_epochs(runner, self.interval, self.save_begin)
        if self.by_epoch and (regular or (self.save_last and last)):
            done = runner.epoch + 1
            self._save(runner, done, {'epoch': done, 'iter': runner.iter}, must=last)

    def before_val(self, runner: Runner) -> None:
        """Keep the random state aside, so that validating does not change the training."""
        if self.state is not None:
            self.state.hold()

    def after_val(self, runner: Runner) -> None:
        """Go on with the random state from before the validation."""
        if self.state is not None:
            self.state.unhold()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Save a new best, and note that this iteration has been evaluated."""
        if self.state is not None:
            self.state.evaluated = runner.iter
            super().after_val_epoch(runner, metrics or {})

    def after_run(self, runner: Runner) -> None:
        """Give the lock back."""
        if self.state is not None and is_main_process():
            lock.release(runner.work_dir)
        self.state = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add what mmengine leaves out, and see to it that all can be read back."""
        checkpoint['meta'].update(self._meta)  # FlexibleRunner counts for itself
        if 'optimizer' in checkpoint and self.state is not None:
            checkpoint[STATE_KEY] = self.state.saved(runner)
        if not is_trusting():
            make_plain(checkpoint)

    def save_now(self, runner: Runner, between_iterations: bool = True) -> str:
        """Save outside the interval, e.g. because a signal came.

        Args:
            runner: The runner.
            between_iterations: Called from ``after_train_iter``, not after an epoch or validation.

        Returns:
            The file's path. In an epoch it is called ``iter_<n>.pth`` and is replaced by the next
            regular checkpoint.
        """
        done = runner.iter + 1 if between_iterations else runner.iter
        if self._state.saved_at != done:
            name = self._state.interim = self.rotation.interim(done)
            self._write(runner, name, {'epoch': runner.epoch, 'iter': done}, must=True)
            self._point_to(runner, name)
        return str(self.last_ckpt)

    def _save(self, runner: Runner, step: int, meta: dict[str, int], must: bool) -> None:
        """Save, then point to it, then delete what is too old: mmengine does it the other way."""
        name, rotation, info = self.rotation.name(step), self.rotation, runner.message_hub
        interim, self._state.interim = self._state.interim, None
        if rotation.keep > 0:
            # One too many on purpose: if the process dies before deleting, resuming deletes it.
            info.update_info('keep_ckpt_ids', rotation.steps_with(step))
        if not self._write(runner, name, meta, must):
            self._state.interim = interim
            return
        self._point_to(runner, name)
        old = rotation.add(step) + ([interim] if interim and interim != name else [])
        if rotation.keep > 0:
            info.update_info('keep_ckpt_ids', list(rotation.steps))
        if is_main_process():
            rotation.delete(old)

    def _write(
        self, runner: Runner, name: str, meta: dict[str, int], must: bool, best: bool = False
    ) -> bool:
        """Save one file; an error is raised if it ``must`` be there and logged otherwise."""
        for hook in runner.hooks:
            if isinstance(hook, DivergenceHook):
                hook.check_weights(runner, meta['iter'])  # a diverged run's is worth nothing
        path = Path(self.out_dir, name)
        before = self.last_ckpt
        if not best:
            self._state.gather()
            _gather_shares(runner)
            self.last_ckpt = str(path)
            runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._meta = meta
        try:
            save_atomically(
                runner,
                path,
                meta=dict(meta),
                by_epoch=self.by_epoch,
                save_optimizer=self.save_optimizer and not best,
                save_param_scheduler=self.save_param_scheduler and not best,
                **({} if best else self.args),
            )
        except OSError as error:
            self.last_ckpt = before
            runner.message_hub.update_info('last_ckpt', before)
            text = f'{path}: not saved ({error.strerror or error}); the last one is {before}'
            if must:
                raise CheckpointError(text) from None
            runner.logger.error(text)
            return False
        finally:
            self._meta = {}
        if not best:
            self._state.saved_at = meta['iter']
        return True

    def _point_to(self, runner: Runner, name: str) -> None:
        if is_main_process():
            try:
                self.rotation.point_to(name)
            except OSError as error:  # --resume auto looks at the files themselves
                runner.logger.error(f'{self.rotation.pointer}: not updated ({error.strerror})')

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        """Save a new best before the old best is deleted."""
        if not self.save_best:
            return
        if 'auto' in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        done = runner.epoch if self.by_epoch else runner.iter
        meta = {'epoch': runner.epoch, 'iter': runner.iter}
        outdated: list[str] = []
        improved = False
        for key, rule in zip(self.key_indicators, self.rules):
            if key not in metrics:
                known = ', '.join(metrics)
                runner.logger.warning(f'save_best={key!r} is not among the results ({known})')
                continue
            suffix = '' if len(self.key_indicators) == 1 else f'_{key}'
            info = runner.message_hub.runtime_info
            best = info.get(f'best_score{suffix}', self.init_value_map[rule])
            if metrics[key] is None or not self.is_better_than[key](metrics[key], best):
                continue
            name = self.rotation.best(key, done)
            if not self._write(runner, name, meta, must=False, best=True):
                continue
            old = info.get(f'best_ckpt{suffix}')
            outdated += [Path(old).name] if old and Path(old).name != name else []
            runner.message_hub.update_info(f'best_score{suffix}', metrics[key])
            runner.message_hub.update_info(f'best_ckpt{suffix}', str(Path(self.out_dir, name)))
            if suffix:
                self.best_ckpt_path_dict[key] = str(Path(self.out_dir, name))
            else:
                self.best_ckpt_path = str(Path(self.out_dir, name))
            runner.logger.info(f'best {key} so far, {metrics[key]:0.4f}, saved to {name}')
            improved = True
        if improved and self.last_ckpt is not None:  # so that a resumed run knows the best one
            self._save(runner, done, meta, must=False)
        if is_main_process():
            self.rotation.delete(outdated)


class _CutOffValidation(Hook):
    """Validates first, if the run was ended between a checkpoint and its validation."""

    def __init__(self, saver: SafeCheckpointHook) -> None:
        self._saver = saver

    def before_train(self, runner: Runner) -> None:
        """After the other hooks, the record's among them, have taken up their work."""
        state = self._saver.state
        if state is not None and state.lacks_validation(runner):
            runner.logger.info('validating first: the run was ended before it could')
            runner.val_loop.run()


def _gather_shares(runner: Runner) -> None:
    """Bring a divided optimizer state to the process that saves; all processes take part."""
    optimizer: Any = getattr(runner.optim_wrapper, 'optimizer', None)
    if hasattr(optimizer, 'consolidate_state_dict'):
        optimizer.consolidate_state_dict()
