"""Milliseconds, kernels and memory of a step on ResNet-50 and DeiT-S, beside other packages."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bocb_mm.gpu_check.report import Report, Settings
from bocb_mm.gpu_check.steps import build, names
from bocb_mm.registry import OPTIMIZERS

#: The same algorithm elsewhere.
PEERS = {
    'SGDP': 'timm.sgdp', 'LION': 'timm.lion', 'LAMB': 'timm.lamb', 'AdamP': 'timm.adamp',
    'Adan': 'timm.adan', 'LARS': 'timm.lars', 'AdaFactor': 'timm.adafactor',
    'AdaBelief': 'timm.adabelief', 'NovoGrad': 'timm.novograd',
    'AdaBound': 'pytorch_optimizer.adabound',
}  # fmt: skip
Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def run(report: Report, settings: Settings) -> None:
    """Ours and the others in turns, so that a slower moment slows all alike."""
    warnings.simplefilter('ignore')
    for network, shapes in _networks(settings.small).items():
        for name in names(settings):
            if settings.seconds_left() < 3:
                report.skip(f'{network}, {name}', "the stage's time is up")
                continue
            with report.guard(f'{network}, {name}'):
                _measure(report, settings, f'{network}, {name}', name, shapes)


def _networks(small: bool) -> dict[str, list[torch.Size]]:
    if small:
        return {'a small network': [torch.Size(s) for s in ((64, 32, 3, 3), (64,), (128, 64))]}
    import timm
    import torchvision

    with torch.device('meta'):
        networks = {
            'ResNet-50': torchvision.models.resnet50(),
            'DeiT-S': timm.create_model('deit_small_patch16_224'),
        }
    return {name: [p.shape for p in network.parameters()] for name, network in networks.items()}


def _contestants(name: str, device: str) -> dict[str, Make]:
    ours = {'ours': lambda params: build(name, params)}
    reference = {
        'torch AdamW, fused': lambda params: torch.optim.AdamW(params, lr=1e-3, fused=True),
        'torch AdamW, foreach': lambda params: torch.optim.AdamW(params, lr=1e-3, foreach=True),
    }
    peer = PEERS.get(name)
    others = {peer: lambda params: OPTIMIZERS.get(peer)(params, lr=1e-3)} if peer else {}
    return {**ours, **(reference if name == 'AdamW' else {}), **others}


def _measure(
    report: Report, settings: Settings, label: str, name: str, shapes: list[torch.Size]
) -> None:
    device, rounds = settings.device, 3 if settings.small else 15
    steps: dict[str, Callable[[], Any]] = {}
    for who, make in _contestants(name, device).items():
        with report.guard(f'{label}: {who}'):
            optimizer = make(_parameters(shapes, device))
            for _ in range(3):  # makes the state
                optimizer.step()
            steps[who] = optimizer.step
    times: dict[str, list[tuple[float, float]]] = {who: [] for who in steps}
    for _ in range(rounds):
        for who, step in steps.items():
            times[who].append(_time(step, device))
    for who, step in steps.items():
        host, whole = (1000 * statistics.median(t[i] for t in times[who]) for i in (0, 1))
        text = f'{whole:.3f} ms, host {host:.3f} ms'
        if device == 'cuda':
            text += f', {_kernels(step)} kernels, {_memory(step):.1f} MiB beyond the state'
        report.measure(f'{label}: {who}', text)


def _parameters(shapes: list[torch.Size], device: str) -> list[nn.Parameter]:
    params = [nn.Parameter(torch.randn(s, device=device) * 0.05) for s in shapes]
    for p in params:
        p.grad = torch.randn_like(p) * 0.01
    return params


def _time(step: Callable[[], Any], device: str) -> tuple[float, float]:
    """Seconds until the call returns, and until the device is done."""
    if device == 'cuda':
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    host = time.perf_counter() - start
    if device == 'cuda':
        torch.cuda.synchronize()
    return host, time.perf_counter() - start


def _kernels(step: Callable[[], Any]) -> int:
    """Kernels that one step launches."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
        torch.cuda.synchronize()
    return sum(
        event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events() or ()
    )


def _memory(step: Callable[[], Any]) -> float:
    """MiB that one step takes beyond what is there before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20
