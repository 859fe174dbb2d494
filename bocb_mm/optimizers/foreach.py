"""Arithmetic on lists of tensors with numbers that are 0-dim tensors in a compiled step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Tensors = list[Tensor]


def add_scaled_(y: Tensors, x: Tensors, a: Any) -> None:
    """``y += a * x``, ``a`` a number, a 0-dim tensor or a list of these."""
    if isinstance(a, list):
        torch._foreach_addcmul_(y, x, a)
    elif isinstance(a, Tensor):
        torch._foreach_add_(y, torch._foreach_mul(x, a))
    else:
        torch._foreach_add_(y, x, alpha=a)


def plus_scaled(x: Tensors, y: Tensors, a: Any) -> Tensors:
    """``x + a * y``, one buffer."""
    if not isinstance(a, Tensor):
        return torch._foreach_add(x, y, alpha=a)
    total = torch._foreach_mul(x, 1)  # keeps the dtype, also of 0-dim tensors
    add_scaled_(total, y, a)
    return total


def add_quotient_(y: Tensors, x: Tensors, d: Tensors, a: Any) -> None:
    """``y += a * x / d``."""
    if isinstance(a, Tensor):
        add_scaled_(y, torch._foreach_div(x, d), a)
    else:
        torch._foreach_addcdiv_(y, x, d, value=a)


def operand(a: Any, tensors: Tensors) -> Any:
    """``a`` as a second operand of ``_foreach_add_`` and ``_foreach_clamp_``.

    A number stays one; a 0-dim tensor becomes a list, as torch 2.9.1 would compile its value.
    """
    return [a] * len(tensors) if isinstance(a, Tensor) else a
