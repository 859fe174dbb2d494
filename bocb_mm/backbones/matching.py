"""Which tensors of a checkpoint belong to a network, by the best match of names and shapes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from bocb_mm.backbones.conversions import Weights, namings
from bocb_mm.checkpoints.contents import prefixes
from bocb_mm.errors import UserError

# Tables that the code makes, and counters: neither is trained.
_TABLES = re.compile(r'(?:attn_mask|relative_position_index|relative_coords_table)$')
_UNTRAINED = re.compile(rf'{_TABLES.pattern}|num_batches_tracked$')


def is_made(name: str) -> bool:
    """Whether a tensor is a table that the code makes from the network's sizes."""
    return _TABLES.search(name) is not None


def trained(weights: Weights) -> Weights:
    """The weights without what the code makes or counts."""
    return {k: v for k, v in weights.items() if not _UNTRAINED.search(k)}


@dataclass(frozen=True)
class Match:
    """A reading of a checkpoint.

    Attributes:
        prefix: What stands in the file before the network's names.
        weights: What stands behind it, under the network's names, whether the network has them or
            not.
        n_numbers: The size of those trained ones that it has, in the same shape.
    """

    prefix: str
    weights: Weights
    n_numbers: int


def best_match(
    network: nn.Module, weights: Weights, source: str, prefix: str | None = None
) -> Match:
    """Find prefix and naming under which most of the network's numbers are in a file.

    Of two that fit alike, such as MoCo's two encoders, the first in the file is taken.

    Args:
        network: Any module.
        weights: All tensors of the file.
        source: The file's name, for the error.
        prefix: The prefix, if it is known.

    Raises:
        UserError: No name begins with ``prefix``.
    """
    own = network.state_dict()
    if prefix is None:
        fewest = max(1, min(len(trained(own)), len(weights)) // 2)
        candidates = list(dict.fromkeys(['', *prefixes(weights, fewest)]))
    else:
        candidates = [prefix.rstrip('.') + '.' if prefix else '']
        if not any(k.startswith(candidates[0]) for k in weights):
            raise UserError(
                f'{source}: no name begins with {candidates[0]!r}, names are {some(weights)}'
            )
    readings = (
        _match(candidate, renamed, own)
        for candidate in candidates
        for renamed in _renamed(network, candidate, weights, own)
    )
    return max(readings, key=lambda match: match.n_numbers)


def _renamed(network: nn.Module, prefix: str, weights: Weights, own: Weights) -> Iterator[Weights]:
    """What stands behind a prefix in every naming that it may have been saved under."""
    inside = {
        k.removeprefix(prefix): v
        for k, v in weights.items()
        if k.startswith(prefix) and not is_made(k)
    }
    *_, wrapper = prefixes(own, len(own))  # as TIMMBackbone has one: timm_model
    for naming in namings(network, inside, [k.removeprefix(wrapper) for k in own]):
        yield naming
        if wrapper:
            yield {wrapper + k: v for k, v in naming.items()}


def _match(prefix: str, weights: Weights, own: Weights) -> Match:
    """Count what fits; a dimension of size 1 more or less is no difference."""
    shaped = {k: _in_shape(v, own[k]) if k in own else v for k, v in weights.items()}
    fitting = [v for k, v in trained(shaped).items() if k in own and own[k].shape == v.shape]
    return Match(prefix, shaped, sum(v.numel() for v in fitting))


def _in_shape(value: Tensor, goal: Tensor) -> Tensor:
    """A 1x1 convolution may have been saved as a linear layer, a norm's weight as (C, 1, 1)."""
    same = [n for n in value.shape if n > 1] == [n for n in goal.shape if n > 1]
    return value.reshape(goal.shape) if same else value


def some(names: Iterable[str], n: int = 3) -> str:
    """The first names, for a message."""
    names = list(names)
    return ', '.join(names[:n]) + (', ...' if len(names) > n else '')
