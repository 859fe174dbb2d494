"""Loading the state of an optimizer: what does not fit is refused before anything has changed.

PyTorch's ``load_state_dict`` looks at the number of parameters only. A state of another shape makes
the next step read beyond its memory, or go on silently; a counter stays on whatever device the
checkpoint was read to, where reading it waits for the device at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from bocb_mm.errors import UserError

StateDict = dict[str, Any]
FIX = 'build what it was saved of, or start anew (train.py: --pretrained FILE, not --resume)'


class StateError(UserError, ValueError):
    """A saved state does not belong to this optimizer or to its parameters."""


def load(optimizer: Any, state_dict: StateDict, torch_load: Callable[[StateDict], None]) -> None:
    """Check, let PyTorch load, put the counters where the optimizer wants them.

    PyTorch casts all else to the parameter's dtype; what the optimizer keeps in another one, such
    as SOAP's bases of half-precision weights, is taken over as it was saved.

    Args:
        optimizer: A :class:`~bocb_mm.optimizers.strict.StrictOptimizer`.
        state_dict: As saved.
        torch_load: ``load_state_dict`` of ``torch.optim.Optimizer``.

    Raises:
        StateError: The state belongs to another optimizer, or to parameters of other shapes.
    """
    checked: StateDict = {}

    def check(_: Any, given: StateDict) -> StateDict:
        groups = _groups_with_run_flags(optimizer, given)
        checked.update(given, param_groups=groups)
        for found in _saved_parameters(optimizer, checked):
            _check_state(type(optimizer).__name__, *found)
        for group in groups:
            optimizer.check_settings(group)
        return checked

    # registered last, so that hooks of the user that adapt a state have done so
    handle = optimizer.register_load_state_dict_pre_hook(check)
    try:
        torch_load(state_dict)
    finally:
        handle.remove()
    for _, p, example, saved in _saved_parameters(optimizer, checked):
        for key, value in saved.items():
            if not example or value is None:
                continue
            if _is_counter(example[key]):
                optimizer.state[p][key] = _placed(value, example[key])
            elif example[key].dtype != p.dtype:
                kept = value.detach().to(p.device, example[key].dtype, copy=True)
                optimizer.state[p][key] = kept


def _is_counter(kind: Any) -> bool:
    """Whether a part of an example state counts, rather than lie beside the parameter."""
    return not (isinstance(kind, torch.Tensor) and kind.is_meta)


def _placed(value: Any, like: Any) -> Any:
    """A counter on the device on which this optimizer keeps it."""
    if not isinstance(like, torch.Tensor):
        return type(like)(value)
    value = torch.as_tensor(value).detach().clone().to(like.device)
    return value if like.device.type == 'cpu' else value.to(like.dtype)


def _groups_with_run_flags(optimizer: Any, state_dict: StateDict) -> list[dict[str, Any]]:
    """The saved groups, in this optimizer's execution mode and with settings new since."""
    name = type(optimizer).__name__
    if not isinstance(state_dict, dict) or not {'state', 'param_groups'} <= set(state_dict):
        raise StateError(f'{name}: expected a dict with "state" and "param_groups" in it')
    saved, own = state_dict['param_groups'], optimizer.param_groups
    sizes = [len(g['params']) for g in own]
    if [len(g['params']) for g in saved] != sizes:
        raise StateError(
            f'{name}: the state has groups of {[len(g["params"]) for g in saved]} parameters, '
            f'this optimizer of {sizes}; group them as then, or {FIX}'
        )
    groups = []
    for group, current in zip(saved, own):
        missing = {k: current[k] for k in optimizer.defaults if k not in group}
        flags = {k: current[k] for k in optimizer.run_flags if k in current}
        groups.append(missing | group | flags)
    return groups


def _saved_parameters(
    optimizer: Any, state_dict: StateDict
) -> Iterator[tuple[str, torch.Tensor, dict[str, Any] | None, dict[str, Any]]]:
    """What a state says of each parameter: label, parameter, example of its state, saved state."""
    for label, number, p, group in _parameters(optimizer.param_groups, state_dict['param_groups']):
        saved = state_dict['state'].get(number)
        if saved:
            like = torch.empty(p.shape, dtype=p.dtype, device='meta')
            yield label, p, optimizer.example_state(like, group), saved


def _parameters(
    own: Iterable[dict[str, Any]], saved: Iterable[dict[str, Any]]
) -> Iterator[tuple[str, Any, torch.Tensor, dict[str, Any]]]:
    """Each parameter: its label in a message, its number in the state, itself, its saved group."""
    count = 0
    for group, saved_group in zip(own, saved):
        names = group.get('param_names') or saved_group.get('param_names') or []
        for i, (number, p) in enumerate(zip(saved_group['params'], group['params'])):
            label = repr(names[i]) if len(names) == len(group['params']) else str(count)
            yield f'parameter {label}', number, p, saved_group
            count += 1


def _check_state(
    name: str, label: str, p: torch.Tensor, example: dict[str, Any] | None, saved: dict[str, Any]
) -> None:
    if example is None:
        return
    keys = {key for key, value in saved.items() if value is not None}
    if keys != set(example):
        raise StateError(
            f'{name}: the state of {label} has {_listed(keys)}, expected {_listed(example)}; it '
            f'belongs to another optimizer, or to other settings: {FIX}'
        )
    for key, kind in example.items():
        shape, expected = (tuple(getattr(t, 'shape', ())) for t in (saved[key], kind))
        if shape != expected:
            raise _other_shape(name, label, p, key, shape)


def _listed(names: Iterable[str]) -> str:
    return ', '.join(sorted(map(str, names))) or 'nothing'


def _other_shape(
    name: str, label: str, p: torch.Tensor, key: str, shape: tuple[int, ...]
) -> StateError:
    return StateError(
        f'{name}: {label} has shape {tuple(p.shape)}, its saved {key} has {shape}; the model has '
        f'changed since: {FIX}'
    )


def check_library_state(optimizer: torch.optim.Optimizer, state_dict: StateDict) -> None:
    """What can be checked of an optimizer of another library: a hook before its state is loaded.

    A tensor with as many dimensions as its parameter must have its shape, or 1 in some places,
    except for square matrices of one side of it (preconditioners, bases).

    Raises:
        StateError: The state belongs to another optimizer, or to parameters of other shapes.
    """
    name, saved_groups = type(optimizer).__name__, state_dict['param_groups']
    for group, own in zip(saved_groups, optimizer.param_groups):
        missing = optimizer.defaults.keys() - group.keys()
        foreign = {key for key in group.keys() - own.keys() if not key.startswith('initial_')}
        if (missing and foreign) or len(missing) > 2:  # a newer version may have one or two more
            raise StateError(
                f'{name}: a saved group has {_listed(foreign)} and lacks {_listed(missing)}; it '
                f'belongs to another optimizer: {FIX}'
            )
    for label, number, p, _ in _parameters(optimizer.param_groups, saved_groups):
        for key, value in (state_dict['state'].get(number) or {}).items():
            for t in value.values() if isinstance(value, dict) else (value,):
                if isinstance(t, torch.Tensor) and not _may_belong(t.shape, p.shape):
                    raise _other_shape(name, label, p, key, tuple(t.shape))


def _may_belong(shape: torch.Size, p: torch.Size) -> bool:
    """Whether a part of the state of a parameter of shape ``p`` may have this shape."""
    if not p or len(shape) != len(p) or 0 in shape:
        return True
    square = len(set(shape)) == 1 and len(p) > 1 and shape[0] in p
    return square or all(n in (1, m) for n, m in zip(shape, p))
