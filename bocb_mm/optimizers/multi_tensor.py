"""Base of our own optimizers: one formula on lists of tensors, run as suits the device.

Three ways to run a step, all with the same numbers up to rounding:

- *foreach* (``foreach=True``; the default on an accelerator): the formula gets every tensor of a
  group at once as ``torch._foreach_*`` lists. The number of dispatches does not grow with the
  number of parameters.
- *blocks* (``foreach=False``; the default on a CPU): the formula gets :data:`BLOCK` elements at a
  time, so that what one operation wrote is still in the cache when the next one reads it. A formula
  that needs whole tensors gets small ones together and big ones singly.
- *compile* (``compile=True``): ``torch.compile`` of the formula. Rate and step count enter as
  tensors, so that nothing is compiled anew when they change.

How an optimizer is run is no part of its state: a checkpoint goes on in whatever way the optimizer
that loads it was built.

A gradient that holds NaN makes the weights NaN in the same step, at least where the gradient is; no
optimizer hides it (``bocb_mm.DivergenceHook`` ends such a run). A parameter without gradient and
one without elements are left alone. Sparse gradients and complex parameters are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bocb_mm.optimizers.compiled import CompiledFormula
from bocb_mm.optimizers.strict import SettingError, SparseGradientError, StrictOptimizer

Tensors = list[Tensor]
Scalars = dict[str, Any]
Block = tuple[Tensors, Tensors, dict[str, Tensors]]
BLOCK = 384 * 1024
"""Elements of a block. Of 64 to 768 thousand, 384 and 512 thousand were the fastest for LION,
AdaBelief, AdaBound, Sophia and LAMB on ResNet-50 and DeiT-S (32 MB cache, 1 and 2 threads): smaller
ones cost more calls than the cache saves."""


@dataclass
class Batch:
    """Tensors that one call of a formula updates: same group, device, dtype and step count.

    Attributes:
        params: The weights.
        grads: Their gradients, same order.
        state: Lists of the state tensors by key, same order.
        step: How many steps they have had, this one included.
        kind: What :meth:`MultiTensorOptimizer.kind` says of all of them.
    """

    params: Tensors
    grads: Tensors
    state: dict[str, Tensors]
    step: int
    kind: Any

    def __iter__(self) -> Iterator[Any]:
        return iter((self.params, self.grads, self.state))


class MultiTensorOptimizer(StrictOptimizer, torch.optim.Optimizer):
    """Base class: batching, the three ways to run, state handling. A subclass is a formula.

    A subclass implements :meth:`init_state`, :meth:`coefficients` and :meth:`update`; one whose
    formula reduces over rows or whole tensors sets ``elementwise = False`` and may implement
    :meth:`update_grouped` too.

    Args:
        params: Parameters or groups, as for any torch optimizer.
        defaults: Settings of a group.
        foreach: ``None`` chooses by device.
        compile: Compile the formula; excludes ``foreach``.

    Raises:
        SettingError: ``foreach=True`` together with ``compile=True``, or a complex parameter.
    """

    elementwise = True
    statics: tuple[str, ...] = ()
    """Group settings that :meth:`update` reads; they rarely change during a training."""

    def __init__(
        self, params: Any, defaults: dict[str, Any], foreach: bool | None, compile: bool
    ) -> None:
        if foreach and compile:
            raise SettingError('foreach=True with compile=True: choose one of them')
        self.foreach = foreach
        self.compile = compile
        self._compiled: CompiledFormula | None = None
        super().__init__(params, defaults)

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """State tensors of a parameter before its first step (its gradient is there)."""
        raise NotImplementedError

    def example_state(self, p: Tensor, group: Any) -> dict[str, Any]:
        """What :meth:`init_state` makes, and the step count."""
        return {'step': 0} | self.init_state(p, group)

    def coefficients(self, group: dict[str, Any], step: int) -> Scalars:
        """Numbers that depend on the rate or the step count, in double precision."""
        raise NotImplementedError

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: Any, c: Scalars, s: Scalars) -> None:
        """The formula, in place on lists. ``c``: :meth:`coefficients`; ``s``: the statics."""
        raise NotImplementedError

    def update_block(self, block: Block, c: Scalars, s: Scalars) -> None:
        """The formula on a block of a CPU; by default :meth:`update`. ``s['step']``: step count."""
        self.update(*block, c, s)

    def update_grouped(self, batch: Batch, c: Scalars, s: Scalars) -> None:
        """The formula on a whole batch with few dispatches; by default :meth:`update`."""
        self.update(batch.params, batch.grads, batch.state, c, s)

    def kind(self, p: Tensor, group: dict[str, Any]) -> Any:
        """What sets parameters of one group apart for the formula (``s['kind']``), hashable."""
        return None

    def before_step(self) -> Scalars:
        """Coefficients that need all gradients at once, e.g. a global norm; merged into ``c``."""
        return {}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: Evaluates the model anew and returns the loss.

        Returns:
            What ``closure`` returned.

        Raises:
            SparseGradientError: A gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        shared = self.before_step()
        work = []
        for group in self.param_groups:
            statics = {key: group[key] for key in self.statics}
            for batch in self._batches(group):
                s = statics | {'kind': batch.kind, 'decay': group['weight_decay'] != 0}
                work.append((batch, self.coefficients(group, batch.step) | shared, s))
        if self.compile:
            self._run_compiled(work)
        else:
            for batch, c, s in work:
                self._run(batch, c, s)
        return loss

    def _run(self, batch: Batch, c: Scalars, s: Scalars) -> None:
        device = batch.params[0].device
        if self.foreach or (self.foreach is None and device.type != 'cpu'):
            self.update_grouped(batch, c, s)
        else:
            for block in blocks(batch, cut=self.elementwise):
                self.update_block(block, c, s | {'step': batch.step})

    def _run_compiled(self, work: list[tuple[Batch, Scalars, Scalars]]) -> None:
        if self._compiled is None:
            self._compiled = CompiledFormula(self.update, type(self).__name__)
        self._compiled(
            [
                (*b, {k: torch.as_tensor(v, dtype=torch.float64) for k, v in c.items()}, s)
                for b, c, s in work
            ]
        )

    def _batches(self, group: dict[str, Any], advance: bool = True) -> list[Batch]:
        """Parameters with a gradient, by what the formula needs alike; counts a step."""
        batches: dict[Any, Batch] = {}
        for p in group['params']:
            g = p.grad
            if g is None or not p.numel():
                continue
            state = self.state[p]
            if not state:
                check_gradient(p, g)
                state.update(step=0, **self.init_state(p, group))
            elif g.layout is not torch.strided:
                check_gradient(p, g)
            state['step'] += advance
            kind = self.kind(p, group)
            key = (p.device, p.dtype, g.dtype, state['step'], kind)
            if key not in batches:
                lists: dict[str, Tensors] = {k: [] for k in state if k != 'step'}
                batches[key] = Batch([], [], lists, state['step'], kind)
            batch = batches[key]
            batch.params.append(p)
            batch.grads.append(g)
            for name, tensors in batch.state.items():
                tensors.append(state[name])
        return list(batches.values())

    def __getstate__(self) -> dict[str, Any]:
        """What pickling and copying keep: torch's part and the way to run."""
        return super().__getstate__() | {'foreach': self.foreach, 'compile': self.compile}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._compiled = None
        super().__setstate__(state)


