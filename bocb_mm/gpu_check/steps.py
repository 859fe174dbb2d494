"""Small parameters and given gradients, for the stages that look at optimizer steps alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bocb_mm.gpu_check.report import Settings
from bocb_mm.optimizers import build_optimizer, get_spec, list_optimizers

#: Kernels, matrices, vectors, a depthwise kernel and a single number.
SHAPES = ((8, 4, 3, 3), (8,), (16, 8, 1, 1), (16,), (10, 16), (6, 1, 7, 7), (1, 1, 16), ())
STEPS = 30
#: One of each kind: by sign, fused, with trust ratios, with factors, with a projection, a Hessian.
ON_CPU = ('LION', 'AdamW', 'LARS', 'AdaFactor', 'AdamP', 'Sophia')


def names(settings: Settings) -> list[str]:
    """All optimizers; on a CPU one of each kind."""
    return list(ON_CPU) if settings.small else list_optimizers()


def gradients(steps: int = STEPS) -> list[list[Tensor]]:
    """The same for every device: made on the CPU in float64."""
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(s, generator=generator).double() for s in SHAPES] for _ in range(steps)]


def parameters(device: str, dtype: torch.dtype, channels_last: bool = False) -> list[nn.Parameter]:
    """The same values on every device."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for shape in SHAPES:
        value = torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)
        if channels_last and len(shape) == 4:
            value = value.contiguous(memory_format=torch.channels_last)
        made.append(nn.Parameter(value))
    return made


def build(name: str, params: Sequence[nn.Parameter], **how: Any) -> torch.optim.Optimizer:
    """The optimizer with the catalog's rate for classification."""
    rate = get_spec(name).default('classification').lr
    return build_optimizer(name, params, lr=rate, weight_decay=0.05, **how)


def give(params: Sequence[nn.Parameter], grads: Sequence[Tensor], without: int = -1) -> None:
    """Set the gradients, which depend a little on the weights; ``without`` leaves one out."""
    for i, (p, grad) in enumerate(zip(params, grads)):
        own = grad.to(p.device, p.dtype) + 0.1 * p.detach()
        p.grad = None if i == without else torch.empty_like(p).copy_(own)


def step(name: str, optimizer: torch.optim.Optimizer, i: int) -> None:
    """One step, and Sophia's Hessian every ten."""
    if name == 'Sophia' and i % 10 == 0:
        optimizer.update_hessian(batch_size=8)
    optimizer.step()


def difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Greatest difference of two lists of tensors, each relative to its greatest value."""
    worst = 0.0
    for a, b in zip(found, expected):
        b = b.detach().double().cpu()
        gap = (a.detach().double().cpu() - b).abs().max() / b.abs().max().clamp(min=1e-30)
        worst = max(worst, gap.item()) if gap == gap else float('nan')
    return worst


def copied(state: dict[str, Any]) -> dict[str, Any]:
    """A state dict as a checkpoint gives it back: written, read safely, on the CPU."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, map_location='cpu', weights_only=True)
