"""What optimizers need of whole tensors or of all gradients: norms, trust ratios, clipping."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def norms(tensors: list[Tensor], kind: int = 2) -> Tensor:
    """Norm of each tensor, shape (tensors,), at least in single precision; Euclidean by default."""
    own = tensors[0].dtype
    wide = torch.promote_types(own, torch.float32)
    # a DTensor of torch 2.14.1 takes no dtype
    exact = wide == own or hasattr(tensors[0], 'to_local')
    found = torch._foreach_norm(tensors, kind, *([] if exact else [wide]))
    return torch.stack([n.to(found[0].device) for n in found])


def decayed_and_adapted(p: Tensor, group: dict[str, Any]) -> tuple[bool, bool]:
    """Whether a parameter of LARS or LAMB is decayed, whether it has a trust ratio."""
    excluded = group['exclude_1d'] and p.dim() <= 1
    return not excluded, group['adapt'] and not excluded


def per_tensor(numbers: Any, like: list[Tensor]) -> Any:
    """Numbers of shape (tensors,) as 0-dim tensors in the dtype of ``like``; a number as it is."""
    if not isinstance(numbers, Tensor) or not numbers.dim():
        return numbers
    return list(numbers.to(like[0].dtype).unbind())


def global_norm(grads: list[Tensor]) -> Tensor:
    """Euclidean norm of all gradients together, 0-dim; over all shards where they are DTensors."""
    sharded = [g for g in grads if hasattr(g, 'full_tensor')]
    whole = [g for g in grads if not hasattr(g, 'full_tensor')]
    found = [torch.linalg.vector_norm(norms(x)) for x in (whole, sharded) if x]
    if sharded:
        found[-1] = found[-1].full_tensor()  # type: ignore[attr-defined]
    return torch.linalg.vector_norm(torch.stack(found))


def clip_factor(norm: Tensor, limit: float, like: Tensor) -> Tensor:
    """``min(1, limit / norm)``, 0-dim, on the device of ``like``: nothing waits for it."""
    factor = (limit / norm).clamp(max=1.0)
    return factor.to(like.device, like.dtype, non_blocking=True)


def clipped(grads: list[Tensor], c: dict[str, Tensor]) -> list[Tensor]:
    """The gradients, times ``c['clip']`` where the group clips."""
    return torch._foreach_mul(grads, c['clip']) if 'clip' in c else grads