def check_gradient(p: Tensor, g: Tensor) -> None:
    """Refuse a sparse gradient and a complex parameter.

    Raises:
        SparseGradientError: ``g`` is sparse.
        SettingError: ``p`` is complex.
    """
    if g.layout is not torch.strided:
        raise SparseGradientError(
            f'a parameter of shape {tuple(p.shape)} has a sparse gradient; make it dense '
            '(nn.Embedding(sparse=False))'
        )
    if p.is_complex():
        raise SettingError(f'parameter of dtype {p.dtype}: expected real floating point')


def blocks(batch: Batch, cut: bool, whole: int = 2) -> Iterator[Block]:
    """The batch in pieces of about :data:`BLOCK` elements: small tensors together, big ones cut.

    Without ``cut``, for formulas that need whole tensors, a big tensor is a piece by itself. With
    it, one below ``whole`` blocks is: a cut costs calls, and gains the more the more passes follow.
    """
    keys = list(batch.state)
    columns = [batch.params, batch.grads, *batch.state.values()]
    piece: list[tuple[Tensor, ...]] = []
    size = 0
    for row in zip(*columns):
        n = row[0].numel()
        if cut and n >= whole * BLOCK and (flat := flat_views(row)) is not None:
            for part in zip(*(t.chunk(math.ceil(n / BLOCK)) for t in flat)):
                yield _as_block([part], keys)
            continue
        piece.append(row)
        size += n
        if size >= BLOCK:
            yield _as_block(piece, keys)
            piece, size = [], 0
    if piece:
        yield _as_block(piece, keys)


def _as_block(rows: Sequence[Sequence[Tensor]], keys: list[str]) -> Block:
    params, grads, *state = (list(column) for column in zip(*rows))
    return params, grads, dict(zip(keys, state))


