r"""Train and eval mode of schedule-free optimizers, switched when the model is used.

Schedule-free methods (Defazio et al. 2024, arXiv:2405.15682) keep three points: gradients are taken
at :math:`y`, the weights to evaluate and to save are the average :math:`x`. The optimizer puts
:math:`x` into the parameters in ``eval()`` and :math:`y` back in ``train()``.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn

from bocb_mm.errors import UserError


def is_schedule_free(optimizer: Any) -> bool:
    """Whether the optimizer has the ``train()`` and ``eval()`` of schedule-free methods."""
    return all(callable(getattr(optimizer, name, None)) for name in ('train', 'eval'))


class ScheduleFreeSwitch:
    """Keeps a schedule-free optimizer in the mode that the model's use asks for.

    - A forward of the model in training mode: ``optimizer.train()``.
    - A forward in eval mode (validation, test), or its ``state_dict()`` (a checkpoint, a best
      model): ``optimizer.eval()``, until the next training forward.

    So it needs no loop and no hook of a runner, works below DDP, and what a checkpoint holds is
    the average with the optimizer's state saved in the same mode, which resumes exactly.
    ``bocb_mm.OptimWrapperConstructor`` attaches it; with another constructor add
    ``custom_hooks=[dict(type='bocb_mm.ScheduleFreeHook')]``.

    Args:
        optimizer: A schedule-free optimizer.
        model: The model whose parameters it trains, not wrapped in DDP.
    """

    def __init__(self, optimizer: Any, model: nn.Module) -> None:
        self.optimizer = optimizer
        self.training: bool | None = None
        self._probe = _smallest(optimizer)
        self._seen: torch.Tensor | None = None
        optimizer.register_step_post_hook(lambda *_: self._remember())
        optimizer.register_load_state_dict_post_hook(self._forget)
        # The model must not keep the optimizer alive, nor be deep-copied (EMA) together with it.
        me = weakref.ref(self)
        self._handles = [
            model.register_forward_pre_hook(_OnForward(me)),
            model.register_state_dict_pre_hook(_OnStateDict(me)),
        ]
        optimizer._bocb_schedule_free_switch = self

    @classmethod
    def attach(cls, optimizer: Any, model: nn.Module) -> ScheduleFreeSwitch | None:
        """A switch for a schedule-free optimizer, the same one if it has one already; else None."""
        if not is_schedule_free(optimizer):
            return None
        return getattr(optimizer, '_bocb_schedule_free_switch', None) or cls(optimizer, model)

    def train(self) -> None:
        """Put :math:`y` into the parameters, if they are not there."""
        if self.training is not True:
            self.optimizer.train()
            self.training = True
            self._remember()

    def eval(self) -> None:
        """Put :math:`x` into the parameters, if they are not there.

        Raises:
            UserError: Somebody exchanged the parameters since the last step (mmengine's EMAHook
                does before validation): converting them would corrupt the training.
        """
        if self.training is not False:
            if self._seen is not None and not torch.equal(self._seen, self._probe.detach()):
                raise UserError(
                    f'{type(self.optimizer).__name__}: the weights were exchanged since the last '
                    'step (EMAHook?); schedule-free averages by itself, so leave EMA out, or add '
                    "custom_hooks=[dict(type='bocb_mm.ScheduleFreeHook')]"
                )
            self.optimizer.eval()
            self.training = False

    def _forget(self, *_: Any) -> None:
        """A loaded state knows its own mode; the next use of the model settles it."""
        self.training, self._seen = None, None

    def _remember(self) -> None:
        self._seen = self._probe.detach().clone()

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None


def show_average(optim_wrapper: Any) -> None:
    """Put the average that is validated into the model, where a switch is; nothing otherwise.

    The next training forward puts the training's point back.
    """
    optimizer = getattr(optim_wrapper, 'optimizer', None)
    switch = getattr(optimizer, '_bocb_schedule_free_switch', None)
    if switch is not None:
        switch.eval()


def _smallest(optimizer: Any) -> torch.Tensor:
    """The smallest parameter: what tells whether the weights are still the optimizer's own."""
    parameters = [p for g in optimizer.param_groups for p in g['params'] if p.numel() > 0]
    return min(parameters, key=lambda p: p.numel())


class _OnForward:
    """Forward pre-hook; a class, so that a copy of the model (EMA) does not switch anything."""

    def __init__(self, switch: Any) -> None:
        self._switch = switch

    def __deepcopy__(self, memo: dict[int, Any]) -> _OnForward:
        return type(self)(lambda: None)

    def __call__(self, module: nn.Module, *_: Any) -> None:
        switch = self._switch()
        if switch is not None:
            (switch.train if module.training else switch.eval)()


class _OnStateDict(_OnForward):
    """``state_dict`` pre-hook."""

    def __call__(self, module: nn.Module, *_: Any) -> None:
        switch = self._switch()
        if switch is not None:
            switch.eval()
