"""What the optimizers that PyTorch has share: strict arguments, checked loading, ``compile=True``.

The arithmetic, the state and the choice between a loop and ``foreach`` are PyTorch's own; ``fused``
runs where it is asked for.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from inspect import Parameter
from types import FunctionType
from typing import Any, ClassVar

import torch

from bocb_mm.optimizers import fused
from bocb_mm.optimizers.strict import SettingError, StrictOptimizer, compiling, with_gradient

COUNTERS = {'step', 'mu_product'}
"""Numbers in the state. For ``compile`` they are in double precision, on the parameter's device: in
float32 compiled RAdam is off by 1e-3, for its rectification is a difference of numbers near 2000.
"""
OPTIONS = {'realize_opcount_threshold': 0}
"""Of ``torch.compile``. By default it works the powers of the bias corrections out anew for every
element: 2.8 times fused AdamW, and 3.6 for RAdam, where this gives 1.2 and 1.0 (a CPU)."""


class TorchOptimizer(StrictOptimizer):
    """Mixin in front of a ``torch.optim`` class.

    Raises:
        SettingError: ``compile=True`` together with ``foreach=True`` or ``fused=True``, or what the
            torch class refuses.
    """

    ranges: ClassVar[dict[str, tuple[float, float]]] = {
        'momentum': (0.0, math.inf),
        'momentum_decay': (0.0, math.inf),
        'lr_decay': (0.0, math.inf),
        'initial_accumulator_value': (0.0, math.inf),
        'alpha': (0.0, math.inf),
        'rho': (0.0, 1.0),
    }
    run_flags = ('foreach', 'fused', 'capturable', 'differentiable')

    changed: ClassVar[dict[str, Any]] = {}
    """Defaults that differ from the torch class."""

    torch_class: ClassVar[Any]
    torch_step: ClassVar[Callable[[Any], Any]]
    """``step`` of the torch class as it was written. That class's own attribute calls the step
    hooks, once an object of it exists in the process, and ours has called them already."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take the arguments over from the torch class, with our defaults and ``compile``."""
        super().__init_subclass__(**kwargs)
        if TorchOptimizer not in cls.__bases__:
            return
        cls.torch_class = cls.__bases__[-1]
        cls.torch_step = inspect.unwrap(cls.torch_class.step)
        arguments = dict(inspect.signature(cls.torch_class).parameters)
        for hidden in ('capturable', 'differentiable'):
            arguments.pop(hidden, None)
        for name, value in cls.changed.items():
            arguments[name] = arguments[name].replace(default=value)
        arguments['compile'] = Parameter('compile', Parameter.KEYWORD_ONLY, default=False)
        cls.__signature__ = inspect.Signature(list(arguments.values()))  # type: ignore[attr-defined]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        bound = inspect.signature(type(self)).bind(*args, **kwargs)
        bound.apply_defaults()
        settings = bound.arguments
        self.compile = settings.pop('compile')
        self._compiled: Any = None
        self._layout: list[Any] | None = None
        if self.compile and (settings.get('foreach') or settings.get('fused')):
            raise SettingError('compile=True with foreach=True or fused=True: choose one of them')
        params = settings.pop('params')
        self.check_settings(settings)
        try:
            super().__init__(params, **settings)
        except (ValueError, RuntimeError) as error:
            if isinstance(error, SettingError):
                raise
            raise SettingError(f'{type(self).__name__}: {error}') from None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns what ``closure`` returned.

        Raises:
            SparseGradientError: A gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self.prepare(group, list(with_gradient(group)))
        if self.compile:
            self._compiled_step()
        else:
            self.torch_step()
        return loss

    def prepare(self, group: dict[str, Any], params: list[torch.Tensor]) -> None:
        """What must be so before PyTorch's step; ``params``: those that have a gradient."""
        if group.get('fused'):
            fused.prepare(self, group, params)

    def _compiled_step(self) -> None:
        """``torch.compile`` of PyTorch's step; the rate is a tensor, as the step count is."""
        params = [p for group in self.param_groups for p in group['params']]
        stepped = [(p, g) for g in self.param_groups for p in with_gradient(g)]
        if not all(self._compiles(p, group) for p, group in stepped):
            self.torch_step()
            return
        for p, _ in stepped:
            p.grad = fused.laid_as(p, p.grad)
            for key in COUNTERS & self.state.get(p, {}).keys():
                self.state[p][key] = self.state[p][key].to(p.device, torch.float64)
        layout = [(p.shape, p.stride(), p.dtype, p.device) for p in params]
        if layout != self._layout:
            self._compiled = partial(torch.compile(self._fresh_step(), options=OPTIONS), self)
            self._rates = [torch.tensor(0.0, dtype=torch.float64) for _ in self.param_groups]
            self._layout = layout
        rates = [group['lr'] for group in self.param_groups]
        try:
            for group, tensor, rate in zip(self.param_groups, self._rates, rates):
                group['lr'] = tensor.fill_(float(rate))
            with compiling():
                self._compiled()
        finally:
            for group, rate in zip(self.param_groups, rates):
                group['lr'] = rate

    def _fresh_step(self) -> Callable[[Any], Any]:
        """A copy of torch's step, compiled by itself: dynamo keeps what it compiled by code object.

        torch 2.9.1 goes on with code for the layout that a parameter had.
        """
        step = type(self).torch_step
        code = step.__code__.replace(co_name=f'{type(self).__name__}_step')
        return FunctionType(code, step.__globals__, argdefs=step.__defaults__)

    def _compiles(self, p: torch.Tensor, group: dict[str, Any]) -> bool:
        """Not where torch has yet to make the state, nor 0-dim float64 on a CPU (miscompiled)."""
        stateless = self.torch_class is torch.optim.SGD and not group['momentum']
        alone = p.dim() == 0 and p.dtype == torch.float64 and p.is_cpu
        return (stateless or bool(self.state.get(p))) and not alone

    def example_state(self, p: torch.Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        """What a step of the torch class on ``meta`` leaves behind."""
        known = inspect.signature(self.torch_class).parameters
        settings = {key: group[key] for key in known if key in group and key not in self.run_flags}
        probe = self.torch_class(**settings | {'params': [p], 'lr': 0.0, 'foreach': False})
        p.grad = torch.zeros_like(p)
        type(self).torch_step(probe)
        state = dict(probe.state[p])
        if 'step' in state and (group.get('fused') or group.get('capturable')):
            state['step'] = p.new_empty((), dtype=torch.float32)  # lies beside the parameter
        return state

    def __getstate__(self) -> dict[str, Any]:
        """What pickling and copying keep: torch's part and the execution mode."""
        state: Any = super().__getstate__()
        return state | {'compile': self.compile}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.setdefault('compile', False)
        self._compiled = self._layout = None
        super().__setstate__(state)  # type: ignore[misc]
