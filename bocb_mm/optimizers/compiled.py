"""``torch.compile`` of a formula, without a look at the layout of every tensor in every step.

A step of Adan on ResNet-50 has 972 tensors, which dynamo's guards compare one by one: 0.5 ms of 20,
and 1 ms in a process whose memory is full of other things. Nearly always weights and state are the
very tensors of the step before. So identities are compared instead, and of the layouts only what
can change under the same identity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from operator import is_
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

INDUCTOR: dict[str, Any] = {
    'cpp.dynamic_threads': True,  # else the number of threads at the time of compiling is built in
    'size_asserts': False,  # they repeat what is compared before each step; 0.7 ms of Adan's 20
}
"""Options of ``torch.compile``."""
LIMIT = 8
"""Layouts that an optimizer compiles its step for, as many as dynamo does. All further ones share a
step with all of dynamo's guards, so that dynamo itself may give compiling up."""

Call = tuple[list[Tensor], list[Tensor], dict[str, list[Tensor]], dict[str, Tensor], dict[str, Any]]
"""Arguments of a formula: weights, gradients, state, coefficients, statics."""


class CompiledFormula:
    """Calls of one formula, compiled together.

    Args:
        update: The formula.
        name: Of the optimizer. Dynamo counts recompilations by code object, over all optimizers of
            the process, and names it in its logs.
    """

    def __init__(self, update: Callable[..., None], name: str) -> None:
        self.update = update
        self.name = name
        self._steps: dict[Any, Callable[..., None]] = {}
        self._step: Callable[..., None] | None = None
        self._tensors: list[Tensor] = []
        self._layouts: list[Any] = []

    def __call__(self, calls: list[Call]) -> None:
        """Run the formula on each of ``calls``, in place.

        Args:
            calls: For each batch its arguments: lists of equal length of weights, gradients and
                state of any shape, and coefficients, which are 0-dim float64.

        A state tensor may be replaced between two steps, but not be given another layout or device
        by its ``data``.
        """
        if not calls:
            return
        tensors = [t for params, _, state, _, _ in calls for t in chain(params, *state.values())]
        layouts = [_changeable(params, grads) for params, grads, _, _, _ in calls]
        if self._step is None or layouts != self._layouts or not _same(tensors, self._tensors):
            self._step = self._step_for(calls)
            self._tensors, self._layouts = tensors, layouts
        self._step(self.update, calls)

    def _step_for(self, calls: list[Call]) -> Callable[..., None]:
        layout: Any = tuple(_layout(call) for call in calls)
        # a new dict each time: torch 2.9.1 takes the filter out of the one it gets
        options = INDUCTOR | {'guard_filter_fn': _but_tensors}
        if layout not in self._steps and len(self._steps) >= LIMIT:
            layout, options = None, {**INDUCTOR}
        if layout not in self._steps:
            code = _loop.__code__.replace(co_name=f'{self.name}_step')
            self._steps[layout] = torch.compile(FunctionType(code, globals()), options=options)
        return self._steps[layout]


def _loop(update: Callable[..., None], calls: list[Call]) -> None:
    for call in calls:
        update(*call)


def _but_tensors(guards: Sequence[Any]) -> list[bool]:
    """Which of dynamo's guards stay: all but those on the layout of each tensor.

    Also those which say that two arguments were one tensor when the step was compiled.
    """
    return [guard.guard_type != 'TENSOR_MATCH' for guard in guards]


def _same(tensors: list[Tensor], others: list[Tensor]) -> bool:
    return len(tensors) == len(others) and all(map(is_, tensors, others))


def _changeable(params: list[Tensor], grads: list[Tensor]) -> tuple[Any, ...]:
    """What ``p.data = ...`` and a new gradient can change; type and device are a batch's own."""
    return (
        (params[0].device, params[0].dtype, grads[0].dtype),
        list(map(Tensor.numel, params)),
        list(map(Tensor.stride, params)),
        list(map(Tensor.storage_offset, params)),
        list(map(Tensor.stride, grads)),
    )


def _layout(call: Call) -> tuple[Any, ...]:
    """All of a call's tensors that its compiled step depends on, hashable."""
    params, grads, state, coefficients, _ = call
    tensors = list(chain(params, grads, *state.values(), coefficients.values()))
    return (
        tuple(state),
        tuple((type(t), t.dtype, t.device, t.shape, t.stride()) for t in tensors),
        tuple(t.storage_offset() for t in tensors),
    )
