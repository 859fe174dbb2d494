"""Which GPUs a machine has, by the names that CUDA_VISIBLE_DEVICES takes."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bocb_mm.errors import UserError


def gpu_names(numbers: Sequence[str] | None = None) -> tuple[str, ...]:
    """GPUs among those that are visible.

    Args:
        numbers: As torch counts them; ``None`` for all.

    Raises:
        UserError: Not numbers, or of GPUs that are not there.
    """
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    hidden = visible in ('', '-1', 'NoDevFiles')
    names = tuple(visible.split(',')) if visible and not hidden else ()
    if not hidden and not names:
        names = tuple(str(k) for k in range(_number_of_gpus()))
    if numbers is None:
        return names
    text = ','.join(numbers)
    if not all(n.isdecimal() for n in numbers) or len(set(numbers)) < len(numbers):
        raise UserError(f'--gpus {text!r}: numbers as in 0,1 are expected')
    if max(map(int, numbers)) >= len(names):
        told = f' (CUDA_VISIBLE_DEVICES={visible})' if visible else ''
        raise UserError(
            f'--gpus {text}: torch sees {len(names)} GPUs here{told}; count from 0, or give '
            '--jobs N to train on the CPU'
        )
    return tuple(names[int(n)] for n in numbers)


def _number_of_gpus() -> int:
    """As torch counts; asking CUDA itself would make it unusable in forked processes."""
    import torch

    os.environ.setdefault('PYTORCH_NVML_BASED_CUDA_CHECK', '1')
    return torch.cuda.device_count()
