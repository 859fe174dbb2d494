"""SafeCheckpointHook: checkpoints that a crash cannot spoil and that resume bit-equal."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from bocb_mm.checkpoints.read import install_safe_loading, safe_globals
from bocb_mm.checkpoints.write import save_atomically
from bocb_mm.compat import allow_mmengine_checkpoints
from bocb_mm.errors import CheckpointError
from bocb_mm.hooks.divergence import DivergenceHook
from bocb_mm.registry import HOOKS
from bocb_mm.resume.find import STATE_KEY
from bocb_mm.resume.state import RunState
from bocb_mm.runs import lock
from bocb_mm.runs.files import atomic_write_text


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, same arguments, with four promises more.

    - **Whole or not at all.** A file is written under a temporary name in the same directory,
      flushed to the disk, read back and renamed; then ``last_checkpoint`` is replaced; then older
      files are deleted. Whenever the process dies, ``last_checkpoint`` names a complete file. On a
      full disk the old files stay, the log says so, and training goes on; only the last
      checkpoint, or one a signal asked for, fails the run.
    - **Bit-equal.** The random states, the position in the data and half-accumulated gradients
      are saved: on a CPU a resumed run ends with the weights of an uninterrupted one, from the
      middle of an epoch too. Validation leaves the random state as it found it.
    - **Changed settings** take effect on resuming (rate, schedule, length, weight decay) or are
      refused (optimizer, batch size); see :mod:`bocb_mm.resume.schedules`.
    - **Safe reading.** mmengine reads all checkpoints through :mod:`bocb_mm.checkpoints.read`.

    It locks the work directory against a second training. A validation that was cut off is done
    on resuming.

    Example:
        >>> default_hooks = dict(checkpoint=dict(type='bocb_mm.SafeCheckpointHook', interval=1))
    """

    out_dir: str
    last_ckpt: str | None

    def before_run(self, runner: Runner) -> None:
        """Take the directory's lock and note the settings before anything is loaded."""
        if is_main_process():
            lock.acquire(runner.work_dir)
        allow_mmengine_checkpoints(safe_globals())
        install_safe_loading()
        self.state = RunState(runner)
        runner.register_hook(_CutOffValidation(self.state), priority='LOWEST')

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Before Runner.resume uses it: refuse what does not fit."""
        if getattr(runner, '_resume', False):
            self.state.take(checkpoint, str(runner._load_from or runner.work_dir))

    def before_train(self, runner: Runner) -> None:
        """Bring data, schedule and random state to where the checkpoint was saved."""
        super().before_train(runner)
        self.out_dir = os.fspath(self.out_dir)
        if '://' in self.out_dir:
            raise CheckpointError(
                f'{self.out_dir}: SafeCheckpointHook saves to local directories; name one'
            )
        if is_main_process():
            self._tidy(runner)
        self.state.begin(runner)

    def _tidy(self, runner: Runner) -> None:
        """Delete temporary files of a run that was killed; the lock keeps others out."""
        leftovers = [*Path(self.out_dir).glob('.*.pth.tmp')]
        for name in ('last_checkpoint', 'run.json'):
            leftovers += Path(runner.work_dir).glob(f'.{name}.*.tmp')
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """As mmengine's, with the position in the data counted."""
        self.state.count()
        super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def before_train_epoch(self, runner: Runner) -> None:
        """Tell the data loader which epoch it is."""
        self.state.begin_epoch(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """As mmengine's; the data position is the start of the next epoch."""
        self.state.end_epoch(runner)
        super().after_train_epoch(runner)

    def before_val(self, runner: Runner) -> None:
        """Keep the random state aside, so that validating does not change the training."""
        self.state.hold()

    def after_val(self, runner: Runner) -> None:
        """Go on with the random state from before the validation."""
        self.state.unhold()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """As mmengine's, and note that this iteration has been evaluated."""
        self.state.evaluated = runner.iter
        super().after_val_epoch(runner, metrics or {})

    def after_run(self, runner: Runner) -> None:
        """Give the lock back."""
        if is_main_process():
            lock.release(runner.work_dir)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add what mmengine leaves out."""
        if 'optimizer' in checkpoint:
            checkpoint[STATE_KEY] = self.state.saved(runner)

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
        meta = {'epoch': runner.epoch, 'iter': done}
        name = f'iter_{done}.pth'
        if self.state.saved_at != done:
            self.state.interim = name
            self._write(runner, name, meta, must=True)
            self._point_to(runner, name)
        return str(self.last_ckpt)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Save, then point to it, then delete what is too old: mmengine does it the other way."""
        name = self.filename_tmpl.format(step)
        interim, self.state.interim = self.state.interim, None
        keep = [k for k in getattr(self, 'keep_ckpt_ids', ()) if k != step] + [step]
        if self.max_keep_ckpts > 0:
            # One too many on purpose: if the process dies before deleting, resuming deletes it.
            runner.message_hub.update_info('keep_ckpt_ids', keep)
        last = self.is_last_train_iter(runner) or runner.iter >= runner.max_iters
        if not self._write(runner, name, meta, must=last):
            self.state.interim = interim
            return
        self._point_to(runner, name)
        old = [interim] if interim and interim != name else []
        if self.max_keep_ckpts > 0:
            old += [self.filename_tmpl.format(k) for k in keep[: -self.max_keep_ckpts]]
            self.keep_ckpt_ids.clear()
            self.keep_ckpt_ids.extend(keep[-self.max_keep_ckpts :])
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self._delete(runner, old)

    def _write(self, runner: Runner, name: str, meta: dict, must: bool, best: bool = False) -> bool:
        """Save one file; an error is raised if it ``must`` be there and logged otherwise."""
        for hook in runner.hooks:
            if isinstance(hook, DivergenceHook):
                hook.check_weights(runner, meta['iter'])  # a diverged run's is worth nothing
        if not best:
            self.state.gather()
        path = Path(self.out_dir, name)
        before = self.last_ckpt
        if not best:
            self.last_ckpt = str(path)
            runner.message_hub.update_info('last_ckpt', self.last_ckpt)
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
        if not best:
            self.state.saved_at = meta['iter']
        return True

    def _point_to(self, runner: Runner, name: str) -> None:
        if is_main_process():
            pointer = Path(runner.work_dir, 'last_checkpoint')
            try:
                atomic_write_text(pointer, str(Path(self.out_dir, name)))
            except OSError as error:  # --resume auto looks at the files themselves
                runner.logger.error(f'{pointer}: not updated ({error.strerror})')

    def _delete(self, runner: Runner, names: list[str]) -> None:
        if is_main_process():
            for name in names:
                with suppress(FileNotFoundError):
                    Path(self.out_dir, name).unlink()

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
            name = f'best_{key}_{self.filename_tmpl.format(done)}'.replace('/', '_')
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
            self._save_checkpoint_with_step(runner, done, meta)
        self._delete(runner, outdated)


class _CutOffValidation(Hook):
    """Validates first, if the run was ended between a checkpoint and its validation."""

    def __init__(self, state: RunState) -> None:
        self._state = state

    def before_train(self, runner: Runner) -> None:
        """After the other hooks, the record's among them, have taken up their work."""
        if self._state.validation_due(runner):
            runner.logger.info('validating first: the run was ended before it could')
            runner.val_loop.run()
