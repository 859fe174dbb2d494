"""Base of our own optimizers: one formula on lists of tensors, in three execution modes.

- *foreach* (``foreach=True``; the default on an accelerator): the formula gets all tensors of a
  group at once, so that the number of dispatches does not grow with that of the parameters.
- *blocks* (``foreach=False``; the default on a CPU): the formula gets :data:`BLOCK` elements at a
  time, which stay in the cache from one operation to the next. A formula that needs whole tensors
  gets them whole, small ones together.
- *compile* (``compile=True``): ``torch.compile`` of the formula. What depends on rate and step
  count enters as tensors, so that a schedule does not compile anew.

All give the same numbers up to rounding. The mode is no part of the state: a checkpoint goes on in
the mode of the optimizer that loads it.

A gradient that holds NaN makes the parameter NaN in the same step, at least where it is. A
parameter without gradient or without elements is left alone.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from inspect import Parameter, Signature
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bocb_mm.optimizers import sharding
from bocb_mm.optimizers.foreach import Tensors
from bocb_mm.optimizers.reductions import clip_factor, global_norm
from bocb_mm.optimizers.strict import SettingError, StrictOptimizer, compiling, with_gradient

State = dict[str, Tensors]
Scalars = dict[str, Any]
BLOCK = 384 * 1024
"""Elements of a block. Of 64 to 768 thousand, 384 and 512 thousand were the fastest on ResNet-50
and DeiT-S (32 MB cache, 1 and 2 threads): smaller ones cost more calls than the cache saves."""

MODES = {'foreach': None, 'compile': False}
"""Arguments that choose the execution mode, with their defaults."""


def _parameter(name: str, default: Any, kind: Any = Parameter.POSITIONAL_OR_KEYWORD) -> Parameter:
    return Parameter(name, kind, default=default)


class Call(NamedTuple):
    """Arguments of one call of :meth:`MultiTensorOptimizer.update`."""

    params: Tensors
    grads: Tensors
    state: State
    c: Scalars
    s: Scalars


class MultiTensorOptimizer(StrictOptimizer, torch.optim.Optimizer):
    """Base class. A subclass has :attr:`defaults`, :attr:`state_names` and :meth:`update`.

    Args:
        params: Parameters or groups, as for any torch optimizer.
        foreach: ``None`` chooses by device.
        compile: Compile the formula; excludes ``foreach``.

    The others are the subclass's :attr:`defaults`.

    Raises:
        SettingError: A setting out of range, ``foreach=True`` with ``compile=True``, a complex
            parameter, or a shard of one where the formula needs it whole.
    """

    defaults: dict[str, Any] = {}
    """Arguments beside ``params``, ``foreach`` and ``compile``: settings of a group."""

    state_names: tuple[str, ...] = ()
    """State tensors of the shape of the parameter, which start at 0."""

    elementwise = True
    """Whether an element is updated from its own gradients alone."""

    joint = False
    """Whether a step needs the gradients of all parameters together."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make the signature of the defaults."""
        super().__init_subclass__(**kwargs)
        settings = [_parameter(name, default) for name, default in cls.defaults.items()]
        modes = [_parameter(n, d, Parameter.KEYWORD_ONLY) for n, d in MODES.items()]
        arguments = [_parameter('params', Parameter.empty), *settings, *modes]
        cls.__signature__ = Signature(arguments)  # type: ignore[attr-defined]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        bound = inspect.signature(type(self)).bind(*args, **kwargs)
        bound.apply_defaults()
        settings = bound.arguments
        self.foreach, self.compile = settings.pop('foreach'), settings.pop('compile')
        if self.foreach and self.compile:
            raise SettingError('foreach=True with compile=True: choose one of them')
        super().__init__(settings.pop('params'), settings)

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """``c``: what depends on rate, decay or step count, in double precision.

        Args:
            group: Settings of a group; the rate is a float.
            step: Steps of the parameter, this one included.
        """
        raise NotImplementedError

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """The formula, in place on lists of tensors.

        Args:
            params: Parameters of the same device, dtype, step count and :meth:`kind`.
            grads: Their gradients, not to be changed.
            state: Their state by name.
            c: :meth:`coefficients`, as numbers or 0-dim tensors, and ``clip`` where the group has
                a ``max_grad_norm``.
            s: The settings of the group, and ``kind``.
        """
        raise NotImplementedError

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """State tensors of a parameter before its first step."""
        return {name: torch.zeros_like(p) for name in self.state_names}

    def example_state(self, p: Tensor, group: Any) -> dict[str, Any]:
        """See the mixin: what :meth:`init_state` makes, and the step count."""
        return {'step': 0, **self.init_state(p, group)}

    @staticmethod
    def kind(p: Tensor, group: dict[str, Any]) -> Any:
        """What sets parameters of one group apart for the formula, hashable."""
        return None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as in torch.

        Raises:
            SettingError: See the class.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            sharding.check(type(self).__name__, group, self.elementwise, self.joint)
            for p in group['params']:
                if p.is_complex():
                    raise SettingError(f'parameter of dtype {p.dtype}: expected a real one')
        except SettingError:
            self.param_groups.pop()
            raise
        self._note_matrices()

    def _note_matrices(self) -> None:
        self._matrices = [any(p.dim() > 1 for p in g['params']) for g in self.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: Evaluates the model anew and returns the loss.

        Returns:
            What ``closure`` returned.

        Raises:
            SparseGradientError: A gradient is sparse; nothing has changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, matrices in zip(self.param_groups, self._matrices):
            sharding.check_flattened(type(self).__name__, group, matrices, self.elementwise)
        norm = None
        grads = [p.grad for group in self.param_groups for p in with_gradient(group)]
        if any(group.get('max_grad_norm') for group in self.param_groups) and grads:
            norm = global_norm(grads)
        calls = [call for group in self.param_groups for call in self._calls(group, norm)]
        self.prepare(calls)
        if self.compile:
            self._run_compiled(calls)
        else:
            for call in calls:
                for piece in self._pieces(call):
                    self.update(*piece)
        self.finish(calls)
        return loss

    def prepare(self, calls: list[Call]) -> None:
        """What all parameters give together before the formula runs, into their ``c``."""

    def finish(self, calls: list[Call]) -> None:
        """What is done outside of the formula after it has run, in every mode alike."""

    def _calls(self, group: dict[str, Any], norm: Tensor | None) -> Iterable[Call]:
        """Count a step of the group and sort its parameters by what :meth:`update` needs alike."""
        settings = {k: v for k, v in group.items() if k in self.defaults}
        settings['lr'] = float(group['lr'])
        calls: dict[Any, Call] = {}
        for p in with_gradient(group):
            state = self.state_of(p, group)
            state['step'] += 1
            kind = self.kind(p, group)
            names = [name for name in state if name != 'step']
            key = (p.device, p.dtype, p.grad.dtype, state['step'], kind, *names)
            if key not in calls:
                c = self.coefficients(settings, state['step'])
                if norm is not None and group['max_grad_norm']:
                    c['clip'] = clip_factor(norm, group['max_grad_norm'], p)
                calls[key] = Call([], [], {n: [] for n in names}, c, settings | {'kind': kind})
            call = calls[key]
            call.params.append(sharding.local(p))
            call.grads.append(sharding.local(p.grad, p))
            for name in names:
                call.state[name].append(sharding.local(state[name]))
        return calls.values()

    def state_of(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """State of a parameter, made where it has none."""
        state = self.state[p]
        if not state:
            state.update(step=0, **self.init_state(p, group))
        return state

    def _pieces(self, call: Call) -> Iterable[Call]:
        """What the formula gets at a time."""
        on_cpu = call.params[0].device.type == 'cpu'
        if self.foreach or (self.foreach is None and not on_cpu):
            return [call]
        return blocks(call, cut=self.elementwise)

    def _run_compiled(self, calls: list[Call]) -> None:
        if not calls:
            return
        if self._compiled is None:
            # a copy for each optimizer: dynamo counts compilations by code object
            code = _update_all.__code__.replace(co_name=f'{type(self).__name__}_step')
            self._compiled = torch.compile(FunctionType(code, globals()), dynamic=False)
        with compiling():
            self._compiled(
                self.update, [tuple(call._replace(c=_as_tensors(call.c))) for call in calls]
            )

    _compiled: Callable[..., None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What pickling and copying keep: torch's part and the execution mode."""
        return super().__getstate__() | {'foreach': self.foreach, 'compile': self.compile}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if '_matrices' not in self.__dict__:
            self._note_matrices()


def _update_all(update: Callable[..., None], calls: list[tuple[Any, ...]]) -> None:
    for call in calls:
        update(*call)


def _as_tensors(c: Scalars) -> Scalars:
    as_tensor = functools.partial(torch.tensor, dtype=torch.float64)
    return {k: v if isinstance(v, Tensor) else as_tensor(v) for k, v in c.items()}


def blocks(call: Call, cut: bool) -> Iterator[Call]:
    """The call in pieces of about :data:`BLOCK` elements: small tensors together, big ones cut.

    Without ``cut``, for formulas that need whole tensors, a big tensor is a piece by itself.
    """
    rows: list[tuple[Tensor, ...]] = []
    size = 0
    for row in zip(call.params, call.grads, *call.state.values()):
        n = row[0].numel()
        flat = flat_views(row) if cut and n >= 2 * BLOCK else None
        if flat is not None:
            for part in zip(*(t.chunk(math.ceil(n / BLOCK)) for t in flat)):
                yield _piece(call, [part])
            continue
        rows.append(row)
        size += n
        if size >= BLOCK:
            yield _piece(call, rows)
            rows, size = [], 0
    if rows:
        yield _piece(call, rows)


def _piece(call: Call, rows: list[tuple[Tensor, ...]]) -> Call:
    params, grads, *state = (list(column) for column in zip(*rows))
    return Call(params, grads, dict(zip(call.state, state)), call.c, call.s)


def flat_views(tensors: Iterable[Tensor]) -> Tensors | None:
    """One-dimensional views in memory order, or None where the tensors do not lie alike."""
    tensors = list(tensors)
    if all(t.is_contiguous() for t in tensors):
        return [t.view(-1) for t in tensors]
    if tensors[0].dim() != 4:
        return None
    if all(t.is_contiguous(memory_format=torch.channels_last) for t in tensors):
        return [t.permute(0, 2, 3, 1).view(-1) for t in tensors]
    return None
