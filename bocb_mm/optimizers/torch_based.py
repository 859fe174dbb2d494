"""The optimizers that PyTorch has: its own classes.

Arguments are those of the torch class; what differs in their defaults stands in each docstring.
Those without a fused kernel have a formula for a CPU (``update_block``) that does the same in fewer
passes over the memory, most of them by borrowing the fused kernel of another.
"""

from __future__ import annotations

from typing import Any

import torch

from bocb_mm.optimizers import kernels
from bocb_mm.optimizers.multi_tensor import Batch, Tensors
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
    fused_state = ('momentum_buffer',)

    def fused_kernel(self, group: dict[str, Any], params: Any, grads: Any, *state: Any) -> None:
        """From the second step on."""
        keys = ('weight_decay', 'momentum', 'lr', 'dampening', 'nesterov', 'maximize')
        settings = {key: group[key] for key in keys}
        buffers = state[0] if group['momentum'] else []
        torch._fused_sgd_(params, grads, buffers, is_first_step=False, **settings)


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

    fused_state = ('step', 'exp_avg', 'exp_avg_sq')

    def fused_kernel(self, group: dict[str, Any], params: Any, grads: Any, *state: Any) -> None:
        """Coupled or decoupled decay, as the group says."""
        fused_adam_(group, params, grads, *state)


class AdamW(TorchOptimizer, torch.optim.AdamW):
    """Adam with decoupled decay: ``p *= 1 - lr * weight_decay``, then Adam without decay.

    ``weight_decay`` defaults to 0.01 as in torch.

    Source: Loshchilov & Hutter, ICLR 2019, Algorithm 2.
    """

    fused_state = ('step', 'exp_avg', 'exp_avg_sq')

    def fused_kernel(self, group: dict[str, Any], params: Any, grads: Any, *state: Any) -> None:
        """As :class:`Adam`."""
        fused_adam_(group, params, grads, *state)


def fused_adam_(group: dict[str, Any], params: Any, grads: Any, steps: Any, m: Any, v: Any) -> None:
    """PyTorch's fused step of Adam or AdamW, whose decay is decoupled."""
    torch._foreach_add_(steps, 1)
    b1, b2 = group['betas']
    kernel = torch._fused_adamw_ if group['decoupled_weight_decay'] else torch._fused_adam_
    settings = {key: group[key] for key in ('lr', 'weight_decay', 'eps', 'maximize')}
    kernel(params, grads, m, v, [], steps, amsgrad=False, beta1=b1, beta2=b2, **settings)


class Adamax(TorchOptimizer, torch.optim.Adamax):
    """Adam with the infinity norm: ``u = max(b2 u, |g| + eps);  p -= lr / (1-b1^t) * m / u``.

    The decay is coupled.

    Source: Kingma & Ba, ICLR 2015, Algorithm 2.
    """

    averages = ('exp_avg', 'exp_inf')

    def coefficients(self, group: dict[str, Any], batch: Batch) -> dict[str, Any]:
        """The bias correction is in the rate."""
        b1, b2 = group['betas']
        return {
            'step': float(group['lr']) / (1 - b1**batch.step),
            'b1': b1,
            'b2': b2,
            'eps': group['eps'],
            'decay': group['weight_decay'],
        }

    def update_block(self, params: Tensors, grads: Tensors, state: Any, c: dict[str, Any]) -> None:
        """Seven passes."""
        b2, eps = (kernels.number(c[key], params[0]) for key in ('b2', 'eps'))
        works = self.shared_scratch(params)
        for p, g, m, u, work in zip(params, grads, *state.values(), works):
            if c['decay']:
                g = torch.add(g, p, alpha=c['decay'], out=work)
            m.lerp_(g, 1 - c['b1'])
            torch.abs(g, out=work).add_(eps)
            torch.maximum(u.mul_(b2), work, out=u)
            p.addcdiv_(m, u, value=-c['step'])


