"""Optimizers that take the hidden matrices of a network, and AdamW for the rest: their two halves.

Which parameter belongs to which half depends on its role, which an optimizer cannot know:
``bocb_mm.optim_wrappers.param_groups`` makes the groups, with the keys that stand here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bocb_mm.errors import UserError

CONSTRUCTOR = 'bocb_mm.OptimWrapperConstructor'


@dataclass(frozen=True)
class Halves:
    """How a matrix optimizer is told what to do with a group.

    Attributes:
        matrix: Keys of the groups whose matrices and kernels take the matrix update.
        auxiliary: Keys of the groups that AdamW updates at their own rate.
        rates: Rate and weight decay of the auxiliary half where nobody gives them, from the
            optimizer's settings.
        splits: Whether a group may say ``split``: the number of matrices stacked in a weight.
    """

    matrix: Mapping[str, Any]
    auxiliary: Mapping[str, Any]
    rates: Callable[[Mapping[str, Any]], tuple[float, float]]
    splits: bool = False


def by_roles_only(kind: Any) -> Any:
    """What a config builds: ``kind`` itself, or for a matrix optimizer one that wants its groups.

    Raises:
        UserError: When called with parameters of which nobody said the half.
    """
    halves = getattr(kind, 'halves', None)
    if halves is None:
        return kind

    def build(params: Any, **kwargs: Any) -> Any:
        groups = list(params)
        told = set(halves.matrix) | set(halves.auxiliary)
        if not all(isinstance(group, dict) and told & group.keys() for group in groups):
            raise UserError(
                f'{kind.__name__} would take heads and embeddings for hidden matrices: set '
                f"optim_wrapper=dict(constructor='{CONSTRUCTOR}', ...)"
            )
        return kind(params=groups, **kwargs)

    build.__name__ = kind.__name__
    build.__signature__ = inspect.signature(kind)  # type: ignore[attr-defined]
    build.halves = halves  # type: ignore[attr-defined]
    return build
