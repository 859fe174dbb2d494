"""Non-maximum suppression on torchvision's kernel, and its variants that mmcv runs on the CPU."""

from __future__ import annotations

import numpy as np
import torch
import torchvision
from torch import Tensor


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that no better box overlaps by more than ``iou_threshold``.

    Args:
        boxes: ``(n, 4)`` corners, float16 to float64.
        scores: ``(n,)``; of equal scores the first wins.
        iou_threshold: A box goes when its IoU with a kept one is greater.
        offset: 1 where a box from ``x1`` to ``x2`` is ``x2 - x1 + 1`` wide, as in old data; else 0.

    Returns:
        ``(k,)`` indices, best score first.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [9, 9, 12, 12]])
        >>> nms(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.5, 0).tolist()
        [1, 2]
    """
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    if boxes.dtype in (torch.float16, torch.bfloat16):
        boxes = boxes.float()
    # mmcv compares in float32: an IoU of 1 / 3 is not greater than a threshold of 1 / 3.
    return torchvision.ops.nms(boxes, scores.to(boxes.dtype), float(np.float32(iou_threshold)))


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of overlapping boxes instead of dropping them (Bodla et al., ICCV 2017).

    mmcv runs it on the CPU whatever the device, and so does this.

    Args:
        boxes: ``(n, 4)`` corners on the CPU, float32.
        scores: ``(n,)``.
        dets: ``(n, 5)``, written: boxes and lowered scores, best first.
        iou_threshold: Overlap from which ``naive`` drops and ``linear`` lowers.
        sigma: Width of ``gaussian``'s factor :math:`e^{-IoU^2 / sigma}`.
        min_score: A box below it is dropped.
        method: 0 naive, 1 linear, 2 gaussian.
        offset: As in :func:`nms`.

    Returns:
        ``(k,)`` indices into ``boxes``; the first ``k`` rows of ``dets`` belong to them.
    """
    rows = torch.cat([boxes, scores[:, None]], 1).detach().float().numpy().copy()
    order = np.arange(len(rows))
    i = 0
    while i < len(rows):
        best = i + int(rows[i:, 4].argmax())
        rows[[i, best]], order[[i, best]] = rows[[best, i]], order[[best, i]]
        i += 1
        overlap = _overlaps(rows[i - 1], rows[i:], offset)
        if method == 2:
            factor = np.exp(-(overlap * overlap) / np.float32(sigma))
        else:
            lowered = 1 - overlap if method == 1 else np.zeros_like(overlap)
            factor = np.where(overlap >= iou_threshold, lowered, np.float32(1))
        rows[i:, 4] *= factor
        left = np.concatenate([np.arange(i), i + _closed_up(rows[i:, 4] < min_score)])
        rows, order = rows[left], order[left]
    dets[: len(rows)] = torch.from_numpy(rows).to(dets.dtype)
    return torch.from_numpy(order)


def _closed_up(dropped: np.ndarray) -> np.ndarray:
    """Order of what stays when each dropped place is filled by the last that stays.

    mmcv's kernel fills its gaps so; of equal scores the first in this order wins.
    """
    left = np.flatnonzero(~dropped)
    order = np.arange(len(left))
    order[dropped[: len(left)]] = left[left >= len(left)][::-1]
    return order


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of boxes: each kept one and those it suppresses, best score first.

    Args:
        dets: ``(n, 5)`` corners and score, on the CPU.
        iou_threshold: A box joins the group of a better one from this IoU on.

    Returns:
        The groups, as lists of indices.
    """
    order = dets[:, 4].sort(descending=True, stable=True)[1].numpy()
    rows = dets.float().numpy()[order]
    groups = []
    while len(order):
        joins = _overlaps(rows[0], rows[1:], 0) >= iou_threshold
        groups.append([int(order[0]), *order[1:][joins].tolist()])
        order, rows = order[1:][~joins], rows[1:][~joins]
    return groups


def _overlaps(one: np.ndarray, others: np.ndarray, offset: int) -> np.ndarray:
    """IoU of a box with each of others, ``(n,)`` float32; 0 / 0 is NaN, as in mmcv's kernel."""
    low, high = np.maximum(one[:2], others[:, :2]), np.minimum(one[2:4], others[:, 2:4])
    both = np.maximum(high - low + offset, 0).prod(1, dtype=np.float32)
    area = (one[2:4] - one[:2] + offset).prod(dtype=np.float32)
    areas = (others[:, 2:4] - others[:, :2] + offset).prod(1, dtype=np.float32)
    with np.errstate(divide='ignore', invalid='ignore'):
        return both / (area + areas - both)
