"""Gradients of a network at its start: what can be known of it before any training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from statistics import median, pstdev
from typing import Any

from torch import Tensor, nn


def gradient_norms(
    model: nn.Module, batches: Iterable[Any], loss: Callable[[Any], Tensor]
) -> dict[str, float]:
    """Root mean square of each layer's gradient, averaged over some batches.

    Only parameters of two or more dimensions: weights of linear layers and convolutions, in the
    order of the model. Gradients are cleared before and after.

    Args:
        model: In train mode, with the weights it starts from.
        batches: What ``loss`` takes.
        loss: The training loss of a batch, a scalar.

    Returns:
        By name; empty where no layer has a finite gradient.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> list(gradient_norms(net, [torch.ones(4, 2)], lambda x: net(x).sum()))
        ['0.weight', '1.weight']
    """
    layers = {n: p for n, p in model.named_parameters() if p.dim() > 1 and p.requires_grad}
    sums: dict[str, list[float]] = {}
    for batch in batches:
        model.zero_grad()
        loss(batch).backward()
        for name, weight in layers.items():
            if weight.grad is not None:
                sums.setdefault(name, []).append(float(weight.grad.float().square().mean().sqrt()))
    model.zero_grad()
    means = {name: sum(sums[name]) / len(sums[name]) for name in layers if name in sums}
    return {name: value for name, value in means.items() if math.isfinite(value) and value > 0}


def covariates(norms: Mapping[str, float]) -> dict[str, float]:
    """Two numbers about a network at its start, from :func:`gradient_norms`.

    ``first_to_median``: the first layer's over the median layer's; patchifying stems stand out
    (Xiao et al., Early Convolutions Help Transformers See Better, 2021, for why stems matter).
    ``block_spread``: standard deviation of ``log10`` over the blocks, a block being the layers of
    one parent module: Zhang et al. (Why Transformers Need Adam, 2024) find that blocks which
    differ call for a rate of their own; they look at the Hessian, this at gradients only.

    Whether either predicts coupling is not validated.

    Example:
        >>> found = covariates({'stem.weight': 1.0, 'a.1.weight': 0.1, 'a.2.weight': 0.1})
        >>> round(found['first_to_median']), found['block_spread']
        (10, 0.5)
    """
    if not norms:
        return {}
    blocks: dict[str, list[float]] = {}
    for name, value in norms.items():
        # Behind the layer's own name: 'layer1.0.conv1.weight' belongs to 'layer1.0'.
        blocks.setdefault('.'.join(name.split('.')[:-2]), []).append(math.log10(value))
    means = [sum(values) / len(values) for values in blocks.values()]
    first = next(iter(norms.values()))
    return {'first_to_median': first / median(norms.values()), 'block_spread': pstdev(means)}
