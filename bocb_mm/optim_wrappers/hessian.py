r"""Losses with labels sampled from the model itself, for the Gauss-Newton-Bartlett estimator.

A training loss is :math:`L = \frac{1}{s} \sum_i w_i \, \ell(z_i, y_i)` over independent
observations :math:`i` (images; anchors and classes; pixels of a heatmap) with outputs
:math:`z_i = f_i(\theta)`. With :math:`\hat y_i` drawn from the model, the gradients of
:math:`\ell(z_i, \hat y_i)` are independent with mean 0, so

.. math::

    h = E\Big[\Big(\nabla_\theta \sum_i \sqrt{w_i / s} \; \ell(z_i, \hat y_i)\Big)^2\Big]

is the diagonal of the Gauss-Newton matrix of L (Sophia, Liu et al. 2023, arXiv:2305.14342, section
2.3; for a mean over B images it is B times the squared gradient of the sampled mean loss).

- CrossEntropyLoss (mmpretrain, mmdet), LabelSmoothLoss: categorical from softmax(z), with
  ``use_sigmoid`` Bernoulli from sigmoid(z) per class. Smoothed, mixed and multi-label targets have
  the same matrix.
- FocalLoss (mmdet): Bernoulli from sigmoid(z) per anchor and class. The focal loss is no negative
  log-likelihood; what counts is its gradient at the sampled label minus the mean of that gradient,
  :math:`(L'_0 - L'_1)(p - \hat y)`, which for cross entropy itself is :math:`p - \hat y`.
- KeypointMSELoss (mmpose): Gaussian around the heatmap, with the variance 1/2 whose negative
  log-likelihood is the squared error.
- KLDiscretLoss (mmpose, SimCC): categorical from softmax(beta z) per keypoint and axis.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bocb_mm.compat import keypoint_mask


def categorical(
    logits: Tensor, weight: Tensor | None, norm: float | None, generator: torch.Generator
) -> Tensor:
    """Sampled cross entropy.

    Args:
        logits: (N, C).
        weight: (N,) or None.
        norm: The s above; None is N, the plain mean.
        generator: Where the labels come from.

    Returns:
        The sum in the brackets above, a scalar.
    """
    logits = logits.float()
    labels = torch.multinomial(logits.detach().softmax(-1), 1, generator=generator).squeeze(-1)
    return _weighted_sum(F.cross_entropy(logits, labels, reduction='none'), weight, norm)


def bernoulli(
    logits: Tensor,
    weight: Tensor | None,
    norm: float | None,
    generator: torch.Generator,
    modulation: Tensor | None = None,
) -> Tensor:
    """Sampled binary cross entropy, each element of ``logits`` an observation.

    Args:
        logits: Any shape.
        weight: Broadcast to ``logits``, or None.
        norm: The s above; None is the number of elements.
        generator: Where the labels come from.
        modulation: Factor of each element's gradient, e.g. the focal loss's; None is 1.

    Returns:
        The sum in the brackets above, a scalar.
    """
    logits = logits.float()
    labels = torch.bernoulli(logits.detach().sigmoid(), generator=generator)
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction='none')
    if modulation is not None:
        losses = losses * modulation.detach()
    return _weighted_sum(losses, weight, norm)


def gaussian(
    output: Tensor, weight: Tensor | None, norm: float | None, generator: torch.Generator
) -> Tensor:
    """Squared error to a target drawn around the output with variance 1/2.

    Args:
        output: Any shape.
        weight: Broadcast to ``output``, or None.
        norm: The s above; None is the number of elements.
        generator: Where the noise comes from.

    Returns:
        The sum in the brackets above, a scalar.
    """
    output = output.float()
    noise = torch.empty_like(output).normal_(std=math.sqrt(0.5), generator=generator)
    return _weighted_sum((output - (output.detach() + noise)).square(), weight, norm)


def focal_modulation(logits: Tensor, gamma: float, alpha: float) -> Tensor:
    r"""How much a label changes the focal loss's gradient: :math:`L'_0(z) - L'_1(z)`.

    With :math:`p = \sigma(z)`, :math:`L_1 = -\alpha (1-p)^\gamma \log p` and
    :math:`L_0 = -(1-\alpha) p^\gamma \log(1-p)` (Lin et al. 2017, eq. 5).
    """
    z = logits.detach().float()
    p, log_p, log_q = z.sigmoid(), F.logsigmoid(z), F.logsigmoid(-z)
    d_one = alpha * (1 - p) ** gamma * (gamma * p * log_p - (1 - p))
    d_zero = (1 - alpha) * p**gamma * (p - gamma * (1 - p) * log_q)
    return d_zero - d_one


def _weighted_sum(losses: Tensor, weight: Tensor | None, norm: float | None) -> Tensor:
    total = losses if weight is None else losses * weight.detach().float().sqrt()
    return total.sum() / math.sqrt(losses.numel() if norm is None else max(norm, 1e-12))


# How each loss module is sampled: (module, its call's arguments, generator) -> the sum, kind; None
# where its settings have no sampling.
_Sampled = tuple[Tensor, str] | None
_Sampler = Callable[[Any, Mapping[str, Any], torch.Generator], _Sampled]


def _norm(module: Any, call: Mapping[str, Any], n: int) -> float | None:
    """The s of a loss module of the MM family, its loss weight included; None: cannot say."""
    reduction = call.get('reduction_override') or module.reduction
    if reduction not in ('mean', 'sum') or module.loss_weight <= 0:
        return None
    factor = call.get('avg_factor')
    s = 1.0 if reduction == 'sum' else float(n if factor is None else factor)
    return s / module.loss_weight


def _cross_entropy(module: Any, call: Mapping[str, Any], generator: torch.Generator) -> _Sampled:
    logits, label, weight = call['cls_score'], call['label'], call.get('weight')
    # A class weight makes the loss depend on the true label, a mask head on its class.
    if module.class_weight is not None or getattr(module, 'pos_weight', None) is not None:
        return None
    if getattr(module, 'use_mask', False) or logits.ndim != 2:
        return None
    ignore = call.get('ignore_index')
    if ignore is None:
        ignore = getattr(module, 'ignore_index', None)
    if ignore is not None and label.shape == logits.shape[:1]:
        valid = (label != ignore).float()
        weight = valid if weight is None else weight * valid
    sigmoid = module.use_sigmoid
    norm = _norm(module, call, logits.numel() if sigmoid else len(logits))
    if norm is None:
        return None
    if sigmoid:
        weight = weight.reshape(-1, 1) if weight is not None and weight.ndim == 1 else weight
        return bernoulli(logits, weight, norm, generator), 'bernoulli'
    return categorical(logits, weight, norm, generator), 'categorical'


def _label_smooth(module: Any, call: Mapping[str, Any], generator: torch.Generator) -> _Sampled:
    # It calls ``ce.forward`` past the hooks of ``ce`` (mmpretrain 1.2.0), so it is tapped itself.
    sampled = _cross_entropy(module.ce, call, generator)
    return sampled and (sampled[0] * math.sqrt(module.loss_weight), sampled[1])


def _focal(module: Any, call: Mapping[str, Any], generator: torch.Generator) -> _Sampled:
    logits, weight = call['pred'], call.get('weight')
    norm = _norm(module, call, logits.numel())
    if norm is None or getattr(module, 'activated', False):
        return None
    if weight is not None and weight.ndim == 1 and logits.ndim == 2:
        weight = weight.reshape(-1, 1)
    modulation = focal_modulation(logits, module.gamma, module.alpha)
    return bernoulli(logits, weight, norm, generator, modulation), 'bernoulli'


def _keypoint_mse(module: Any, call: Mapping[str, Any], generator: torch.Generator) -> _Sampled:
    output = call['output']
    if module.loss_weight <= 0:
        return None
    mask = keypoint_mask(module, call['target'], call.get('target_weights'), call.get('mask'))
    return gaussian(output, mask, output.numel() / module.loss_weight, generator), 'gaussian'


def _simcc(module: Any, call: Mapping[str, Any], generator: torch.Generator) -> _Sampled:
    total: Any = 0.0
    for pred in call['pred_simcc']:
        n_keypoints, bins = pred.shape[1:]
        weight = call['target_weight'].reshape(-1) if module.use_target_weight else None
        logits = pred.reshape(-1, bins) * module.beta
        total = total + categorical(logits, weight, n_keypoints * bins, generator)
    return total, 'categorical'


_SAMPLERS: dict[str, _Sampler] = {
    'mmpretrain.CrossEntropyLoss': _cross_entropy,
    'mmpretrain.LabelSmoothLoss': _label_smooth,
    'mmdet.CrossEntropyLoss': _cross_entropy,
    'mmdet.FocalLoss': _focal,
    'mmpose.KeypointMSELoss': _keypoint_mse,
    'mmpose.KLDiscretLoss': _simcc,
}


def sampler_of(module: nn.Module) -> _Sampler | None:
    """How the labels of a loss module, or of a class it derives from, are sampled; or None."""
    for kind in type(module).__mro__:
        found = _SAMPLERS.get(f'{kind.__module__.split(".")[0]}.{kind.__name__}')
        if found is not None:
            return found
    return None


class SampledLosses:
    """What the loss modules of one forward would be with sampled labels.

    Attributes:
        total: Sum over the calls, a scalar with a graph; None if nothing was sampled.
        kinds: Distributions that were sampled, e.g. ``{'bernoulli'}``.
    """

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.kinds: set[str] = set()

    def add(self, sampled: _Sampled) -> None:
        """Add one call's loss."""
        if sampled is not None and sampled[0].requires_grad:
            self.total = sampled[0] if self.total is None else self.total + sampled[0]
            self.kinds.add(sampled[1])


@contextmanager
def sampled_losses(model: nn.Module, generator: torch.Generator) -> Iterator[SampledLosses]:
    """Collect sampled losses from every loss module that a forward inside the block calls."""
    found, handles = SampledLosses(), []
    inner: set[nn.Module] = set()  # parts of a loss that is tapped as a whole
    for module in model.modules():
        sampler = sampler_of(module)
        if sampler is not None and module not in inner:
            inner.update(module.modules())

            def tap(m: Any, args: Any, kwargs: Any, _sample: _Sampler = sampler) -> None:
                call = inspect.signature(m.forward).bind(*args, **kwargs).arguments
                found.add(_sample(m, call, generator))

            handles.append(module.register_forward_pre_hook(tap, with_kwargs=True))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
