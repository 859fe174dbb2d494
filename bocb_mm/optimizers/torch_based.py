"""The optimizers that PyTorch has: its own classes.

Arguments are those of the torch class; what differs in their defaults stands in each docstring.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

from bocb_mm.optimizers.torch_mixin import TorchOptimizer


class SGD(TorchOptimizer, torch.optim.SGD):
    """SGD with momentum, the paper's SGD-M; ``momentum`` defaults to 0.9 (torch: 0).

    ``b = momentum * b + g + weight_decay * p;  p -= lr * b``: the rate stands outside the buffer.
    The decay is coupled.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1)); p.grad = torch.ones(1)
        >>> SGD([p], lr=0.5).step(); p.item()
        0.5

    Source: Sutskever et al., ICML 2013, in the form of ``torch.optim.SGD``.
    """

    changed = {'momentum': 0.9}


class Adam(TorchOptimizer, torch.optim.Adam):
    """Adam with coupled decay.

    ``g += weight_decay * p;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;
    p -= lr * m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps)``.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(1)); p.grad = torch.ones(1)
        >>> Adam([p], lr=0.5).step(); round(p.item(), 6)
        0.5

    Source: Kingma & Ba, ICLR 2015, Algorithm 1.
    """


class AdamW(TorchOptimizer, torch.optim.AdamW):
    """Adam with decoupled decay: ``p *= 1 - lr * weight_decay``, then Adam without decay.

    ``weight_decay`` defaults to 0.01 as in torch.

    Source: Loshchilov & Hutter, ICLR 2019, Algorithm 2.
    """


class Adamax(TorchOptimizer, torch.optim.Adamax):
    """Adam with the infinity norm: ``u = max(b2 u, |g| + eps);  p -= lr / (1-b1^t) * m / u``.

    The decay is coupled.

    Source: Kingma & Ba, ICLR 2015, Algorithm 2.
    """


class NAdam(TorchOptimizer, torch.optim.NAdam):
    """Adam with Nesterov momentum and its momentum schedule; coupled decay as in Table A2.

    Source: Dozat, Incorporating Nesterov momentum into Adam, ICLR workshop 2016.
    """


class RAdam(TorchOptimizer, torch.optim.RAdam):
    """Adam with rectified variance; ``decoupled_weight_decay`` defaults to True (torch: False).

    While the variance of the adaptive rate is intractable (first steps) it takes a momentum step.

    Source: Liu et al., ICLR 2020, Algorithm 2; decoupled decay as in Table A2.
    """

    changed = {'decoupled_weight_decay': True}


class AdaGrad(TorchOptimizer, torch.optim.Adagrad):
    """Sum of squared gradients: ``v += g^2;  p -= lr * g / (sqrt(v) + eps)``; coupled decay.

    Source: Duchi et al., JMLR 2011.
    """

    def prepare(self, group: dict[str, Any], params: list[torch.Tensor]) -> None:
        """Start the sums of parameters that came later; torch 2.9.1 does it when it is built."""
        late = [p for p in params if 'sum' not in self.state[p]]
        if late:
            known = inspect.signature(torch.optim.Adagrad).parameters
            settings = {key: group[key] for key in known if key in group} | {'params': late}
            self.state.update(torch.optim.Adagrad(**settings).state)
        super().prepare(group, params)


class AdaDelta(TorchOptimizer, torch.optim.Adadelta):
    """Units-matching rate: ``d = sqrt(u + eps) / sqrt(v + eps) * g;  p -= lr * d``; coupled decay.

    ``u`` averages ``d^2``, so the first steps are tiny: keep ``lr`` near 1.

    Source: Zeiler, arXiv 1212.5701, Algorithm 1.
    """


class RMSProp(TorchOptimizer, torch.optim.RMSprop):
    """``v = alpha v + (1-alpha) g^2;  p -= lr * g / (sqrt(v) + eps)``: eps outside the root.

    The decay is coupled. ``bocb_mm.timm.rmsproptf`` is TensorFlow's variant, eps inside the root.

    Source: Hinton, lecture 6e of Neural Networks for Machine Learning, 2012.
    """
