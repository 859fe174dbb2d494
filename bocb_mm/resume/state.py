"""The part of a running training that mmengine does not save, and how it is put back."""

from __future__ import annotations

import functools
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import EMAHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from bocb_mm import compat
from bocb_mm.checkpoints.plain import restore_settings
from bocb_mm.errors import UserError
from bocb_mm.resume import find, schedules
from bocb_mm.resume.randomness import (
    PositionedBatches,
    SkippingIterator,
    position_batches,
    random_state,
    set_random_state,
)
from bocb_mm.resume.transforms import stateful_transforms
from bocb_mm.runs.warn import warn


class RunState:
    """Random states, position in the data, pending gradients and settings of one training.

    Args:
        runner: Optimizer, schedulers and train loop built, nothing loaded.

    Attributes:
        evaluated: Iteration of the last validation.
        interim: Name of a checkpoint between the regular ones, to be deleted after the next.
        saved_at: Iteration of the last checkpoint.
    """

    def __init__(self, runner: Runner) -> None:
        self.evaluated, self.saved_at = -1, -1
        self.interim: str | None = None
        self.settings = _settings(runner)
        self.plan = schedules.plan_of(runner)
        self._batches: PositionedBatches | None = None
        self._loaded: dict[str, Any] | None = None
        self._loaded_plan: dict[str, Any] | None = None
        self._round, self._skip, self._done = 0, 0, 0
        self._held: dict[str, Any] | None = None
        self._gathered: list[dict[str, Any]] = []
        self._counted = 0

    def take(self, runner: Runner, checkpoint: dict[str, Any], where: str) -> None:
        """Look at a checkpoint that is about to be resumed from.

        Args:
            runner: The runner that resumes.
            checkpoint: Its content; settings that are code are put back into it.
            where: Its path, for messages.

        Raises:
            UserError: It is not one of a training, or of another optimizer, batch size or model.
        """
        find.check_content(checkpoint, where)
        if runner.param_schedulers and not checkpoint.get('param_schedulers'):
            raise UserError(
                f'{where}: cannot be resumed, it was saved without its schedules '
                '(save_param_scheduler=False); to start from its weights alone, give --pretrained'
            )
        own = checkpoint.get(find.STATE_KEY)
        self._loaded = own or {}
        groups = checkpoint['optimizer'].get('param_groups', [])
        saved = {'parameters': [len(g['params']) for g in groups]}
        saved |= self._loaded.get('settings', {})
        if not self._loaded.get('gradients'):
            saved.pop('accumulative_counts', None)
        find.compare(saved, self.settings, where)
        _check_shapes(_model(runner), checkpoint.get('state_dict') or {}, where)
        self._loaded_plan = self._loaded.get('plan', schedules.old_plan(checkpoint))
        restore_settings(checkpoint['optimizer'], runner.optim_wrapper)
        if 'ema_state_dict' in checkpoint and not _averages(runner):
            warn(
                runner,
                f'{where} holds averaged weights of an EMAHook that is not there any more: the '
                'run goes on from the weights that were trained, without the average',
            )
            _take_trained_weights(checkpoint)

    def begin(self, runner: Runner) -> None:
        """Prepare the data loader, and after a resume put everything back."""
        self._batches = position_batches(runner.train_dataloader, runner.seed or 0, get_rank())
        if self._batches is None:
            runner.logger.warning(
                'this data loader has no batch sampler: a resumed run will see other data'
            )
        remembering = stateful_transforms(runner.train_dataloader.dataset)
        if remembering:
            runner.logger.warning(
                f'{", ".join(remembering)}: keeps images or random numbers that no checkpoint '
                'holds: a resumed run goes on, but not bit-equal to one that was never interrupted'
            )
        loop = runner.train_loop
        if self._loaded is not None:
            self._put_back(runner, self._loaded)
        if hasattr(loop, 'dataloader_iterator'):
            make = functools.partial(self._iterate, type(loop.dataloader_iterator), loop.dataloader)
            loop.dataloader_iterator = SkippingIterator(make, runner.iter)

    def _put_back(self, runner: Runner, own: dict[str, Any]) -> None:
        if self.plan is not None and self._loaded_plan is not None:
            for line in schedules.follow(runner, self._loaded_plan, self.plan):
                warn(runner, f'resumed at iteration {runner.iter} with a change: {line}')
        self.evaluated, self.interim = own.get('evaluated', -1), own.get('interim')
        self.saved_at = runner.iter
        sampler = _sampler(runner)
        if own.get('sampler_seed') is not None and hasattr(sampler, 'seed'):
            sampler.seed = own['sampler_seed']
            if self._batches is not None:
                compat.restart_sampler(sampler)
        for name, parameter in _model(runner).named_parameters():
            if name in own.get('gradients', {}):
                parameter.grad = own['gradients'][name].to(parameter.device)
        mine = own.get('processes', [])[get_rank() : get_rank() + 1]
        if not mine:
            runner.logger.warning(
                'the checkpoint has no random states: it goes on, but not bit-equal to a run '
                'that was never interrupted'
            )
        self._go_to(runner, own.get('position'), mine[0] if mine else {})

    def _go_to(self, runner: Runner, position: Any, mine: dict[str, Any]) -> None:
        """Set the position in the data and the random states."""
        if position is None:  # saved by stock mmengine
            length = max(1, len(runner.train_dataloader))
            skip = runner.iter - runner.epoch * length
            position = {'round': runner.epoch, 'offset': 0, 'skip': skip}
            if not 0 <= skip <= length:
                raise UserError(
                    f'the checkpoint is of iteration {runner.iter} in epoch {runner.epoch}, but '
                    f'an epoch has {length} iterations now: resume with the old batch size'
                )
        self._round, self._skip = position['round'], position['skip']
        self._done = position['offset'] + position['skip']
        restore = functools.partial(set_random_state, mine['random']) if mine else _nothing
        if self._batches is not None and self._skip > 0:
            self._batches.start_at({**position, 'order_state': mine.get('order')}, restore)
        restore()

    def _iterate(self, kind: type, dataloader: Any) -> Any:
        """Mmengine's endless iterator, at the right pass over the data."""
        if self._round > 0:
            sampler = dataloader.sampler
            if not hasattr(sampler, 'set_epoch'):
                sampler = getattr(dataloader.batch_sampler, 'sampler', None)
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(self._round)
        iterator = kind(dataloader)
        compat.start_iterator_at(iterator, self._round)
        return iterator

    def begin_epoch(self, runner: Runner) -> None:
        """In an epoch-based loop: number the pass, and number its batches from the skipped ones."""
        loop, skip = runner.train_loop, self._skip
        if hasattr(loop, 'dataloader_iterator'):
            return
        self._round = runner.epoch
        if self._batches is not None:
            self._batches.round = runner.epoch - 1
        if skip:
            run_iter = loop.run_iter
            loop.run_iter = lambda index, data_batch: run_iter(index + skip, data_batch)

    def end_epoch(self, runner: Runner) -> None:
        """In an epoch-based loop: the next batch is the first of the next pass."""
        if not hasattr(runner.train_loop, 'dataloader_iterator'):
            runner.train_loop.__dict__.pop('run_iter', None)
            self._round, self._skip = runner.epoch + 1, 0

    def count(self) -> int:
        """One more batch has been trained on; returns how many this process has seen."""
        self._skip += 1
        self._done += 1
        self._counted += 1
        return self._counted

    def hold(self) -> None:
        """Keep the random state aside while something else draws numbers."""
        self._held = random_state()

    def unhold(self) -> None:
        """Take up the random state that was kept."""
        if self._held is not None:
            set_random_state(self._held)
        self._held = None

    def gather(self) -> None:
        """Collect what differs between processes; all of them call it before one saves."""
        order = self._batches.order_state if self._batches is not None else None
        mine = {'random': self._held or random_state(), 'order': order}
        self._gathered = all_gather_object(mine)

    def saved(self, runner: Runner) -> dict[str, Any]:
        """What goes into a checkpoint under ``bocb_mm``."""
        return {
            'version': 1,
            'settings': self.settings,
            'plan': self.plan,
            'processes': self._gathered,
            'position': self._position(runner),
            'sampler_seed': getattr(_sampler(runner), 'seed', None),
            'gradients': self._gradients(runner),
            'evaluated': self.evaluated,
            'interim': self.interim,
        }

    def _position(self, runner: Runner) -> dict[str, int]:
        if not hasattr(runner.train_loop, 'dataloader_iterator') or self._batches is None:
            return {'round': self._round, 'offset': self._done - self._skip, 'skip': self._skip}
        offset = self._batches.offset
        return {'round': self._batches.round, 'offset': offset, 'skip': self._done - offset}

    def _gradients(self, runner: Runner) -> dict[str, torch.Tensor]:
        """Gradients that wait for more of their kind before the optimizer takes a step."""
        if self.settings.get('accumulative_counts', 1) == 1:
            return {}
        waiting = {n: p.grad for n, p in _model(runner).named_parameters() if p.grad is not None}
        if waiting and get_world_size() > 1:
            runner.logger.warning('gradients accumulated so far are not saved in a distributed run')
            return {}
        return {name: gradient.detach().cpu() for name, gradient in waiting.items()}

    def lacks_validation(self, runner: Runner) -> bool:
        """Whether the checkpoint was saved where a validation follows, and before that."""
        loop = runner.train_loop
        if self._loaded is None or runner.val_loop is None or self.evaluated == runner.iter:
            return False
        by_iter = hasattr(loop, 'dataloader_iterator')
        if not by_iter and self._skip:
            return False
        done, planned = (
            (runner.iter, loop.max_iters) if by_iter else (runner.epoch, loop.max_epochs)
        )
        compat.update_val_interval(loop)
        return done >= max(1, loop.val_begin) and (done % loop.val_interval == 0 or done == planned)


