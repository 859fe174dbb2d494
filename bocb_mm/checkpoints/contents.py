"""Where in a checkpoint its parameters are: the one list of containers and wrappers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from bocb_mm.errors import CheckpointError

# Where mmengine, timm, Lightning, DeiT, MoCo, DINO, Swin and others keep the parameters, the
# likeliest first.
CONTAINERS = (
    'state_dict', 'model', 'module', 'net', 'network', 'model_state_dict', 'model_state', 'params',
    'weights', 'backbone', 'encoder', 'teacher', 'student', 'model_ema', 'state_dict_ema',
)  # fmt: skip
# What DDP, DataParallel and torch.compile put before every name.
WRAPPERS = ('module.', '_orig_mod.')


def parameters_of(content: Any, where: str = 'the checkpoint') -> dict[str, torch.Tensor]:
    """The tensors by name in what a checkpoint's file holds.

    A container of :data:`CONTAINERS` comes first; without one, whatever holds the most numbers: the
    content itself, or any dict in it. What DDP and ``torch.compile`` put before all names is off.

    Args:
        content: A state dict, a module, or a dict with one of them in it.
        where: The file's name, for the error.

    Returns:
        Tensors by name, in the order of the file.

    Raises:
        CheckpointError: There are none.

    Example:
        >>> weight = torch.zeros(2, 2)
        >>> list(parameters_of({'state_dict': {'module.w': weight}, 'best_acc1': torch.ones(())}))
        ['w']
    """
    if isinstance(content, torch.nn.Module):
        content = content.state_dict()
    named = _tensors_in_container(content)
    if not named:
        keys = list(content) if isinstance(content, Mapping) else []
        shown = ', '.join(map(str, keys[:5])) + (', ...' if len(keys) > 5 else '')
        raise CheckpointError(
            f'{where}: holds no weights, its keys are {shown or "none"}; expected tensors by name, '
            'bare or under "state_dict"'
        )
    return unwrapped(named)


def _tensors_in_container(content: Any) -> dict[str, torch.Tensor]:
    parts = {k: _plain(v) for k, v in content.items()} if isinstance(content, Mapping) else {}
    for name in CONTAINERS:
        if isinstance(parts.get(name), Mapping) and (found := _tensors_in_container(parts[name])):
            return found
    candidates = [parts, *(v for v in parts.values() if isinstance(v, Mapping))]
    named = [{str(k): v for k, v in c.items() if isinstance(v, torch.Tensor)} for c in candidates]
    return max(named, key=lambda tensors: sum(v.numel() for v in tensors.values()))


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.layout != torch.strided:
        return value.to_dense()
    return value.state_dict() if isinstance(value, torch.nn.Module) else value


def unwrapped(named: Mapping[str, Any]) -> dict[str, Any]:
    """The same without the prefixes of :data:`WRAPPERS` that stand before all names.

    Example:
        >>> unwrapped({'module._orig_mod.a': 1, 'module._orig_mod.b': 2})
        {'a': 1, 'b': 2}
    """
    named = dict(named)
    while prefix := next((w for w in WRAPPERS if all(k.startswith(w) for k in named)), ''):
        if not named:
            break
        named = {k.removeprefix(prefix): v for k, v in named.items()}
    return named


def prefixes(names: Iterable[str], at_least: int = 1) -> Iterator[str]:
    """Every dotted prefix that ``at_least`` names share, the empty one first.

    Example:
        >>> list(prefixes(['model.encoder.a', 'model.encoder.b', 'model.c'], at_least=2))
        ['', 'model.', 'model.encoder.']
    """
    counts: dict[str, int] = {}
    for name in names:
        parts = name.split('.')
        for depth in range(len(parts)):
            prefix = ''.join(f'{part}.' for part in parts[:depth])
            counts[prefix] = counts.get(prefix, 0) + 1
    yield from (prefix for prefix, count in counts.items() if count >= at_least)
