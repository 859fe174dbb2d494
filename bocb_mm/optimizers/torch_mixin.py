"""What the optimizers that PyTorch has share: strict arguments and three ways to run.

``foreach=None`` leaves the choice to the device: the fused kernel where PyTorch has one, else
``foreach`` on an accelerator and, on a CPU, a formula on blocks that stay in the cache.
``compile=True`` compiles the step; rate and step count enter as tensors, so that a schedule does
not compile anew. State and checkpoints are PyTorch's own, except that the way to run belongs to the
optimizer and not to the checkpoint.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any, ClassVar

import torch
from torch.optim.optimizer import _get_scalar_dtype

from bocb_mm.optimizers import kernels
from bocb_mm.optimizers.compiled import INDUCTOR
from bocb_mm.optimizers.multi_tensor import (
    Batch,
    Tensors,
    blocks,
    check_gradient,
    divided,
)
from bocb_mm.optimizers.strict import SettingError, StrictOptimizer, checked_params

RUN_FLAGS = ('foreach', 'fused', 'capturable', 'differentiable')


class TorchOptimizer(kernels.ScratchMixin, StrictOptimizer):
    """Mixin in front of a ``torch.optim`` class: way to run, sparse check, loading.

    Raises:
        SettingError: ``foreach=True`` together with ``compile=True``.
    """

    ranges: ClassVar[dict[str, tuple[float, float]]] = {
        'momentum': (0.0, math.inf),
        'momentum_decay': (0.0, math.inf),
        'lr_decay': (0.0, math.inf),
        'initial_accumulator_value': (0.0, math.inf),
        'alpha': (0.0, math.inf),
        'rho': (0.0, 1.0),
    }

    run_flags = RUN_FLAGS

    changed: ClassVar[dict[str, Any]] = {}
    """Defaults that differ from the torch class."""

    averages: ClassVar[tuple[str, ...]] = ()
    """State tensors of :meth:`update_block`; none: PyTorch's loop is all there is."""

    counters: ClassVar[dict[str, float]] = {'step': 0.0}
    """Numbers in the state of each weight before its first step."""

    fused_state: ClassVar[tuple[str, ...]] = ()
    """State tensors of :meth:`fused_kernel`; none: PyTorch has no fused kernel for a CPU."""

    one_pass: ClassVar[bool] = False
    """Whether :meth:`update_block` goes over the memory once, so that blocks gain nothing."""

    whole_blocks: ClassVar[int] = 2
    """Size from which a tensor is cut, in blocks."""

    foreach_parts: ClassVar[int] = 1
    """Into how many parts ``foreach=True`` divides the weights: PyTorch's buffers in their size."""

    torch_class: ClassVar[Any]
    param_groups: list[dict[str, Any]]
    state: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take the arguments over from the torch class, with our defaults and ``compile``."""
        super().__init_subclass__(**kwargs)
        cls.torch_class = next(c for c in cls.__mro__ if c.__module__.startswith('torch.optim.'))
        arguments = dict(inspect.signature(cls.torch_class.__init__).parameters)
        for hidden in ('self', 'capturable', 'differentiable'):
            arguments.pop(hidden, None)
        for name, value in cls.changed.items():
            arguments[name] = arguments[name].replace(default=value)
        arguments['compile'] = Parameter('compile', Parameter.KEYWORD_ONLY, default=False)
        cls.__signature__ = inspect.Signature(list(arguments.values()))  # type: ignore[attr-defined]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        bound = inspect.signature(type(self)).bind(*args, **kwargs)
        bound.apply_defaults()
        settings = bound.arguments
        params = checked_params(settings.pop('params'))
        groups = params if isinstance(params[0], dict) else [{'params': params}]
        self.compile = settings.pop('compile')
        self._compiled: Callable[[], Any] | None = None
        flags = settings.get('foreach'), settings.get('fused')
        if self.compile and any(flags):
            raise SettingError('compile=True with foreach=True or fused=True: choose one of them')
        if self.compile:
            settings['foreach'] = False
        elif flags == (None, None) and self._has_fused_kernel(groups):
            settings['fused'] = True
        self.check_settings(settings)
        self.torch_class.__init__(self, groups, **settings)

    @classmethod
    def _has_fused_kernel(cls, groups: list[dict[str, Any]]) -> bool:
        if 'fused' not in inspect.signature(cls.torch_class.__init__).parameters:
            return False
        devices = {'cpu'} if cls.torch_class is torch.optim.Adagrad else {'cpu', 'cuda'}
        entries = [e for group in groups for e in group['params']]
        tensors = [e[1] if isinstance(e, tuple) else e for e in entries]
        # torch 2.9.1: fused SGD leaves bfloat16 weights on a CPU as they are, without an error
        exact = {torch.float32, torch.float64}
        return all(
            p.device.type in devices
            and (p.dtype in exact if p.device.type == 'cpu' else p.is_floating_point())
            for p in tensors
        )

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
        if self._fused_step():
            return loss
        fused = [group for group in self.param_groups if group.get('fused')]
        self._check_gradients(bool(fused))
        # torch 2.9.1: fused SGD fails where some weights have a momentum buffer and others do not.
        fallback = [] if self._all_started() else [g for g in fused if not self._evenly_started(g)]
        for group in fallback:
            group['fused'] = False
        try:
            if self.compile:
                self._compiled_step()
            elif fused:
                super().step()  # type: ignore[misc]
            elif self._runs_foreach():
                self._step_in_parts()
            else:
                self._step_in_blocks()
        finally:
            for group in fallback:
                group['fused'] = True
        return loss

    def _fused_step(self) -> bool:
        """The fused kernels of a CPU without PyTorch's way to them, where nothing is uncommon.

        That way takes 0.3 to 1 ms for 160 weights, and needs :meth:`_check_gradients` before it.

        Returns:
            Whether the step is done.
        """
        scaled = getattr(self, 'grad_scale', None), getattr(self, 'found_inf', None)
        if not self.fused_state or scaled != (None, None) or not self._all_started():
            return False
        batches = [self._fused_batch(group) for group in self.param_groups]
        if None in batches:
            return False
        for group, batch in zip(self.param_groups, batches):
            if batch:
                self.fused_kernel(group, *zip(*batch))
        return True

    def _fused_batch(self, group: dict[str, Any]) -> list[tuple[torch.Tensor, ...]] | None:
        """Weight, gradient and state of each weight that is due; None for what is uncommon."""
        if not group.get('fused') or group.get('amsgrad') or isinstance(group['lr'], torch.Tensor):
            return None
        batch: list[tuple[torch.Tensor, ...]] = []
        for p in group['params']:
            g = p.grad
            if g is None:
                continue
            dense = g.layout is torch.strided and p.is_contiguous() and g.is_contiguous()
            if not dense or not p.is_cpu or p.dtype != g.dtype:
                return None
            state = self.state[p]
            tensors = [state.get(key) for key in self.fused_state]
            if any(t is None for t in tensors):
                return None
            batch.append((p, g, *tensors))
        return batch

    def fused_kernel(self, group: dict[str, Any], params: Any, grads: Any, *state: Any) -> None:
        """Run PyTorch's kernel; ``state``: the tensors of each of :attr:`fused_state`."""
        raise NotImplementedError

    def _runs_foreach(self) -> bool:
        """Whether it is asked for or, with ``None``, what PyTorch does on the device."""
        flags = {group.get('foreach') for group in self.param_groups}
        devices = {p.device.type for group in self.param_groups for p in group['params']}
        return True in flags or (None in flags and 'cpu' not in devices)

    def _check_gradients(self, fused: bool) -> None:
        """Refuse sparse gradients; lay those of a fused step out as their weights."""
        for p in [p for group in self.param_groups for p in group['params']]:
            g = p.grad
            if g is None:
                continue
            if g.layout is not torch.strided:
                check_gradient(p, g)
            if not fused or (p.is_contiguous() and g.is_contiguous()):
                continue
            # torch 2.9.1: the fused kernels walk the memory and mix up the elements of a
            # gradient that lies otherwise than its weight (channels-last), without an error.
            if g.stride() != p.stride():
                p.grad = torch.empty_like(p).copy_(g)

    def _step_in_blocks(self) -> None:
        """Run the class's formula on blocks that stay in the cache, or else PyTorch's loop."""
        batches = [self._batch(group) if self.averages else None for group in self.param_groups]
        if None in batches:
            super().step()  # type: ignore[misc]
            return
        for group, batch in zip(self.param_groups, batches):
            if batch is None or not batch.params:
                continue
            steps = [self.state[p]['step'] for p in batch.params]
            torch._foreach_add_(steps, kernels.number(1, steps[0]))
            c = self.coefficients(group, batch)
            parts = [batch] if self.one_pass else blocks(batch, cut=True, whole=self.whole_blocks)
            for params, grads, state in parts:
                self.update_block(params, grads, state, c)

    def _batch(self, group: dict[str, Any]) -> Batch | None:
        """What is due in a group, ``step`` being the coming one; None where PyTorch must do it.

        That is: weights that are not in step with each other; other devices and types; settings
        that the formula does not have.
        """
        params = [p for p in group['params'] if p.grad is not None and p.numel()]
        if group['maximize'] or not self.suits(group):
            return None
        if any(p.device.type != 'cpu' for p in params):
            return None
        self._start(params)
        states = [self.state[p] for p in params]
        counts = {float(state['step']) for state in states}
        columns = {key: [state[key] for state in states] for key in self.averages}
        grads = [p.grad for p in params]
        if len(counts) > 1 or not kernels.take(params, grads, *columns.values()):
            return None
        return Batch(params, grads, columns, int(max(counts, default=0)) + 1, None)

    def _start(self, params: Tensors) -> None:
        """Make the state of weights that have none, as PyTorch does in its first step.

        That step itself takes buffers of the size of the largest weight.
        """
        for p in params:
            if self.state.get(p):
                continue
            for key, value in self.counters.items():
                self.state[p][key] = torch.tensor(value, dtype=_get_scalar_dtype())
            for key in self.averages:
                self.state[p][key] = torch.zeros_like(p, memory_format=torch.preserve_format)

    def suits(self, group: dict[str, Any]) -> bool:
        """Whether :meth:`update_block` has the settings of a group."""
        return True

    def coefficients(self, group: dict[str, Any], batch: Batch) -> dict[str, Any]:
        """Numbers for :meth:`update_block`, worked out once a step."""
        raise NotImplementedError

    def update_block(self, params: Tensors, grads: Tensors, state: Any, c: dict[str, Any]) -> None:
        """The formula in place on a block: as PyTorch's loop up to rounding, in fewer passes."""
        raise NotImplementedError

    def _step_in_parts(self) -> None:
        """PyTorch's foreach step, a part of the weights at a time: its buffers are smaller."""
        groups = self.param_groups
        parts = [self._parts_of(group['params']) for group in groups]
        try:
            for lists in zip(*parts):
                self.param_groups = [g | {'params': part} for g, part in zip(groups, lists)]
                self._foreach_step()
        finally:
            self.param_groups = groups

    def _parts_of(self, params: list[torch.Tensor]) -> list[list[torch.Tensor]]:
        shares = divided([p.numel() for p in params], self._foreach_parts())
        return [[params[k] for k in share] for share in shares]

    def _foreach_parts(self) -> int:
        return self.foreach_parts

    def _foreach_step(self) -> None:
        super().step()  # type: ignore[misc]

    def _all_started(self) -> bool:
        """Whether every weight has a state: what holds from the second step on, at a glance."""
        count = sum(len(group['params']) for group in self.param_groups)
        return len(self.state) == count and all(self.state.values())

    def _evenly_started(self, group: dict[str, Any]) -> bool:
        """Whether all or none of the weights that are due have a state."""
        if 'momentum' not in group:
            return True
        started = {bool(self.state.get(p)) for p in group['params'] if p.grad is not None}
        return len(started) < 2

    def _compiled_step(self) -> None:
        """The compiled step, or the plain one where torch has yet to make the state of a weight."""
        due = [p for group in self.param_groups for p in group['params'] if p.grad is not None]
        stateless = isinstance(self, torch.optim.SGD) and not self.defaults['momentum']
        if not stateless and not all(self.state.get(p) for p in due):
            super().step()  # type: ignore[misc]
            return
        for p in due:
            # torch 2.9.1 counts in float32, in which compiled RAdam is off by 1e-3: its
            # rectification is a difference of numbers near 2000.
            count = self.state[p].get('step')
            if isinstance(count, torch.Tensor) and count.dtype == torch.float32:
                self.state[p]['step'] = count.double()
        if self._compiled is None:
            # Inductor (torch 2.9.1) would inline the powers of the bias corrections into the loops
            # over the weights and work them out for every element: 5 to 8 times fused AdamW.
            options = INDUCTOR | {'realize_opcount_threshold': 0}
            self._compiled = torch.compile(super().step, options=options)  # type: ignore[misc]
            self._rates = [torch.tensor(0.0, dtype=torch.float64) for _ in self.param_groups]
        rates = [group['lr'] for group in self.param_groups]
        try:
            for group, tensor, rate in zip(self.param_groups, self._rates, rates):
                group['lr'] = tensor.fill_(float(rate))
            self._compiled()
        finally:
            for group, rate in zip(self.param_groups, rates):
                group['lr'] = rate

    def example_state(self, p: torch.Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        """What a step of the torch class on ``meta`` leaves behind."""
        known = inspect.signature(self.torch_class).parameters
        settings = {key: group[key] for key in known if key in group and key not in RUN_FLAGS}
        probe = self.torch_class(**settings | {'params': [p], 'lr': 0.0, 'foreach': False})
        p.grad = torch.zeros_like(p)
        inspect.unwrap(self.torch_class.step)(probe)
        state = dict(probe.state[p])
        if 'step' in state and (group.get('fused') or group.get('capturable')):  # lies there
            state['step'] = p.new_empty((), dtype=torch.float32)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint; the way to run stays as this optimizer was built."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            if group.get('fused'):
                for p in group['params']:
                    self._lay_state_like(p)

    def _lay_state_like(self, p: torch.Tensor) -> None:
        """Lay the state out in memory as the weight lies; see :meth:`step` on fused kernels."""
        for key, value in self.state.get(p, {}).items():
            if not isinstance(value, torch.Tensor) or value.shape != p.shape:
                continue
            if value.stride() != p.stride():
                self.state[p][key] = torch.empty_like(p, dtype=value.dtype).copy_(value)

    def __getstate__(self) -> dict[str, Any]:
        """What pickling and copying keep: torch's part and the way to run."""
        return super().__getstate__() | {'compile': self.compile}  # type: ignore[operator]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.setdefault('compile', False)
        self._compiled = None
        super().__setstate__(state)  # type: ignore[misc]