def flat_views(tensors: Sequence[Tensor]) -> list[Tensor] | None:
    """One-dimensional views in memory order, or None where the tensors do not lie alike."""
    first = tensors[0]
    if all(t.is_contiguous() for t in tensors):
        return [t.view(-1) for t in tensors]
    dense = first.is_contiguous(memory_format=torch.channels_last) if first.dim() == 4 else False
    if dense and all(t.stride() == first.stride() for t in tensors):
        return [t.as_strided((t.numel(),), (1,)) for t in tensors]
    return None


def divided(sizes: Sequence[int], parts: int) -> list[list[int]]:
    """Indices of tensors in lists of about equal size: the largest first, to the smallest list.

    Example:
        >>> divided([5, 1, 3], 2)
        [[0], [2, 1]]
    """
    if parts == 1:
        return [list(range(len(sizes)))]
    lists: list[list[int]] = [[] for _ in range(parts)]
    totals = [0] * parts
    for k in sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True):
        smallest = totals.index(min(totals))
        lists[smallest].append(k)
        totals[smallest] += sizes[k]
    return lists


def add_scaled_(y: Tensors, x: Tensors, a: Any) -> None:
    """``y += a * x``, where ``a`` is a number or a 0-dim tensor."""
    if isinstance(a, Tensor):
        torch._foreach_add_(y, torch._foreach_mul(x, a))
    else:
        torch._foreach_add_(y, x, alpha=a)


def add_number_(x: Tensors, a: Any) -> None:
    """``x += a``, where ``a`` is a number or a 0-dim tensor.

    As a list, because torch 2.9.1 compiles ``_foreach_add_`` for the value of a 0-dim tensor, that
    is anew at every step.
    """
    torch._foreach_add_(x, [a] * len(x) if isinstance(a, Tensor) else a)


def add_quotient_(y: Tensors, x: Tensors, d: Tensors, a: Any) -> None:
    """``y += a * x / d``."""
    if isinstance(a, Tensor):
        quotient = torch._foreach_div(x, d)
        torch._foreach_mul_(quotient, a)
        torch._foreach_add_(y, quotient)
    else:
        torch._foreach_addcdiv_(y, x, d, value=a)


def clamp_(x: Tensors, lower: Any, upper: Any) -> None:
    """Bring ``x`` into ``[lower, upper]``; either may be None. NaN stays NaN."""
    if isinstance(lower, Tensor) or isinstance(upper, Tensor):  # under torch.compile only
        for t in x:
            if lower is not None:
                t.copy_(torch.maximum(t, torch.as_tensor(lower).to(t)))
            if upper is not None:
                t.copy_(torch.minimum(t, torch.as_tensor(upper).to(t)))
        return
    if lower is not None:
        torch._foreach_clamp_min_(x, lower)
    if upper is not None:
        torch._foreach_clamp_max_(x, upper)


def norms(tensors: Tensors, foreach: bool | None = None) -> Tensor:
    """Norm of each tensor, shape (tensors,), on the device of the first.

    On a CPU by BLAS, which uses all threads where torch 2.9.1's norm uses one; with ``foreach`` in
    one dispatch.
    """
    exact = (torch.float32, torch.float64)
    if not foreach and all(t.device.type == 'cpu' and t.dtype in exact for t in tensors):
        squares = [square(t) for t in tensors]
        return torch.tensor(squares, dtype=tensors[0].dtype).sqrt()
    found = torch._foreach_norm(tensors)
    return torch.stack([n.to(found[0]) for n in found])


def square(t: Tensor) -> float:
    """Sum of the squared elements, by BLAS; float32 or float64 on a CPU."""
    flat = (flat_views((t,)) or [t.flatten()])[0]
    return torch.dot(flat, flat).item()


def clip_factor(groups: list[dict[str, Any]], foreach: bool | None = None) -> Any:
    """What brings the global gradient norm down to ``max_grad_norm``: ``min(1, max / norm)``.

    Args:
        groups: Parameter groups; ``max_grad_norm`` of the first one counts, 0 does not clip.
        foreach: As that of the optimizer.

    Returns:
        A number on a CPU, a 0-dim tensor elsewhere (reading it would wait for the device).
    """
    limit = groups[0]['max_grad_norm']
    if not limit:
        return 1.0
    due = [p for g in groups for p in g['params'] if p.grad is not None and p.numel()]
    for p in due:
        if p.grad.layout is not torch.strided:
            check_gradient(p, p.grad)
    grads = [p.grad for p in due]
    if not grads:
        return 1.0
    norm = torch.linalg.vector_norm(norms(grads, foreach))
    factor = (limit / norm).clamp(max=1.0)
    return factor.item() if factor.device.type == 'cpu' else factor
