"""What a checkpoint may hold, so that the reader that runs no code gives all of it back.

A Runner saves whatever its parts keep: a scheduler's function, an enum among an optimizer's
settings, a path in the message hub. Three rules, by what the part is for:

- *Information* (``meta``, ``message_hub``, what other hooks add) becomes plain data: an enum its
  value, a path its text, a deque or a range a list.
- *Settings* (schedulers, parameter groups) that are code (functions, classes, enums) are left
  out: a resumed run builds them from its config anyway, and :func:`restore_settings` puts them
  back.
- *State* (the optimizer's, and what moves in a scheduler) must be plain already. Anything else is
  refused with its place: left out or changed, the run would go on otherwise than it was.
"""

from __future__ import annotations

import collections
import datetime
import enum
import functools
import os
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from bocb_mm.errors import CheckpointError

_WEIGHTS = ('state_dict', 'ema_state_dict')
_ATOMS = (
    bool, int, float, complex, str, bytes, bytearray, types.NoneType, torch.Size, torch.dtype,
    torch.device,
)  # fmt: skip
_CODE = (
    types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType, type,
    functools.partial, staticmethod, enum.Enum,
)  # fmt: skip


class NotPlainError(CheckpointError):
    """Something in a checkpoint that could not be read back; the message says where it stands."""

    def __init__(self, where: str, value: Any) -> None:
        kind = f'{type(value).__module__}.{type(value).__qualname__}'
        super().__init__(
            f'{where} holds a {kind.removeprefix("builtins.")}, which is neither a tensor nor '
            'plain data: a checkpoint with it could not be read back safely; choose another '
            'optimizer or schedule, or give --trust-checkpoint now and with every --resume'
        )


def make_plain(checkpoint: dict[str, Any]) -> None:
    """Change what a Runner is about to save so that it can be read back.

    Args:
        checkpoint: As ``before_save_checkpoint`` of a hook gets it; changed in place. Its weights
            are left alone.

    Raises:
        NotPlainError: Optimizer or scheduler hold something that cannot be saved.

    Example:
        >>> checkpoint = {'meta': {'sizes': range(2)}, 'param_schedulers': [{'f': max, 'step': 3}]}
        >>> make_plain(checkpoint)
        >>> checkpoint
        {'meta': {'sizes': [0, 1]}, 'param_schedulers': [{'step': 3}]}
    """
    for name, value in checkpoint.items():
        if name == 'optimizer':
            checkpoint[name] = plain_optimizer(value)
        elif name == 'param_schedulers':
            checkpoint[name] = _schedulers(value, name)
        elif name not in _WEIGHTS:
            checkpoint[name] = _information(value, name)


def plain_optimizer(state: Mapping[str, Any], where: str = 'optimizer') -> dict[str, Any]:
    """State of an optimizer wrapper as it can be read back; several optimizers too.

    Raises:
        NotPlainError: The optimizer's state holds something else than tensors and plain data.
    """
    if 'param_groups' not in state and all(isinstance(v, Mapping) for v in state.values()):
        return {name: plain_optimizer(part, f'{where}.{name}') for name, part in state.items()}
    out: dict[str, Any] = {}
    for name, value in state.items():
        place = f'{where}.{name}'
        if name == 'param_groups':
            out[name] = [_settings(group, f'{place}.{k}') for k, group in enumerate(value)]
        elif name == 'base_param_settings':  # mmengine's record of the settings of the top level
            out[name] = _settings(value, place)
        else:
            out[name] = _state(value, place)
    return out


def check_optimizer(wrapper: Any) -> None:
    """Refuse an optimizer that could not be saved, without waiting for the first checkpoint.

    Args:
        wrapper: An optimizer wrapper after its first step, or several of them.

    Raises:
        NotPlainError: As :func:`make_plain`.
    """
    several = getattr(wrapper, 'optim_wrappers', None)
    if isinstance(several, Mapping):
        for one in several.values():
            check_optimizer(one)
        return
    for number, state in enumerate(getattr(wrapper.optimizer, 'state', {}).values()):
        _state(state, f'optimizer.state.{number}')
    for number, group in enumerate(wrapper.optimizer.param_groups):
        _settings({**group, 'params': None}, f'optimizer.param_groups.{number}')


def restore_settings(state: dict[str, Any], wrapper: Any) -> None:
    """Put back into saved parameter groups the settings that are code.

    Args:
        state: What a checkpoint has under ``optimizer``; changed in place.
        wrapper: The optimizer wrapper of the run, built from its config, or several of them.
    """
    several = getattr(wrapper, 'optim_wrappers', None)
    if isinstance(several, Mapping):
        for name, one in several.items():
            restore_settings(state.get(name, {}), one)
        return
    for saved, built in zip(state.get('param_groups', ()), wrapper.optimizer.param_groups):
        for name, value in built.items():
            if isinstance(value, _CODE):
                saved.setdefault(name, value)


def _schedulers(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):  # of several optimizers
        return {k: _schedulers(v, f'{where}.{k}') for k, v in value.items()}
    return [_settings(state, f'{where}.{k}') for k, state in enumerate(value)]


def _settings(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {
        name: _state(value, f'{where}.{name}')
        for name, value in settings.items()
        if not isinstance(value, _CODE)
    }


def _state(value: Any, where: str) -> Any:
    """``value`` itself; it must be of the types that are read back as they are."""
    if isinstance(value, torch.Tensor) or type(value) in _ATOMS or _is_plain_array(value):
        return value
    if type(value) in (dict, collections.OrderedDict, collections.Counter):
        for key, part in value.items():
            _state(key, f'{where}, a key,')
            _state(part, f'{where}.{key}')
        return value
    if type(value) in (list, tuple, set):
        for number, part in enumerate(value):
            _state(part, f'{where}.{number}')
        return value
    raise NotPlainError(where, value)


def _is_plain_array(value: Any) -> bool:
    if not isinstance(value, (np.ndarray, np.generic, np.dtype)):
        return False
    dtype = value if isinstance(value, np.dtype) else value.dtype
    return dtype.kind not in 'OVMm'  # objects, records, dates


_SIMPLER: tuple[tuple[Any, Any], ...] = (
    (enum.Enum, lambda value: value.value),
    (os.PathLike, os.fspath),
    ((np.ndarray, np.generic), lambda value: value.tolist()),
    ((np.dtype, datetime.date, datetime.time, datetime.timedelta), str),
    (int, int),  # and classes of other packages that extend these
    (float, float),
    (str, str),
    (frozenset, set),
    ((collections.deque, range), list),
)


def _information(value: Any, where: str) -> Any:
    """``value`` as plain data."""
    if isinstance(value, torch.Tensor) or type(value) in _ATOMS or _is_plain_array(value):
        return value
    if isinstance(value, Mapping):
        pairs = [
            (_information(k, f'{where}, a key,'), _information(v, f'{where}.{k}'))
            for k, v in value.items()
        ]
        return (
            collections.OrderedDict(pairs)
            if isinstance(value, collections.OrderedDict)
            else dict(pairs)
        )
    for kind in (list, tuple, set):  # a named tuple becomes a tuple
        if isinstance(value, kind):
            return kind(_information(v, f'{where}.{number}') for number, v in enumerate(value))
    for kinds, simpler in _SIMPLER:
        if isinstance(value, kinds):
            return _information(simpler(value), where)
    if _is_history(value):
        return value
    raise NotPlainError(where, value)


def _is_history(value: Any) -> bool:
    from mmengine.logging import HistoryBuffer

    return isinstance(value, HistoryBuffer)
