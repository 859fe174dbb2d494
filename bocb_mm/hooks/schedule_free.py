"""``bocb_mm.ScheduleFreeHook``: the switch of schedule-free optimizers for any stock config."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook

from bocb_mm.errors import UserError
from bocb_mm.optim_wrappers.schedule_free import ScheduleFreeSwitch
from bocb_mm.registry import HOOKS


@HOOKS.register_module()
class ScheduleFreeHook(Hook):
    """Attach :class:`~bocb_mm.optim_wrappers.ScheduleFreeSwitch`, and switch before EMA does.

    Needed with a stock optimizer-wrapper constructor, or together with ``EMAHook``, which
    exchanges the weights before validation: the optimizer's own switch must come first, so this
    hook has a higher priority. ``bocb_mm.OptimWrapperConstructor`` without EMA needs no hook.

    Raises:
        UserError: The optimizer is not schedule-free.

    Example:
        >>> custom_hooks = [dict(type='bocb_mm.ScheduleFreeHook')]
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._switch: ScheduleFreeSwitch | None = None

    def before_train(self, runner: Any) -> None:
        """Find the optimizer and attach the switch."""
        model = getattr(runner.model, 'module', runner.model)
        optimizer = runner.optim_wrapper.optimizer
        self._switch = ScheduleFreeSwitch.attach(optimizer, model)
        if self._switch is None:
            raise UserError(
                f'ScheduleFreeHook: {type(optimizer).__name__} has no train() and eval(); '
                'leave the hook out'
            )

    def before_val_epoch(self, runner: Any) -> None:
        """Put the average into the model before anything reads or exchanges its weights."""
        if self._switch is not None:
            self._switch.eval()

    def before_test_epoch(self, runner: Any) -> None:
        """As before validation."""
        self.before_val_epoch(runner)
