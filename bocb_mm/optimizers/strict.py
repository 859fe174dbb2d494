"""What every optimizer refuses: unknown arguments, values out of range, parameters that are none.

One clear line for the constructor's arguments and for those of a single group alike.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch

from bocb_mm.errors import UserError, nearest
from bocb_mm.optimizers import loading


class UnknownArgumentError(UserError, TypeError):
    """An optimizer was given an argument it does not have."""


class SettingError(UserError, ValueError):
    """An optimizer was given a value outside its range."""


class ParametersError(UserError, TypeError, ValueError):
    """What should be parameters is something else, or nothing."""


class SparseGradientError(UserError, RuntimeError):
    """A parameter has a sparse gradient."""


GROUP_KEYS = frozenset(
    {
        *('params', 'param_names', 'name', 'role'),  # torch; bocb_mm.optim_wrappers
        *('param_name', 'group_name', 'layer_id', 'lr_scale', 'fix_lr'),  # mmpretrain, mmdet, timm
        *('lr_mult', 'decay_mult'),  # mmengine leaves a custom_keys entry in its group
        *('max_lr', 'min_lr', 'base_lr', 'swa_lr', 'max_momentum', 'base_momentum'),  # schedulers
    }
)
"""Keys of a group that are no settings of its optimizer; ``initial_*`` (schedulers) is another."""


RANGES = {'lr': (0.0, math.inf), 'weight_decay': (0.0, math.inf), 'eps': (0.0, math.inf)}
"""Ranges ``[low, high)`` of what nearly every optimizer takes."""


class StrictOptimizer:
    """Mixin in front of ``torch.optim.Optimizer``: strict arguments and groups, checked loading.

    The keywords are checked in ``__new__``, so that this holds for a direct call, for
    ``build_optimizer`` and for a registry alike. ``step`` is kept out of ``torch.compile`` of what
    surrounds it, e.g. mmengine's ``compile=True``, which compiles a whole training step.

    A subclass sets :attr:`ranges`, extends :meth:`check` and implements :meth:`example_state`.
    """

    defaults: dict[str, Any]
    param_groups: list[dict[str, Any]]
    state: Any
    ranges: ClassVar[dict[str, tuple[float, float]]] = {}
    """Settings that are numbers in ``[low, high)``, beyond :data:`RANGES`."""

    run_flags: ClassVar[tuple[str, ...]] = ()
    """Settings of a group that stay as this optimizer was built when a state is loaded."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Show the arguments of ``__init__`` where ``inspect`` would show those of ``__new__``."""
        super().__init_subclass__(**kwargs)
        if '__init__' in cls.__dict__:
            signature = inspect.signature(cls.__dict__['__init__'])
            cls.__signature__ = signature.replace(  # type: ignore[attr-defined]
                parameters=list(signature.parameters.values())[1:]
            )
        if 'step' in cls.__dict__:
            cls.step = _outside_of_graphs(cls.__dict__['step'])  # type: ignore[attr-defined]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Check the keywords, then make the object.

        Raises:
            UnknownArgumentError: A keyword that ``__init__`` does not take.
            SettingError: A number is text.
        """
        known = inspect.signature(cls).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in known.values()):  # a subclass of a user may
            check_keywords(cls.__name__, known, kwargs)
        check_numbers({key: value for key, value in kwargs.items() if key != 'params'})
        return super().__new__(cls)

    def __init__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(checked_params(params), *args, **kwargs)  # type: ignore[call-arg]

    @classmethod
    def check(cls, group: Mapping[str, Any]) -> None:
        """Check the values of a group, which has every setting: here ranges and ``betas``.

        Raises:
            SettingError: A value is out of its range.
        """
        for name, (low, high) in (RANGES | cls.ranges).items():
            if name in group:
                require_number(name, group[name], low, high)
        if 'betas' in group:
            check_betas(group['betas'], len(inspect.signature(cls).parameters['betas'].default))

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """:meth:`check`, after a look for numbers that are text."""
        check_numbers(settings)
        cls.check(settings)

    def example_state(self, p: torch.Tensor, group: Mapping[str, Any]) -> dict[str, Any] | None:
        """The state of a parameter after its first step, without data: what a loaded one must be.

        Args:
            p: A parameter on the ``meta`` device, of the shape and dtype in question.
            group: Its settings.

        Returns:
            By name: tensors on ``meta`` for what lies beside the parameter; numbers and tensors on
            the CPU for counters. None where it is not known; then nothing is checked.
        """
        return None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; refuses what the constructor refuses, before anything has changed.

        Raises:
            UnknownArgumentError: A key that the optimizer does not have.
            SettingError: A value out of its range.
            ParametersError: ``params`` is missing, or holds something else than parameters.
        """
        name = type(self).__name__
        group = _checked_group(param_group, f'group {len(self.param_groups)}')
        for key in group:
            if not (key in self.defaults or key in GROUP_KEYS or str(key).startswith('initial_')):
                raise _unknown_argument(f'a group of {name}', key, self.defaults)
        for settings in (self.defaults, self.defaults | group):
            self.check_settings(settings)
        try:
            super().add_param_group(group)  # type: ignore[misc]
        except (TypeError, ValueError) as error:  # e.g. a parameter in two groups
            raise ParametersError(f'{name}: {error}') from None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; the execution mode stays as this optimizer was built.

        Raises:
            StateError: The state belongs to another optimizer, or to a model with other shapes.
        """
        loading.load(self, state_dict, super().load_state_dict)  # type: ignore[misc]


def _outside_of_graphs(step: Callable[..., Any]) -> Callable[..., Any]:
    """``torch.compiler.disable``, which takes a second to import, where it is needed only."""

    @functools.wraps(step)
    def wrapper(self: Any, closure: Callable[[], Any] | None = None) -> Any:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(step)(self, closure)
        return step(self, closure)

    return wrapper


@contextmanager
def compiling() -> Iterator[None]:
    """Around a compiled step: one line where torch finds no C++ compiler, which a CPU needs."""
    try:
        yield
    except RuntimeError as error:
        if 'C++ compiler' not in str(error):
            raise
        raise SettingError(
            'compile=True: torch needs a C++ compiler for a step on the CPU and found none; '
            'install g++, name yours in the variable CXX, or leave compile out'
        ) from None


def check_keywords(name: str, known: Iterable[str], keywords: Iterable[str]) -> None:
    """Raise for the first keyword that is not known.

    Args:
        name: How the message calls what is built.
        known: Arguments that it takes.
        keywords: What it is about to get.

    Raises:
        UnknownArgumentError: Names the keyword and the nearest arguments.
    """
    names = [n for n in known if n != 'params']
    for key in keywords:
        if key not in names and key != 'params':
            raise _unknown_argument(name, key, names)


def _unknown_argument(name: str, key: str, names: Iterable[str]) -> UnknownArgumentError:
    near = nearest(str(key), names)
    fix = f'did you mean {near[0]}?' if near else f'it takes {", ".join(names)}'
    return UnknownArgumentError(f'{name} has no argument {key!r}; {fix}')


def checked_params(params: Any) -> list[Any]:
    """Parameters, named parameters or groups, as a list.

    Raises:
        ParametersError: They are nothing, or in no order, or something else.
    """
    entries = _listed(params, 'params')
    if not entries:
        raise ParametersError(
            'params is empty: the model has nothing to train, or its generator was used up before; '
            'give list(model.parameters())'
        )
    if isinstance(entries[0], dict):
        return [_checked_group(g, f'group {i}') for i, g in enumerate(entries)]
    return _checked_tensors(entries, 'params')


def _checked_group(group: Any, where: str) -> dict[str, Any]:
    if not isinstance(group, dict) or 'params' not in group:
        found = f'the keys {sorted(group)}' if isinstance(group, dict) else type(group).__name__
        raise ParametersError(f'{where}: expected a dict with "params" in it, found {found}')
    inside = group['params']
    entries = [inside] if isinstance(inside, torch.Tensor) else _listed(inside, where)
    if not entries and not isinstance(inside, (list, tuple)):
        raise ParametersError(f'{where}: its params are empty, or their generator was used up')
    return group | {'params': _checked_tensors(entries, where)}


def _listed(params: Any, what: str) -> list[Any]:
    found, fix = type(params).__name__, 'a list of parameters or of groups'
    if isinstance(params, torch.Tensor):
        raise ParametersError(f'{what} is one tensor: expected {fix}; put it in a list')
    if isinstance(params, (set, frozenset)):
        raise ParametersError(f'{what} is a set, whose order changes: expected {fix}')
    if isinstance(params, (str, Mapping)) or not isinstance(params, Iterable):
        call = '; give its .parameters()' if isinstance(params, torch.nn.Module) else ''
        raise ParametersError(f'{what} is of type {found}: expected {fix}{call}')
    return list(params)


def _checked_tensors(entries: list[Any], what: str) -> list[Any]:
    for i, entry in enumerate(entries):
        p = entry[1] if isinstance(entry, tuple) and len(entry) == 2 else entry
        if not isinstance(p, torch.Tensor):
            raise ParametersError(
                f'{what}: entry {i} is of type {type(entry).__name__}; expected a tensor'
            )
    return entries


def with_gradient(group: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    """Parameters of a group that have elements and a gradient.

    Raises:
        SparseGradientError: A gradient is sparse.
    """
    for p in group['params']:
        if p.grad is None or not p.numel():
            continue
        if p.grad.layout is not torch.strided:
            raise SparseGradientError(
                f'a parameter of shape {tuple(p.shape)} has a sparse gradient; make it dense '
                '(nn.Embedding(sparse=False))'
            )
        yield p


def check_numbers(settings: Mapping[str, Any]) -> None:
    """Refuse numbers that are text, which is what YAML makes of ``5e-2``.

    Raises:
        SettingError: Names the value and how YAML has to have it.

    Example:
        >>> check_numbers({'lr': '5e-2'})
        Traceback (most recent call last):
        bocb_mm.optimizers.strict.SettingError: lr='5e-2' is text, not a number; write 0.05
    """
    for name, value in settings.items():
        for text in value if isinstance(value, (list, tuple)) else (value,):
            if not isinstance(text, str) or name in GROUP_KEYS:
                continue
            try:
                number = float(text)
            except ValueError:
                continue
            plain = repr(number) if '.' in repr(number) else repr(number).replace('e', '.0e')
            raise SettingError(f'{name}={value!r} is text, not a number; write {plain}')


def require(condition: bool, name: str, value: Any, expected: str) -> None:
    """Raise :class:`SettingError` unless ``condition`` holds.

    Example:
        >>> require(-1 >= 0, 'lr', -1, 'at least 0')
        Traceback (most recent call last):
        bocb_mm.optimizers.strict.SettingError: lr=-1: expected at least 0
    """
    if not condition:
        raise SettingError(f'{name}={value!r}: expected {expected}')


def require_number(name: str, value: Any, low: float = 0.0, below: float = math.inf) -> None:
    """Raise :class:`SettingError` unless ``value`` is a number in ``[low, below)``.

    Example:
        >>> require_number('momentum', 1.5, below=1)
        Traceback (most recent call last):
        bocb_mm.optimizers.strict.SettingError: momentum=1.5: expected a number in [0, 1)
    """
    span = f'of at least {low:g}' if below == math.inf else f'in [{low:g}, {below:g})'
    require(_in_range(value, low, below), name, value, f'a number {span}')


def _in_range(value: Any, low: float, below: float) -> bool:
    try:
        return not isinstance(value, (bool, str)) and low <= float(value) < below
    except (TypeError, ValueError, RuntimeError):
        return False


def check_betas(betas: Any, n: int) -> None:
    """Check that there are ``n`` decay rates in [0, 1)."""
    good = isinstance(betas, (list, tuple)) and len(betas) == n
    require(
        good and all(_in_range(b, 0, 1) for b in betas), 'betas', betas, f'{n} numbers in [0, 1)'
    )
