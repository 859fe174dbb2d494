"""The optimizers that PyTorch has: its own classes, with strict arguments and three ways to run.

``foreach=None`` leaves the choice to the device: the fused kernel where PyTorch has one, else
``foreach`` on an accelerator and, on a CPU, a loop over pieces that stay in the cache.
``compile=True`` compiles the step; rate and step count enter as tensors, so that a schedule does
not compile anew. State and checkpoints are PyTorch's own, except that the way to run belongs to the
optimizer and not to the checkpoint.

Arguments are those of the torch class; what differs in their defaults stands in each docstring.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable
from inspect import Parameter
from typing import Any, ClassVar

import torch

from bocb_mm.optimizers import kernels
from bocb_mm.optimizers.multi_tensor import BLOCK, check_gradient, flat_views
from bocb_mm.optimizers.strict import SettingError, StrictArguments

RUN_FLAGS = ('foreach', 'fused', 'capturable', 'differentiable')


class TorchOptimizer(StrictArguments):
    """Mixin in front of a ``torch.optim`` class: way to run, sparse check, loading.

    Raises:
        SettingError: ``foreach=True`` together with ``compile=True``.
    """

    changed: ClassVar[dict[str, Any]] = {}
    """Defaults that differ from the torch class."""

    torch_class: ClassVar[Any]
    param_groups: list[dict[str, Any]]
    state: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take the arguments over from the torch class, with our defaults and ``compile``."""
        super().__init_subclass__(**kwargs)
        cls.torch_class = next(c for c in cls.__mro__ if c.__module__.startswith('torch.optim.'))
        arguments = dict(inspect.signature(cls.torch_class.__init__).parameters)
        for hidden in ('self', 'capturable', 'differentiable'):
            arguments.pop(hidden, None)
        for name, value in cls.changed.items():
            arguments[name] = arguments[name].replace(default=value)
        arguments['compile'] = Parameter('compile', Parameter.KEYWORD_ONLY, default=False)
        cls.__signature__ = inspect.Signature(list(arguments.values()))  # type: ignore[attr-defined]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        bound = inspect.signature(type(self)).bind(*args, **kwargs)
        bound.apply_defaults()
        settings = bound.arguments
        groups = _as_groups(settings.pop('params'))
        self.compile = settings.pop('compile')
        self._compiled: Callable[[], Any] | None = None
        flags = settings.get('foreach'), settings.get('fused')
        if self.compile and any(flags):
            raise SettingError('compile=True with foreach=True or fused=True: choose one of them')
        if self.compile:
            settings['foreach'] = False
        elif flags == (None, None) and self._has_fused_kernel(groups):
            settings['fused'] = True
        self.torch_class.__init__(self, groups, **settings)

    @classmethod
    def _has_fused_kernel(cls, groups: list[dict[str, Any]]) -> bool:
        if 'fused' not in inspect.signature(cls.torch_class.__init__).parameters:
            return False
        devices = {'cpu'} if cls.torch_class is torch.optim.Adagrad else {'cpu', 'cuda'}
        entries = [e for group in groups for e in group['params']]
        tensors = [e[1] if isinstance(e, tuple) else e for e in entries]
        # torch 2.9.1: fused SGD leaves bfloat16 weights on a CPU as they are, without an error
        exact = {torch.float32, torch.float64}
        return all(
            p.device.type in devices
            and (p.dtype in exact if p.device.type == 'cpu' else p.is_floating_point())
            for p in tensors
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns what ``closure`` returned.

        Raises:
            SparseGradientError: A gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        fused = [group for group in self.param_groups if group.get('fused')]
        self._check_gradients(bool(fused))
        # torch 2.9.1: fused SGD fails where some weights have a momentum buffer and others do not.
        fallback = [group for group in fused if not self._evenly_started(group)]
        for group in fallback:
            group['fused'] = False
        try:
            if self.compile:
                self._compiled_step()
            elif fused or any(group.get('foreach') for group in self.param_groups):
                super().step()  # type: ignore[misc]
            else:
                self._step_in_blocks()
        finally:
            for group in fallback:
                group['fused'] = True
        return loss

    def _check_gradients(self, fused: bool) -> None:
        """Refuse sparse gradients; lay those of a fused step out as their weights."""
        for p in (p for group in self.param_groups for p in group['params']):
            if p.grad is None:
                continue
            if p.grad.layout is not torch.strided:
                check_gradient(p, p.grad)
            # torch 2.9.1: the fused kernels walk the memory and mix up the elements of a
            # gradient that lies otherwise than its weight (channels-last), without an error.
            if fused and p.grad.stride() != p.stride():
                p.grad = torch.empty_like(p).copy_(p.grad)

    def _step_in_blocks(self) -> None:
        """Run PyTorch's loop, with big tensors of a CPU cut into pieces that stay in the cache.

        The pieces are views of weight, gradient and state; a counter is copied for each.
        """
        groups, state = self.param_groups, self.state
        self.param_groups, self.state = [dict(group) for group in groups], defaultdict(dict)
        first_pieces = []
        for group in self.param_groups:
            rows = [(p, pieces(p, state.get(p, {}))) for p in group['params']]
            group['params'] = [q for _, cut in rows for q, _ in cut]
            self.state.update(part for _, cut in rows for part in cut)
            first_pieces += [(p, cut[0][0]) for p, cut in rows if cut[0][0] is not p]
        try:
            super().step()  # type: ignore[misc]
            for p, q in first_pieces:
                for key, value in self.state[q].items():
                    if value.dim() == 0:
                        state[p][key].copy_(value)
            for p in (p for group in groups for p in group['params']):
                if made := self.state.get(p):  # not cut: torch may have made its state just now
                    state[p] = made
        finally:
            self.param_groups, self.state = groups, state

    def _evenly_started(self, group: dict[str, Any]) -> bool:
        """Whether all or none of the weights that are due have a state."""
        if 'momentum' not in group:
            return True
        started = {bool(self.state.get(p)) for p in group['params'] if p.grad is not None}
        return len(started) < 2

    def _compiled_step(self) -> None:
        """The compiled step, or the plain one where torch has yet to make the state of a weight."""
        due = [p for group in self.param_groups for p in group['params'] if p.grad is not None]
        stateless = isinstance(self, torch.optim.SGD) and not self.defaults['momentum']
        if not stateless and not all(self.state.get(p) for p in due):
            super().step()  # type: ignore[misc]
            return
        for p in due:
            # torch 2.9.1 counts in float32, in which compiled RAdam is off by 1e-3: its
            # rectification is a difference of numbers near 2000.
            count = self.state[p].get('step')
            if isinstance(count, torch.Tensor) and count.dtype == torch.float32:
                self.state[p]['step'] = count.double()
        if self._compiled is None:
            # Inductor (torch 2.9.1) would inline the powers of the bias corrections into the loops
            # over the weights and work them out for every element: 5 to 8 times fused AdamW.
            realize = {'realize_opcount_threshold': 0}
            self._compiled = torch.compile(super().step, options=realize)  # type: ignore[misc]
            self._rates = [torch.tensor(0.0, dtype=torch.float64) for _ in self.param_groups]
        rates = [group['lr'] for group in self.param_groups]
        try:
            for group, tensor, rate in zip(self.param_groups, self._rates, rates):
                group['lr'] = tensor.fill_(float(rate))
            self._compiled()
        finally:
            for group, rate in zip(self.param_groups, rates):
                group['lr'] = rate

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint; the way to run stays as this optimizer was built."""
        flags = [{k: g[k] for k in RUN_FLAGS if k in g} for g in self.param_groups]
        super().load_state_dict(state_dict)  # type: ignore[misc]
        self._keep_counters(state_dict)
        for group, own in zip(self.param_groups, flags):
            group.update(own)
            if group.get('fused'):
                for p in group['params']:
                    self._lay_state_like(p)

    def _keep_counters(self, state_dict: dict[str, Any]) -> None:
        """Undo that torch 2.9.1 casts NAdam's product of momenta to the dtype of the weights."""
        numbers = [n for group in state_dict['param_groups'] for n in group['params']]
        weights = [p for group in self.param_groups for p in group['params']]
        for number, p in zip(numbers, weights):
            for key, value in state_dict['state'].get(number, {}).items():
                if isinstance(value, torch.Tensor) and value.dim() == 0:
                    loaded = self.state[p][key]
                    self.state[p][key] = value.detach().clone().to(loaded.device)

    def _lay_state_like(self, p: torch.Tensor) -> None:
        """Lay the state out in memory as the weight lies; see :meth:`step` on fused kernels."""
        for key, value in self.state.get(p, {}).items():
            if not isinstance(value, torch.Tensor) or value.shape != p.shape:
                continue
            if value.stride() != p.stride():
                self.state[p][key] = torch.empty_like(p, dtype=value.dtype).copy_(value)

    def __getstate__(self) -> dict[str, Any]:
        """What pickling and copying keep: torch's part and the way to run."""
        return super().__getstate__() | {'compile': self.compile}  # type: ignore[operator]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.setdefault('compile', False)
        self._compiled = None
        super().__setstate__(state)  # type: ignore[misc]


def pieces(p: torch.Tensor, state: dict[str, Any]) -> list[tuple[torch.Tensor, dict[str, Any]]]:
    """A weight with its state, as pieces of at most ``BLOCK`` elements where it is worth it.

    Args:
        p: Weight, with or without gradient.
        state: torch's state of it: tensors like ``p``, and counters of no dimension.

    Returns:
        ``(weight, state)`` of each piece: views, but for the counters, which are copies. The weight
        itself with its own state if it is small, elsewhere than on a CPU, without gradient or
        state, or does not lie in memory as these do.
    """
    whole = [(p, state)]
    if p.grad is None or not state or p.numel() < 2 * BLOCK or p.device.type != 'cpu':
        return whole
    alike = {k: v for k, v in state.items() if isinstance(v, torch.Tensor) and v.shape == p.shape}
    counters = {k: v for k, v in state.items() if k not in alike}
    flat = flat_views((p.detach(), p.grad, *alike.values()))
    if flat is None or not all(isinstance(v, torch.Tensor) for v in counters.values()):
        return whole
    cut = []
    for weight, grad, *parts in zip(*(t.split(BLOCK) for t in flat)):
        weight.grad = grad
        copies = {k: v.clone() for k, v in counters.items()}
        cut.append((weight, dict(zip(alike, parts)) | copies))
    return cut


def _as_groups(params: Any) -> list[dict[str, Any]]:
    """Parameters in any form torch takes, as a list of groups that hold lists."""
    if isinstance(params, torch.Tensor):
        raise SettingError('params is one tensor: expected an iterable of tensors or groups')
    entries = list(params)
    if not entries or not isinstance(entries[0], dict):
        return [{'params': entries}]
    groups = [dict(group) for group in entries]
    for group in groups:
        inside = group['params']
        group['params'] = [inside] if isinstance(inside, torch.Tensor) else list(inside)
    return groups


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
        >>> Adam([p], lr=0.5).step(); p.item()
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

    def _step_in_blocks(self) -> None:
        """Rectified, RAdam is AdamW with another rate and eps: what the fused kernel does."""
        steps = [self._as_adamw(group) for group in self.param_groups]
        if None in steps:
            super()._step_in_blocks()
            return
        for group, how in zip(self.param_groups, steps):
            due = [p for p in group['params'] if p.grad is not None]
            if how is not None and due:
                m, v = ([self.state[p][k] for p in due] for k in ('exp_avg', 'exp_avg_sq'))
                torch._foreach_add_([self.state[p]['step'] for p in due], 1)
                kernels.adam_(due, [p.grad for p in due], (m, v), betas=group['betas'], **how)

    def _as_adamw(self, group: dict[str, Any]) -> dict[str, Any] | None:
        """Arguments of the kernel, or None where it does not apply."""
        due = [p for p in group['params'] if p.grad is not None]
        if group['maximize'] or not group['decoupled_weight_decay']:
            return None
        if not all(self.state.get(p) for p in due) or any(p.device.type != 'cpu' for p in due):
            return None
        states = [self.state[p] for p in due]
        counts = {float(state['step']) for state in states}
        moments = [state['exp_avg'] for state in states], [state['exp_avg_sq'] for state in states]
        if len(counts) > 1 or not kernels.take(due, [p.grad for p in due], *moments):
            return None
        t, b2 = int(max(counts, default=0)) + 1, group['betas'][1]
        correction, limit = 1 - b2**t, 2 / (1 - b2) - 1
        rho = limit - 2 * t * b2**t / correction
        if rho <= 5:
            return None
        rate = ((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)) ** 0.5
        return {
            'step': t,
            'lr': float(group['lr']) * rate,
            'eps': group['eps'] / correction**0.5,
            'weight_decay': group['weight_decay'] / rate,
        }


class AdaGrad(TorchOptimizer, torch.optim.Adagrad):
    """Sum of squared gradients: ``v += g^2;  p -= lr * g / (sqrt(v) + eps)``; coupled decay.

    Source: Duchi et al., JMLR 2011.
    """


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
