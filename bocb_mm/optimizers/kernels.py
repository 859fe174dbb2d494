"""PyTorch's fused CPU kernels, borrowed for formulas that contain Adam's or SGD's step.

``torch.optim`` runs them for ``fused=True``: one pass over the memory where single operations take
ten. They walk the memory of their arguments side by side, so everything must lie alike.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bocb_mm.optimizers.multi_tensor import BLOCK, Tensors, flat_views


def take(*columns: Tensors) -> bool:
    """Whether the kernels take these lists: float32 or float64, alike in type and strides.

    Args:
        *columns: Weights, gradients and states of the same tensors on a CPU, in the same order.
    """
    return all(
        row[0].dtype in (torch.float32, torch.float64)
        and all(t.dtype == row[0].dtype and t.stride() == row[0].stride() for t in row)
        and _dense(row[0])
        for row in zip(*columns)
    )


def _dense(t: Tensor) -> bool:
    """Whether the elements lie in one piece of memory."""
    if t.is_contiguous():
        return True
    return t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last)


def parts(*columns: Tensors) -> Iterator[tuple[Tensors, ...]]:
    """The lists once more; a list of one big tensor comes in flat pieces that stay in the cache."""
    row = tuple(column[0] for column in columns)
    if len(columns[0]) > 1 or row[0].numel() < 2 * BLOCK or (flat := flat_views(row)) is None:
        yield columns
        return
    for piece in zip(*(t.split(BLOCK) for t in flat)):
        yield tuple([t] for t in piece)


def adam_(
    params: Tensors,
    grads: Tensors,
    moments: tuple[Tensors, Tensors],
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float = 0.0,
) -> None:
    """``p -= lr (m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps) + weight_decay p)``, moments updated.

    Args:
        params: What is moved; need not be weights.
        grads: Gradients.
        moments: First and second moments.
        step: ``t``, this step included.
        lr: Factor of the step; may be negative.
        betas: Decay rates of the moments.
        eps: Added to the denominator.
        weight_decay: Decoupled.
    """
    m, v = moments
    torch._fused_adamw_(
        params, grads, m, v, [], [torch.tensor(float(step))] * len(params),
        lr=lr, beta1=betas[0], beta2=betas[1], weight_decay=weight_decay, eps=eps,
        amsgrad=False, maximize=False,
    )  # fmt: skip


def sgd_(
    params: Tensors,
    grads: Tensors,
    buffers: Tensors,
    *,
    lr: float,
    momentum: float,
    weight_decay: float = 0.0,
    scale: float = 1.0,
    nesterov: bool = False,
) -> None:
    """``b = momentum b + scale (g + weight_decay p);  p -= lr b``.

    Args:
        params: Weights.
        grads: Gradients.
        buffers: Momentum buffers ``b``.
        lr: Learning rate.
        momentum: Decay of the buffer.
        weight_decay: Coupled.
        scale: Factor of what enters the buffer.
        nesterov: ``p -= lr (g + weight_decay p + momentum b)`` instead.
    """
    torch._fused_sgd_(
        params, grads, buffers,
        weight_decay=weight_decay, momentum=momentum, lr=lr, dampening=1 - scale,
        nesterov=nesterov, maximize=False, is_first_step=False,
    )  # fmt: skip


class ScratchMixin:
    """One buffer that a step's tensors take turns in, because new memory costs as much as a pass.

    It has the size of the largest block or tensor and is kept for the next step; copies and pickles
    start without.
    """

    _scratch: Tensor | None = None

    def scratch_like(self, tensors: Tensors) -> Tensors:
        """Uninitialised tensors that lie as the given ones; valid until the next call."""
        sizes = [t.numel() for t in tensors]
        flat = self._scratch
        if flat is None or flat.numel() < sum(sizes) or flat.dtype != tensors[0].dtype:
            flat = self._scratch = tensors[0].new_empty(sum(sizes))
        return [
            piece.as_strided(t.shape, t.stride(), piece.storage_offset())
            for piece, t in zip(flat[: sum(sizes)].split(sizes), tensors)
        ]