def _nothing() -> None:
    pass


def _check_shapes(model: Any, weights: dict[str, Any], where: str) -> None:
    """Refuse a model that has changed: mmengine would leave such weights random and go on."""
    for name, tensor in model.state_dict().items():
        was, is_now = (tuple(getattr(t, 'shape', ())) for t in (weights.get(name, tensor), tensor))
        if was != is_now:
            raise UserError(
                f'{where}: {name} has shape {was} there and {is_now} in this model, whose config '
                'has changed since (another number of classes?); go on with the config as it was, '
                'or start a new run from the weights (--pretrained PATH)'
            )


def _averages(runner: Runner) -> bool:
    return any(isinstance(hook, EMAHook) for hook in runner.hooks)


def _take_trained_weights(checkpoint: dict[str, Any]) -> None:
    """Exchange what EMAHook exchanged on saving: it puts the average where weights belong."""
    for name, trained in checkpoint.pop('ema_state_dict').items():
        own = name.removeprefix('module.')
        if own != name and own in checkpoint['state_dict']:
            checkpoint['state_dict'][own] = trained


def _model(runner: Runner) -> Any:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _sampler(runner: Runner) -> Any:
    loader = runner.train_dataloader
    return getattr(loader.batch_sampler, 'sampler', loader.sampler)


def _settings(runner: Runner) -> dict[str, Any]:
    """What must be the same when the run is resumed; see :func:`bocb_mm.resume.find.compare`."""
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    loader = runner.train_dataloader
    settings = find.settings_of_config(runner.cfg)
    batches = loader.batch_sampler
    settings['batch_size'] = getattr(batches, 'batch_size', loader.batch_size)
    settings['batches'] = len(loader) if hasattr(loader.dataset, '__len__') else None
    settings['world_size'] = get_world_size()
    if optimizer is not None:
        settings['algorithm'] = f'{type(optimizer).__module__}.{type(optimizer).__qualname__}'
        settings['origins'] = find.origins_of(type(optimizer))
        settings['parameters'] = [len(group['params']) for group in optimizer.param_groups]
        settings['accumulative_counts'] = compat.accumulative_counts(runner.optim_wrapper)
    return settings
