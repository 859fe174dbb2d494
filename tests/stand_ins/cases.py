"""Calls of mmcv.ops whose results are compared: those of compiled kernels, and of the stand-ins.

Inputs come from numpy's generators, which give the same numbers on every version and machine. Each
case returns arrays by name; gradients too, where the operator has some.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

CASES: dict[str, Callable[[], dict[str, Any]]] = {}


def case(function: Callable[..., Any], *arguments: Any, name: str = '') -> None:
    CASES[name or '-'.join([function.__name__, *map(str, arguments)])] = lambda: function(
        *arguments
    )


def boxes(n: int, seed: int = 0, size: float = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Corners within 300 pixels, about a third of which overlap much, and scores without ties."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 240, (n, 2))
    extent = rng.uniform(5, size, (n, 2))
    scores = rng.permutation(n) / max(n, 1)
    both = np.concatenate([corner, corner + extent], 1).astype(np.float32)
    return torch.from_numpy(both), torch.from_numpy(scores.astype(np.float32))


def tensor(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    values = np.random.default_rng(seed).normal(scale=scale, size=shape)
    return torch.from_numpy(values.astype(np.float32))


def with_gradients(call: Callable[..., torch.Tensor], **inputs: torch.Tensor) -> dict[str, Any]:
    """The output, and the gradients of its weighted sum by each input."""
    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    out = call(**leaves)
    (out * tensor(*out.shape, seed=9).to(out)).sum().backward()
    grads = {f'grad_{name}': leaf.grad for name, leaf in leaves.items()}
    return {'out': out.detach(), **grads}


def nms(n: int, arguments: dict[str, Any]) -> dict[str, Any]:
    from mmcv import ops

    return {'kept': ops.nms(*boxes(n), **arguments)[1]}


for n in (0, 1, 400):
    case(nms, n, {'iou_threshold': 0.5}, name=f'nms-{n}')
case(nms, 300, {'iou_threshold': 0.3, 'offset': 1}, name='nms-offset')
case(nms, 300, {'iou_threshold': 0.5, 'score_threshold': 0.6}, name='nms-score_threshold')
case(nms, 300, {'iou_threshold': 0.5, 'max_num': 20}, name='nms-max_num')
case(
    nms,
    300,
    {'iou_threshold': 0.7, 'score_threshold': 0.2, 'max_num': 60, 'offset': 1},
    name='nms-all',
)
case(nms, 300, {'iou_threshold': 0.5, 'score_threshold': 1.0}, name='nms-nothing_left')


def nms_ties(iou_threshold: float) -> dict[str, Any]:
    """Boxes apart from each other that come twice, with scores of five values.

    Compiled mmcv sorts equal scores as the machine likes, so only which boxes are kept is compared.
    """
    from mmcv import ops

    place = torch.stack(torch.meshgrid(torch.arange(10), torch.arange(10), indexing='ij'), -1)
    corners = torch.cat([place.reshape(100, 2) * 9, place.reshape(100, 2) * 9 + 8], 1).float()
    scores = torch.arange(100) % 5 / 5
    dets, _ = ops.nms(corners.repeat(2, 1), scores.repeat(2), iou_threshold)
    return {'dets': sorted(dets.tolist())}


def nms_touching() -> dict[str, Any]:
    """An IoU of exactly the threshold: 1 / 3 of two boxes that share half."""
    from mmcv import ops

    corners = torch.tensor([[0.0, 0, 2, 1], [1, 0, 3, 1], [0, 0, 4, 4], [0, 0, 4, 2], [5, 5, 5, 5]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    return {f'kept{t}': ops.nms(corners, scores, t)[1] for t in (0.25, 1 / 3, 0.5)}


case(nms_ties, 0.5)
case(nms_ties, 1.0)
case(nms_touching)


def batched_nms(n: int, cfg: dict[str, Any], agnostic: bool) -> dict[str, Any]:
    from mmcv import ops

    corners, scores = boxes(n, seed=n)
    classes = torch.from_numpy(np.random.default_rng(1).integers(0, 80, n))
    return {'kept': ops.batched_nms(corners, scores, classes, cfg, agnostic)[1]}


IOU = {'type': 'nms', 'iou_threshold': 0.5}
case(batched_nms, 10_000, IOU, False, name='batched_nms-10000')
case(batched_nms, 9_999, IOU | {'max_num': 100}, False, name='batched_nms-9999-max_num')
case(batched_nms, 10_500, IOU | {'max_num': 300}, False, name='batched_nms-10500-split')
case(batched_nms, 2_000, IOU, True, name='batched_nms-2000-agnostic')
case(batched_nms, 0, IOU, True, name='batched_nms-0')
SOFT = {'type': 'soft_nms', 'iou_threshold': 0.4, 'min_score': 0.05}
case(batched_nms, 500, SOFT, False, name='batched_nms-soft')


def soft_nms(n: int, method: str, offset: int, min_score: float) -> dict[str, Any]:
    from mmcv import ops

    dets, kept = ops.soft_nms(
        *boxes(n), iou_threshold=0.3, method=method, offset=offset, min_score=min_score
    )
    return {'dets': dets, 'kept': kept}


for method in ('naive', 'linear', 'gaussian'):
    case(soft_nms, 250, method, 0, 1e-3)
    case(soft_nms, 250, method, 1, 0.2)
case(soft_nms, 0, 'linear', 0, 1e-3)
case(soft_nms, 1, 'linear', 0, 1e-3)


def soft_nms_ties() -> dict[str, Any]:
    from mmcv import ops

    corners, scores = boxes(120)
    dets, kept = ops.soft_nms(corners, (scores * 4).floor() / 4, 0.3, method='naive')
    return {'dets': dets, 'kept': kept}


case(soft_nms_ties)


def nms_match(n: int) -> dict[str, Any]:
    from mmcv import ops

    corners, scores = boxes(n)
    groups = ops.nms_match(torch.cat([corners, scores[:, None]], 1), 0.4)
    lengths = [len(g) for g in groups]
    return {'members': [i for g in groups for i in g.tolist()], 'lengths': lengths}


case(nms_match, 0)
case(nms_match, 200)


def roi_align(n_rois: int, aligned: bool, ratio: int, scale: float) -> dict[str, Any]:
    from mmcv import ops

    corners, _ = boxes(n_rois)
    images = torch.from_numpy(np.random.default_rng(2).integers(0, 2, (n_rois, 1))).float()
    rois = torch.cat([images, corners], 1)
    return with_gradients(
        lambda input: ops.roi_align(input, rois, (3, 4), scale, ratio, 'avg', aligned),
        input=tensor(2, 3, 20, 24),
    )


for aligned in (True, False):
    for ratio in (0, 2):
        case(roi_align, 12, aligned, ratio, 0.08)
case(roi_align, 12, True, 0, 0.2)
case(roi_align, 0, True, 2, 0.08)


def deform_conv(groups: int, deform_groups: int, stride: Any, padding: Any, dilation: Any):
    from mmcv import ops

    weight = tensor(6, 4 // groups, 3, 3, seed=1, scale=0.3)
    size = ops.deform_conv.DeformConv2dFunction._output_size
    shape = size(_geometry(stride, padding, dilation), tensor(2, 4, 8, 7), weight)
    return with_gradients(
        lambda input, offset, weight: ops.deform_conv2d(
            input, offset, weight, stride, padding, dilation, groups, deform_groups
        ),
        input=tensor(2, 4, 8, 7),
        offset=tensor(2, 18 * deform_groups, *shape[2:], seed=2, scale=1.5),
        weight=weight,
    )


def modulated_deform_conv(
    groups: int, deform_groups: int, stride: Any, padding: Any, dilation: Any, bias: bool
):
    from mmcv import ops

    weight = tensor(6, 4 // groups, 3, 3, seed=1, scale=0.3)
    size = ops.deform_conv.DeformConv2dFunction._output_size
    shape = size(_geometry(stride, padding, dilation), tensor(2, 4, 8, 7), weight)[2:]
    inputs = {
        'input': tensor(2, 4, 8, 7),
        'offset': tensor(2, 18 * deform_groups, *shape, seed=2, scale=1.5),
        'mask': tensor(2, 9 * deform_groups, *shape, seed=3).sigmoid(),
        'weight': weight,
    }
    if bias:
        inputs['bias'] = tensor(6, seed=4)
    return with_gradients(
        lambda input, offset, mask, weight, bias=None: ops.modulated_deform_conv2d(
            input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups
        ),
        **inputs,
    )


def _geometry(stride: Any, padding: Any, dilation: Any) -> Any:
    class Geometry:
        pass

    for name, value in (('stride', stride), ('padding', padding), ('dilation', dilation)):
        setattr(Geometry, name, torch.nn.modules.utils._pair(value))
    return Geometry


for setting in ((1, 1, 1, 1, 1), (2, 2, (1, 2), (1, 0), 1), (1, 4, 2, 2, (2, 1))):
    case(deform_conv, *setting)
    case(modulated_deform_conv, *setting, True)
case(modulated_deform_conv, 2, 1, 1, 1, 1, False)