class NAdam(TorchOptimizer, torch.optim.NAdam):
    """Adam with Nesterov momentum and its momentum schedule; coupled decay as in Table A2.

    Source: Dozat, Incorporating Nesterov momentum into Adam, ICLR workshop 2016.
    """

    foreach_parts = 2
    averages = ('exp_avg', 'exp_avg_sq')
    counters = {'step': 0.0, 'mu_product': 1.0}

    def coefficients(self, group: dict[str, Any], batch: Batch) -> dict[str, Any]:
        """What is divided by ``sqrt(v)`` is ``step (g + share m)``; counts in the product of mu."""
        t, lr = batch.step, float(group['lr'])
        b1, b2 = group['betas']
        now, coming = (b1 * (1 - 0.5 * 0.96 ** (k * group['momentum_decay'])) for k in (t, t + 1))
        products = [self.state[p]['mu_product'] for p in batch.params]
        torch._foreach_mul_(products, now)
        product = products[0].item()
        share = coming / (1 - product * coming) * (1 - product) / (1 - now)
        root = (1 - b2**t) ** 0.5
        decoupled = group.get('decoupled_weight_decay', False)
        return {
            'step': lr * (1 - now) / (1 - product) * root,
            'share': share,
            'betas': (b1, b2),
            'eps': group['eps'] * root,
            'decay': 0.0 if decoupled else group['weight_decay'],
            'shrink': 1 - lr * group['weight_decay'] * decoupled,
        }

    def update_block(self, params: Tensors, grads: Tensors, state: Any, c: dict[str, Any]) -> None:
        """With Adam's kernel, given the Nesterov moment."""
        b1, b2 = c['betas']
        decayed, nesterov = self.scratches_like(params, 2)
        for p, g, d, m, n in zip(params, grads, decayed, state['exp_avg'], nesterov):
            torch.add(g, p, alpha=c['decay'], out=d)
            m.lerp_(d, 1 - b1)
            torch.add(d, m, alpha=c['share'], out=n)
        kernels.given_moment_(
            params, decayed, (nesterov, state['exp_avg_sq']),
            lr=c['step'], b2=b2, eps=c['eps'], shrink=c['shrink'],
        )  # fmt: skip


class RAdam(TorchOptimizer, torch.optim.RAdam):
    """Adam with rectified variance; ``decoupled_weight_decay`` defaults to True (torch: False).

    While the variance of the adaptive rate is intractable (first steps) it takes a momentum step.

    Source: Liu et al., ICLR 2020, Algorithm 2; decoupled decay as in Table A2.
    """

    changed = {'decoupled_weight_decay': True}

    one_pass = True
    averages = ('exp_avg', 'exp_avg_sq')

    def suits(self, group: dict[str, Any]) -> bool:
        """Decoupled decay only."""
        return group['decoupled_weight_decay']

    @staticmethod
    def _rho(group: dict[str, Any], t: int) -> tuple[float, float]:
        """Length of the approximated simple moving average, and its limit."""
        b2 = group['betas'][1]
        limit = 2 / (1 - b2) - 1
        return limit - 2 * t * b2**t / (1 - b2**t), limit

    def coefficients(self, group: dict[str, Any], batch: Batch) -> dict[str, Any]:
        """Rectified, RAdam is AdamW with another rate and eps; before, momentum with decay."""
        rho, limit = self._rho(group, batch.step)
        lr, (b1, b2) = float(group['lr']), group['betas']
        if rho <= 5:
            shrink = 1 - lr * group['weight_decay']
            return {'momentum_step': lr / (1 - b1**batch.step), 'betas': (b1, b2), 'shrink': shrink}
        rate = ((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)) ** 0.5
        return {
            'step': batch.step,
            'lr': lr * rate,
            'betas': (b1, b2),
            'eps': group['eps'] / (1 - b2**batch.step) ** 0.5,
            'weight_decay': group['weight_decay'] / rate,
        }

    def update_block(self, params: Tensors, grads: Tensors, state: Any, c: dict[str, Any]) -> None:
        """Adam's kernel, once the variance is tractable."""
        m, v = state['exp_avg'], state['exp_avg_sq']
        if 'momentum_step' not in c:
            kernels.adam_(params, grads, (m, v), **c)
            return
        b1, b2 = c['betas']
        for p, g, a, b in zip(params, grads, m, v):
            a.lerp_(g, 1 - b1)
            b.mul_(b2).addcmul_(g, g, value=1 - b2)
            p.mul_(c['shrink']).add_(a, alpha=-c['momentum_step'])


class AdaGrad(TorchOptimizer, torch.optim.Adagrad):
    """Sum of squared gradients: ``v += g^2;  p -= lr * g / (sqrt(v) + eps)``; coupled decay.

    Source: Duchi et al., JMLR 2011.
    """

    foreach_parts = 2
    fused_state = ('step', 'sum')

    def fused_kernel(self, group: dict[str, Any], params: Any, grads: Any, *state: Any) -> None:
        """The sum starts with the optimizer, so that there is no first step."""
        torch._foreach_add_(state[0], 1)
        settings = {
            key: group[key] for key in ('lr', 'lr_decay', 'weight_decay', 'eps', 'maximize')
        }
        torch._fused_adagrad_(params, grads, state[1], state[0], **settings)


