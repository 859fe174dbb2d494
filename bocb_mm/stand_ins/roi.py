"""Region of interest pooling: RoIAlign on torchvision's kernel, RoIPool in plain PyTorch."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor

from bocb_mm.errors import UserError
from bocb_mm.stand_ins.advice import COMPILE


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the average of bilinear samples within each bin of each box (He et al., ICCV 2017).

    Args:
        input: ``(n, c, h, w)`` feature map.
        rois: ``(r, 5)``: index of the image, corners.
        output: ``(r, c, aligned_height, aligned_width)``, written.
        argmax_y: Of ``pool_mode`` 0, not used.
        argmax_x: Likewise.
        aligned_height: Bins down.
        aligned_width: Bins across.
        spatial_scale: Size of the map relative to the boxes' coordinates.
        sampling_ratio: Samples a bin in each direction; 0 for as many as it has pixels.
        pool_mode: 1, the average; the greatest sample, 0, is compiled mmcv's only.
        aligned: Whether pixel centres lie at half coordinates.

    Raises:
        UserError: ``pool_mode`` is 0.
    """
    _check_mode(pool_mode)
    output.copy_(
        torchvision.ops.roi_align(
            _wide(input),
            _wide(rois),
            (aligned_height, aligned_width),
            spatial_scale,
            sampling_ratio,
            aligned,
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient of the feature map; arguments as above.

    The average is linear in the map, so its values play no part.
    """
    _check_mode(pool_mode)
    with torch.enable_grad():
        map_ = torch.zeros_like(_wide(grad_input), requires_grad=True)
        out = torchvision.ops.roi_align(
            map_,
            _wide(rois),
            (aligned_height, aligned_width),
            spatial_scale,
            sampling_ratio,
            aligned,
        )
    grad_input.copy_(torch.autograd.grad(out, map_, _wide(grad_output))[0])


def _check_mode(pool_mode: int) -> None:
    if pool_mode != 1:
        raise UserError(f"mmcv's roi_align with pool_mode='max' needs the compiled mmcv: {COMPILE}")


def _wide(x: Tensor) -> Tensor:
    """``x`` in float32, or as it is where it has more."""
    return x if x.dtype == torch.float64 else x.float()


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write the greatest value within each bin of each box (Girshick, ICCV 2015), and where it is.

    torchvision's kernel rounds the boxes to whole pixels first, mmcv's does not: hence a loop over
    boxes instead.

    Args:
        input: ``(n, c, h, w)`` feature map.
        rois: ``(r, 5)``: index of the image, corners, the last pixel included.
        output: ``(r, c, pooled_height, pooled_width)`` zeros, written.
        argmax: Of the same shape, int32, written: ``y * w + x``, or -1 for an empty bin.
        pooled_height: Bins down.
        pooled_width: Bins across.
        spatial_scale: Size of the map relative to the boxes' coordinates.
    """
    height, width = input.shape[2:]
    argmax.fill_(-1)
    corners = _wide(rois[:, 1:]) + rois.new_tensor([0, 0, 1, 1], dtype=torch.float32)
    corners = corners * spatial_scale
    rows = _bins(corners[:, 1], corners[:, 3], pooled_height, height)
    columns = _bins(corners[:, 0], corners[:, 2], pooled_width, width)
    empty = ((corners[:, 2] <= corners[:, 0]) | (corners[:, 3] <= corners[:, 1])).tolist()
    for r, image in enumerate(rois[:, 0].long().tolist()):
        if empty[r]:
            continue
        for y, (top, bottom) in enumerate(rows[r]):
            for x, (left, right) in enumerate(columns[r]):
                if bottom <= top or right <= left:
                    continue
                best, where = input[image, :, top:bottom, left:right].flatten(1).max(1)
                output[r, :, y, x] = best
                down = where.div(right - left, rounding_mode='floor')
                argmax[r, :, y, x] = (top + down) * width + left + where % (right - left)


def _bins(start: Tensor, end: Tensor, n: int, size: int) -> list[list[list[int]]]:
    """First and one past the last pixel of each box's ``n`` bins, within ``0 .. size``."""
    edges = torch.arange(n + 1, device=start.device) * ((end - start) / n)[:, None] + start[:, None]
    bins = torch.stack([edges[:, :-1].floor(), edges[:, 1:].ceil()], 2)
    return bins.clamp(0, size).long().tolist()


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add each bin's gradient to the pixel it took; arguments as above."""
    wide = torch.zeros_like(_wide(grad_input)).flatten(2)
    taken, grad = argmax.flatten(2).long(), _wide(grad_output).flatten(2)
    grad = grad.masked_fill(taken < 0, 0)
    channel = torch.arange(wide.shape[1], device=wide.device)[None, :, None]
    image = rois[:, 0].long()[:, None, None]
    wide.index_put_((image, channel, taken.clamp(min=0)), grad, accumulate=True)
    grad_input.copy_(wide.view_as(grad_input))
