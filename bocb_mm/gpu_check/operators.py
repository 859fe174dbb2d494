"""mmcv's operators on the device against the CPU, and stand-ins against compiled operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bocb_mm.gpu_check.report import Report, Settings
from bocb_mm.stand_ins.operators import OPERATORS

TOLERANCE = 1e-5
Call = Callable[[str], dict[str, Tensor]]


def run(report: Report, settings: Settings) -> None:
    """Each operator with its gradients, in float32."""
    import mmcv._ext
    import mmcv.ops

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    compiled = {name: getattr(mmcv._ext, name) for name in OPERATORS}
    is_compiled = mmcv._ext.get_compiler_version().find('stand-ins') < 0
    cuda = mmcv._ext.get_compiling_cuda_version() != 'not available'
    for name, call in CASES.items():
        with report.guard(name):
            _use(mmcv._ext, OPERATORS)
            expected = call('cpu')
            report.check(
                f'{name}, stand-in', _difference(call(settings.device), expected), TOLERANCE
            )
            _use(mmcv._ext, compiled)
            if is_compiled and (cuda or settings.device == 'cpu'):
                found = call(settings.device)
                report.check(f'{name}, compiled', _difference(found, expected), TOLERANCE)
            else:
                report.skip(f'{name}, compiled', 'mmcv is not compiled for this device')


def _use(module: Any, operators: dict[str, Callable[..., Any]]) -> None:
    for name, operator in operators.items():
        setattr(module, name, operator)


def _difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Greatest difference, relative to 1 or to the greatest value; infinite for other shapes."""
    worst = 0.0
    for key, value in expected.items():
        got = found[key].detach().cpu()
        if got.shape != value.shape:
            return float('inf')
        if value.numel():
            scale = max(1.0, value.detach().abs().max().item())
            worst = max(worst, (got - value).abs().max().item() / scale)
    return worst


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _boxes(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(n, 2, generator=generator) * 700
    corners = torch.cat([corner, corner + 5 + torch.rand(n, 2, generator=generator) * 90], 1)
    return corners, torch.randperm(n, generator=generator) / n


def _nms(device: str) -> dict[str, Tensor]:
    from mmcv.ops import batched_nms

    boxes, scores = _boxes(10_000)
    classes = torch.arange(10_000) % 80
    settings = {'type': 'nms', 'iou_threshold': 0.5}
    dets, kept = batched_nms(boxes.to(device), scores.to(device), classes.to(device), settings)
    return {'kept': kept.float(), 'dets': dets}


def _differentiable(operator: Callable[..., Tensor], **inputs: Tensor) -> Call:
    """The operator's output and the gradients of all inputs."""

    def call(device: str) -> dict[str, Tensor]:
        leaves = {k: v.to(device).detach().requires_grad_() for k, v in inputs.items()}
        out = operator(device, **leaves)
        (out * _random(*out.shape, seed=9).to(device)).sum().backward()
        return {'out': out.detach(), **{k: v.grad for k, v in leaves.items() if v.grad is not None}}

    return call


def _focal_loss(device: str, x: Tensor) -> Tensor:
    from mmcv.ops import sigmoid_focal_loss

    target = (torch.arange(len(x)) % 81).to(device)
    return sigmoid_focal_loss(x, target, 2.0, 0.25, None, 'none')


def _roi_align(device: str, x: Tensor) -> Tensor:
    from mmcv.ops import roi_align

    rois = torch.cat([torch.zeros(50, 1), _boxes(50)[0]], 1).to(device)
    return roi_align(x, rois, (7, 7), 0.0625, 0, 'avg', True)


def _roi_pool(device: str, x: Tensor) -> Tensor:
    from mmcv.ops import roi_pool

    rois = torch.cat([torch.zeros(20, 1), _boxes(20)[0]], 1).to(device)
    return roi_pool(x, rois, (3, 3), 0.0625)


def _deform(device: str, x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    from mmcv.ops import deform_conv2d

    return deform_conv2d(x, offset, weight, 1, 1)


def _modulated(device: str, x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    from mmcv.ops import modulated_deform_conv2d

    return modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1)


def _attention(device: str, value: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    from mmcv.ops.multi_scale_deform_attn import (
        MultiScaleDeformableAttnFunction,
        multi_scale_deformable_attn_pytorch,
    )

    shapes = torch.tensor([[12, 10], [6, 5]], device=device)
    if device == 'cpu':
        return multi_scale_deformable_attn_pytorch(value, shapes, places, weights)
    start = torch.tensor([0, 120], device=device)
    return MultiScaleDeformableAttnFunction.apply(value, shapes, start, places, weights, 64)


_MAP = _random(1, 8, 50, 50)
_CONVOLVED = {'x': _random(2, 8, 20, 20), 'weight': _random(8, 8, 3, 3, seed=2) * 0.1}
_OFFSET, _MASK = _random(2, 18, 20, 20, seed=3), _random(2, 9, 20, 20, seed=4).sigmoid()
CASES: dict[str, Call] = {
    'batched_nms of 10,000 boxes': _nms,
    'sigmoid_focal_loss': _differentiable(_focal_loss, x=_random(2000, 80) * 4),
    'roi_align': _differentiable(_roi_align, x=_MAP),
    'roi_pool': _differentiable(_roi_pool, x=_MAP),
    'deform_conv2d': _differentiable(_deform, offset=_OFFSET, **_CONVOLVED),
    'modulated_deform_conv2d': _differentiable(
        _modulated, offset=_OFFSET, mask=_MASK, **_CONVOLVED
    ),
    'multi-scale attention': _differentiable(
        _attention,
        value=_random(2, 150, 4, 8),
        places=_random(2, 30, 4, 2, 3, 2, seed=5).sigmoid(),
        weights=_random(2, 30, 4, 2, 3, seed=6).sigmoid(),
    ),
}
