"""Adam's moments and direction, which other optimizers build on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from bocb_mm.optimizers.base import Scalars, State, Tensors
from bocb_mm.optimizers.foreach import operand


def update_moments_(m: Tensors, v: Tensors, grads: Tensors, betas: tuple[float, float]) -> None:
    """``m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2``."""
    b1, b2 = betas
    torch._foreach_lerp_(m, grads, 1 - b1)
    torch._foreach_mul_(v, b2)
    torch._foreach_addcmul_(v, grads, grads, value=1 - b2)


def adam_coefficients(group: Mapping[str, Any], step: int) -> Scalars:
    """The bias corrections, moved into a factor and into eps: see :func:`adam_direction`."""
    b1, b2 = group['betas']
    root = math.sqrt(1 - b2**step)
    return {'scale': root / (1 - b1**step), 'eps_root': group['eps'] * root}


def adam_direction(grads: Tensors, state: State, c: Scalars, s: Scalars) -> Tensors:
    """``u = m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps)``, with the moments updated.

    Args:
        grads: Gradients; memory that only the caller's expression holds is freed on the way.
        state: With ``exp_avg`` and ``exp_avg_sq``.
        c: :func:`adam_coefficients`.
        s: With ``betas``.

    Returns:
        New tensors: one buffer.
    """
    m, v = state['exp_avg'], state['exp_avg_sq']
    update_moments_(m, v, grads, s['betas'])
    del grads
    u = torch._foreach_sqrt(v)
    torch._foreach_add_(u, operand(c['eps_root'], u))
    torch._foreach_reciprocal_(u)
    torch._foreach_mul_(u, m)
    torch._foreach_mul_(u, c['scale'])
    return u