class AdaDelta(TorchOptimizer, torch.optim.Adadelta):
    """Units-matching rate: ``d = sqrt(u + eps) / sqrt(v + eps) * g;  p -= lr * d``; coupled decay.

    ``u`` averages ``d^2``, so the first steps are tiny: keep ``lr`` near 1.

    Source: Zeiler, arXiv 1212.5701, Algorithm 1.
    """

    whole_blocks = 1
    foreach_parts = 2
    averages = ('square_avg', 'acc_delta')

    def coefficients(self, group: dict[str, Any], batch: Batch) -> dict[str, Any]:
        """The settings of the group."""
        return group

    def update_block(self, params: Tensors, grads: Tensors, state: Any, c: dict[str, Any]) -> None:
        """Eleven passes; both roots in one, as ``rsqrt``, which is faster than ``sqrt``."""
        rho, eps = (kernels.number(c[key], params[0]) for key in ('rho', 'eps'))
        scratch = [self.shared_scratch(params, use) for use in ('decayed', 'top', 'delta')]
        for p, g, v, u, work, top, delta in zip(params, grads, *state.values(), *scratch):
            if c['weight_decay']:
                g = torch.add(g, p, alpha=c['weight_decay'], out=work)
            v.mul_(rho).addcmul_(g, g, value=1 - c['rho'])
            torch.add(v, eps, out=delta).div_(torch.add(u, eps, out=top)).rsqrt_().mul_(g)
            u.mul_(rho).addcmul_(delta, delta, value=1 - c['rho'])
            p.add_(delta, alpha=-float(c['lr']))

    def _foreach_parts(self) -> int:
        return 3 if self._maximizes() else self.foreach_parts

    def _maximizes(self) -> bool:
        return any(group['maximize'] for group in self.param_groups)

    def _foreach_step(self) -> None:
        """With two buffers at a time where PyTorch has three."""
        if self._maximizes():
            super()._foreach_step()
            return
        for group in self.param_groups:
            params = [p for p in group['params'] if p.grad is not None]
            self._start(params)
            if params:
                self._foreach_group(group, params)

    def _foreach_group(self, group: dict[str, Any], params: Tensors) -> None:
        columns = zip(*([self.state[p][k] for k in ('step', *self.averages)] for p in params))
        steps, v, u = (list(column) for column in columns)
        grads = [p.grad for p in params]
        rho, eps, decay = group['rho'], group['eps'], group['weight_decay']
        torch._foreach_add_(steps, 1)
        if decay:
            grads = torch._foreach_add(grads, params, alpha=decay)
        torch._foreach_mul_(v, rho)
        torch._foreach_addcmul_(v, grads, grads, value=1 - rho)
        delta = torch._foreach_add(v, eps)
        torch._foreach_rsqrt_(delta)
        torch._foreach_mul_(delta, grads)
        del grads  # gives its memory back to the next list
        root = torch._foreach_add(u, eps)
        torch._foreach_sqrt_(root)
        torch._foreach_mul_(delta, root)
        torch._foreach_mul_(u, rho)
        torch._foreach_addcmul_(u, delta, delta, value=1 - rho)
        torch._foreach_add_(params, delta, alpha=-float(group['lr']))


class RMSProp(TorchOptimizer, torch.optim.RMSprop):
    """``v = alpha v + (1-alpha) g^2;  p -= lr * g / (sqrt(v) + eps)``: eps outside the root.

    The decay is coupled. ``bocb_mm.timm.rmsproptf`` is TensorFlow's variant, eps inside the root.

    Source: Hinton, lecture 6e of Neural Networks for Machine Learning, 2012.
    """

    foreach_parts = 2
    averages = ('square_avg',)

    def suits(self, group: dict[str, Any]) -> bool:
        """Neither centred nor with momentum, and with an average that moves."""
        return not group['centered'] and group['momentum'] == 0 and group['alpha'] < 1

    def coefficients(self, group: dict[str, Any], batch: Batch) -> dict[str, Any]:
        """The settings of the group."""
        return group

    def update_block(self, params: Tensors, grads: Tensors, state: Any, c: dict[str, Any]) -> None:
        """With Adam's kernel, whose moment is the gradient."""
        decayed = self.scratch_like(params)
        for p, g, d in zip(params, grads, decayed):
            torch.add(g, p, alpha=c['weight_decay'], out=d)
        kernels.given_moment_(
            params, decayed, (decayed, state['square_avg']),
            lr=float(c['lr']), b2=c['alpha'], eps=c['eps'],
        )  # fmt: skip
