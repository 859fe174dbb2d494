r"""Sigmoid focal loss (Lin et al., ICCV 2017), forward and backward, in plain PyTorch.

.. math::
    L = -\alpha (1 - p)^\gamma \log p \quad \text{for the box's class}, \qquad
    L = -(1 - \alpha) p^\gamma \log(1 - p) \quad \text{for the others}, \qquad p = \sigma(x)

mmcv's kernel works :math:`\log(1 - p)` out from a rounded ``p``: in float32 it is off by 5e-4 at
x = 10, 0.16 at 15 and 67 at 20. Here :func:`torch.nn.functional.logsigmoid` is right for all x, as
mmdet's own form for the CPU is. float16 and bfloat16 are worked out in float32; mmcv's kernel lacks
the latter.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss of each box and class.

    Args:
        input: ``(n, classes)`` logits.
        target: ``(n,)`` int64 class of each box; ``classes`` stands for the background.
        weight: ``(classes,)`` factor of a box by its class, or empty.
        output: ``(n, classes)``, written.
        gamma: How much less easy boxes count.
        alpha: Share of the box's own class.
    """
    x, is_class = _prepare(input, target)
    p, q = x.sigmoid(), (-x).sigmoid()
    own = -alpha * q.pow(gamma) * logsigmoid(x)
    other = -(1 - alpha) * p.pow(gamma) * logsigmoid(-x)
    output.copy_(_weighted(torch.where(is_class, own, other), target, weight))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of each loss by its logit into ``grad_input``; arguments as above."""
    x, is_class = _prepare(input, target)
    p, q = x.sigmoid(), (-x).sigmoid()
    own = -alpha * q.pow(gamma) * (q - gamma * p * logsigmoid(x))
    other = -(1 - alpha) * p.pow(gamma) * (gamma * q * logsigmoid(-x) - p)
    grad_input.copy_(_weighted(torch.where(is_class, own, other), target, weight))


def _prepare(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The logits in float32 or float64, and where a box's class is."""
    x = input if input.dtype == torch.float64 else input.float()
    return x, target[:, None] == torch.arange(input.shape[1], device=input.device)


def _weighted(loss: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return loss * weight[target][:, None] if weight.numel() else loss
