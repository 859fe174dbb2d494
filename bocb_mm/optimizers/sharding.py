"""Parameters of which a process holds a part: who takes them, and who refuses.

FSDP2 hands over DTensors, on whose local parts an elementwise formula is right as it is. FSDP1 and
DeepSpeed hand over flat pieces of several parameters, ZeroRedundancyOptimizer a share of the
parameters. A formula with norms of whole tensors, or of all gradients, would be silently wrong.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from bocb_mm.optimizers.strict import SettingError


def local(t: Tensor, like: Tensor | None = None) -> Tensor:
    """The part of a DTensor that lies here, any other tensor as it is.

    Args:
        t: The tensor.
        like: A DTensor whose placement ``t`` is brought to first, such as that of a gradient's
            parameter.
    """
    if not hasattr(t, 'to_local'):
        return t
    if like is not None and t.placements != like.placements:  # type: ignore[attr-defined]
        t = t.redistribute(placements=like.placements)  # type: ignore[attr-defined]
    return t.to_local()


def part_of(p: Tensor) -> str:
    """What holds only a part of the parameter here, or '' where it is whole."""
    if hasattr(p, 'to_local'):
        sizes = zip(p.placements, p.device_mesh.shape)  # type: ignore[attr-defined]
        return 'DTensor (FSDP2)' if any(n > 1 and not x.is_replicate() for x, n in sizes) else ''
    if getattr(p, '_fsdp_flattened', False):  # FSDP1 marks its parameters by nothing else
        return 'FSDP1'
    return 'DeepSpeed' if hasattr(p, 'ds_id') else ''


def check(name: str, group: dict[str, Any], elementwise: bool, joint: bool) -> None:
    """Refuse parameters that are not whole, or not all, where the formula needs them so.

    Raises:
        SettingError: It would be silently wrong; the message says why and what to do.
    """
    for p in group['params']:
        part = part_of(p)
        if part and not elementwise:
            raise SettingError(
                f'{name} needs whole parameters, but {part} splits one over processes (here '
                f'{tuple(local(p).shape)}): use DDP, or an elementwise optimizer such as AdamW'
            )
        if part and not part.startswith('DTensor') and group.get('max_grad_norm'):
            raise _clips_a_share(name, part)
    if (joint or group.get('max_grad_norm')) and built_by_zero():
        if joint:
            raise SettingError(
                f'{name} needs all gradients, but ZeroRedundancyOptimizer gives each process a '
                'share: train it without ZeroRedundancyOptimizer'
            )
        raise _clips_a_share(name, 'ZeroRedundancyOptimizer')


def check_flattened(name: str, group: dict[str, Any], matrices: bool, elementwise: bool) -> None:
    """Refuse a group that was made with ``matrices`` and now has flat vectors only.

    Raises:
        SettingError: As in :func:`check`.
    """
    if not matrices or any(p.dim() > 1 for p in group['params']):
        return
    if not elementwise:
        raise SettingError(
            f'{name} needs whole parameters, but they were replaced by flat vectors (as DeepSpeed '
            'does): use DDP, or an elementwise optimizer such as AdamW'
        )
    if group.get('max_grad_norm'):
        raise _clips_a_share(name, 'DeepSpeed')


def _clips_a_share(name: str, who: str) -> SettingError:
    return SettingError(
        f'{name}(max_grad_norm=...) needs all gradients, but {who} gives each process a share: set '
        'max_grad_norm=0 and clip before the step (optim_wrapper clip_grad=dict(max_norm=...))'
    )


def built_by_zero() -> bool:
    """Whether torch's ZeroRedundancyOptimizer is building the optimizer, for several processes.

    It hands over whole parameters, some to each process, and leaves no other trace than the stack.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    from torch.distributed.optim import ZeroRedundancyOptimizer

    callers = (frame.frame.f_locals.get('self') for frame in inspect.stack(0))
    return any(isinstance(c, ZeroRedundancyOptimizer) and c.world_size > 1 for c in callers)
