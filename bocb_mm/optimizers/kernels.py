"""PyTorch's fused CPU kernels, borrowed for formulas that contain Adam's or SGD's step.

``torch.optim`` runs them for ``fused=True``: one pass over the memory where single operations take
ten. They walk the memory of their arguments side by side, so everything must lie alike.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bocb_mm.optimizers.multi_tensor import BLOCK, Tensors, flat_views

_BELOW_ONE = 2.0**-53


def take(*columns: Tensors) -> bool:
    """Whether the kernels take these lists: float32 or float64, alike in type and strides.

    Args:
        *columns: Weights, gradients and states of the same tensors on a CPU, in the same order.
    """
    for first, *others in zip(*columns):
        dtype, stride = first.dtype, first.stride()
        if dtype not in (torch.float32, torch.float64) or not _dense(first):
            return False
        for t in others:
            if t.dtype != dtype or t.stride() != stride:
                return False
    return True


def number(value: float, like: Tensor) -> Tensor:
    """A number for ``add_`` or ``mul_`` on tensors of the type of ``like``.

    On small tensors 3 times as fast as Python's: torch 2.9.1 makes a tensor of those at every call.
    """
    return torch.scalar_tensor(value, dtype=like.dtype)


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


def given_moment_(
    params: Tensors,
    grads: Tensors,
    moments: tuple[Tensors, Tensors],
    *,
    lr: float,
    b2: float,
    eps: float,
    shrink: float = 1.0,
) -> None:
    """``v = b2 v + (1-b2) g^2;  p = shrink p - lr m / (sqrt(v) + eps)``: ``m`` is used as it is.

    The Adam kernel with the largest ``b1`` below 1 and a step count of 1: ``m`` takes up 2^-53 of
    ``g``, which is below the rounding of float32, and both bias corrections are constants that the
    rate and eps make good.

    Args:
        params: What is moved.
        grads: What enters ``v``.
        moments: ``m``, which may be the gradients, and ``v``.
        lr: Factor of the step.
        b2: Decay rate of ``v``, below 1.
        eps: Added to the denominator.
        shrink: Factor of ``p``.
    """
    root = (1 - b2) ** 0.5
    rate = lr * _BELOW_ONE / root
    adam_(
        params, grads, moments, step=1, lr=rate, betas=(1 - _BELOW_ONE, b2), eps=eps / root,
        weight_decay=(1 - shrink) / rate if rate else 0.0,
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
        buffers: Momentum buffers ``b``; none where ``momentum`` is 0.
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
    """Buffers that a step's blocks take turns in: new memory costs up to four passes over it.

    They have the size of what is asked for at most and are kept for the next step; copies and
    pickles start without.
    """

    _scratch: dict[str, Tensor] | None = None

    def scratch_like(self, tensors: Tensors, use: str = '') -> Tensors:
        """Uninitialised tensors that lie as the given ones; valid until the same ``use``."""
        return self.scratches_like(tensors, 1, use)[0]

    def scratches_like(self, tensors: Tensors, count: int, use: str = '') -> list[Tensors]:
        """As :meth:`scratch_like`, ``count`` lists at once."""
        sizes = [t.numel() for t in tensors] * count
        total = sum(sizes)
        flat = self._flat_scratch(total, tensors[0], use)
        pieces = [
            piece if t.dim() == 1 else piece.as_strided(t.shape, t.stride())
            for piece, t in zip(flat[:total].split(sizes), tensors * count)
        ]
        return [pieces[k : k + len(tensors)] for k in range(0, len(pieces), len(tensors))]

    def shared_scratch(self, tensors: Tensors, use: str = '') -> Tensors:
        """As :meth:`scratch_like`, all in the same memory: for a loop that needs one at a time.

        What it wrote for one tensor is still in the cache when it writes for the next.
        """
        flat = self._flat_scratch(max(t.numel() for t in tensors), tensors[0], use)
        return [flat.as_strided(t.shape, t.stride()) for t in tensors]

    def _flat_scratch(self, size: int, like: Tensor, use: str) -> Tensor:
        self._scratch = self._scratch or {}
        flat = self._scratch.get(use)
        if flat is None or flat.numel() < size or flat.dtype != like.dtype:
            flat = self._scratch[use] = like.new_empty(size)
        return flat
