"""30 steps of each optimizer in each execution mode against the CPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bocb_mm.gpu_check import steps
from bocb_mm.gpu_check.report import Report, Settings
from bocb_mm.optimizers import get_spec

BOUNDS = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 3e-2}
MODES: dict[str, dict[str, Any]] = {
    'default': {},
    'foreach': {'foreach': True},
    'single tensor': {'foreach': False},
}


def run(report: Report, settings: Settings) -> None:
    """Every optimizer: types, modes, memory format, scaler, checkpoints."""
    warnings.simplefilter('ignore')
    for name in steps.names(settings):
        for what, found, expected, dtype in _pairs(name, settings.device):
            with report.guard(f'{name}, {what}'):
                gap = steps.difference(found(), expected())
                report.check(f'{name}, {what}', gap, BOUNDS[_precision(name, dtype)])


def _precision(name: str, dtype: torch.dtype) -> torch.dtype:
    """A matrix update multiplies in bfloat16 where the device does and the weights are single."""
    halves = hasattr(get_spec(name).cls, 'halves')
    return torch.bfloat16 if halves and dtype == torch.float32 else dtype


def _pairs(
    name: str, device: str
) -> list[tuple[str, Callable[[], list], Callable[[], list], torch.dtype]]:
    """What is compared: label, on the device, on the CPU, in which type."""
    wide, single, half = torch.float64, torch.float32, torch.bfloat16
    pairs = []
    for dtype in (wide, single):
        for mode, how in MODES.items():
            label = f'{mode}, {str(dtype).removeprefix("torch.")}'
            pairs.append(
                (
                    label,
                    lambda how=how, dtype=dtype: train(name, device, dtype, **how),
                    lambda dtype=dtype: train(name, 'cpu', dtype),
                    dtype,
                )
            )
    return [
        *pairs,
        ('bfloat16', lambda: train(name, device, half), lambda: train(name, 'cpu', half), half),
        (
            'channels last',
            lambda: train(name, device, wide, channels_last=True),
            lambda: train(name, 'cpu', wide),
            wide,
        ),
        (
            'late gradient under the scaler',
            lambda: train_scaled(name, device),
            lambda: train_without(name, skipped=5, late=10),
            single,
        ),
        (
            'checkpoint to the CPU and back',
            lambda: train_moved(name, device),
            lambda: train(name, 'cpu', wide),
            wide,
        ),
    ]


def train(
    name: str, device: str, dtype: torch.dtype, channels_last: bool = False, **how: Any
) -> list[Tensor]:
    """The parameters after 30 steps."""
    params = steps.parameters(device, dtype, channels_last)
    optimizer = steps.build(name, params, **how)
    _train(name, params, optimizer, range(steps.STEPS))
    return list(params)


def _train(name: str, params: Any, optimizer: torch.optim.Optimizer, which: Sequence[int]) -> None:
    grads = steps.gradients()
    for i in which:
        steps.give(params, grads[i])
        steps.step(name, optimizer, i)


def train_without(name: str, skipped: int, late: int) -> list[Tensor]:
    """Without step ``skipped``, and without the first ``late`` gradients of one weight."""
    params = steps.parameters('cpu', torch.float32)
    optimizer = steps.build(name, params)
    for i, grads in enumerate(steps.gradients()):
        if i == skipped:
            continue
        steps.give(params, grads, without=2 if i < late else -1)
        steps.step(name, optimizer, i)
    return list(params)


def train_scaled(name: str, device: str, infinite: int = 5, late: int = 10) -> list[Tensor]:
    """The same by a scaler, which finds an infinite gradient and leaves the step out."""
    params = steps.parameters(device, torch.float32)
    optimizer = steps.build(name, params)
    scaler = torch.amp.GradScaler(device, init_scale=1024.0)
    for i, grads in enumerate(steps.gradients()):
        steps.give(params, grads, without=2 if i < late else -1)
        scale = scaler.scale(torch.ones((), device=device))
        for p in params:
            if p.grad is not None:
                p.grad.mul_(scale.to(p.dtype))
        if i == infinite:
            params[0].grad.fill_(float('inf'))
        scaler.unscale_(optimizer)
        if name == 'Sophia' and i % 10 == 0:
            optimizer.update_hessian(batch_size=8)
        scaler.step(optimizer)
        scaler.update()
    return list(params)


def train_moved(name: str, device: str) -> list[Tensor]:
    """Ten steps on the device, ten on the CPU in another mode, ten on the device again."""
    places: tuple[tuple[str, dict[str, Any]], ...] = (
        (device, {}),
        ('cpu', {'foreach': True}),
        (device, {'foreach': False}),
    )
    params, state = steps.parameters('cpu', torch.float64), None
    for part, (place, how) in enumerate(places):
        params = [torch.nn.Parameter(p.detach().to(place)) for p in params]
        optimizer = steps.build(name, params, **how)
        if state is not None:
            optimizer.load_state_dict(state)
        _train(name, params, optimizer, range(part * 10, part * 10 + 10))
        state = steps.copied(optimizer.state_dict())
    return list(params)
