"""SOAP: Adam in the bases in which Shampoo's factors are diagonal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bocb_mm.optimizers.base import Call, MultiTensorOptimizer, Scalars, State, Tensors
from bocb_mm.optimizers.foreach import add_scaled_, operand
from bocb_mm.optimizers.moments import adam_coefficients
from bocb_mm.optimizers.strict import require


class SOAP(MultiTensorOptimizer):
    r"""Adam in a slowly turning basis for each dimension of a weight.

    For a matrix, with ``Q, R`` the eigenvectors of ``L, P``::

        u = Q adam(Q' g R) R';  p = (p - lr u) (1 - lr weight_decay)
        L = b2 L + (1-b2) g g';  P = b2 P + (1-b2) g' g

    A kernel has a basis for each of its four dimensions. Vectors, and dimensions larger than
    ``max_precondition_dim``, have none: there it is Adam. So heads, stems and depthwise kernels
    need no optimizer of their own. The first step of a weight only makes its bases; each
    ``precondition_frequency`` steps after it they turn by one step of power iteration and QR.

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: Decay rates of the moments; the second is that of the factors, too.
        eps: Added to the denominator.
        weight_decay: Decoupled.
        precondition_frequency: Steps between two turns of the bases.
        max_precondition_dim: Largest dimension that has a basis.
        foreach, compile: Execution mode, see :mod:`.base`; the turns are never compiled. On a GPU
            the first step of a weight waits for the device.

    Example:
        >>> p = torch.nn.Parameter(torch.ones(2, 2)); p.grad = torch.diag(torch.tensor([3.0, -2.0]))
        >>> optimizer = SOAP([p], lr=0.5)
        >>> optimizer.step(); p.tolist()
        [[1.0, 1.0], [1.0, 1.0]]
        >>> optimizer.step(); p.tolist()
        [[0.5, 1.0], [1.0, 1.5]]

    Source: Vyas et al., SOAP: improving and stabilizing Shampoo using Adam, ICLR 2025, Algorithm
    3; dimensions, first step and order of decay as in the authors' code.
    """

    defaults = {
        'lr': 3e-3,
        'betas': (0.95, 0.95),
        'eps': 1e-8,
        'weight_decay': 0.0,
        'precondition_frequency': 10,
        'max_precondition_dim': 10000,
    }
    elementwise = False

    @classmethod
    def check(cls, group: Mapping[str, Any]) -> None:
        """See the base class."""
        super().check(group)
        for name in ('precondition_frequency', 'max_precondition_dim'):
            value = group[name]
            require(type(value) is int and value > 0, name, value, 'a whole number above 0')

    @staticmethod
    def kind(p: Tensor, group: dict[str, Any]) -> tuple[int, ...]:
        """The dimensions that have a basis; one of a single element needs none."""
        sizes = enumerate(p.shape if p.dim() > 1 else ())
        return tuple(i for i, n in sizes if 1 < n <= group['max_precondition_dim'])

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """A factor and its basis for each dimension, and Adam's moments, both in the bases."""
        wide = torch.promote_types(p.dtype, torch.float32)
        state = {}
        for i in self.kind(p, group):
            state[f'factor_{i}'] = p.new_zeros((p.shape[i],) * 2, dtype=wide)
            state[f'basis_{i}'] = torch.eye(p.shape[i], dtype=wide, device=p.device)
        return state | {name: torch.zeros_like(p) for name in ('exp_avg', 'exp_avg_sq')}

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """Shares of the moments, step size and shrink factor; the first step moves nothing."""
        done = step - 1
        if not done:
            idle = {'done': 0, 'eps': 1.0, 'step': 0.0, 'shrink': 1.0}
            return idle | {'old_1': 1.0, 'new_1': 0.0, 'old_2': 1.0, 'new_2': 0.0}
        b1, b2 = group['betas']
        return {
            'done': done,
            'eps': group['eps'],
            'step': -group['lr'] * adam_coefficients(group, done)['scale'],
            'shrink': 1 - group['lr'] * group['weight_decay'],
            'old_1': b1,
            'new_1': 1 - b1,
            'old_2': b2,
            'new_2': 1 - b2,
        }

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """Two buffers, and the stacks of one shape."""
        m, v, dims = state['exp_avg'], state['exp_avg_sq'], s['kind']
        bases = {i: state[f'basis_{i}'] for i in dims}
        u = turned(grads, bases)
        torch._foreach_mul_(m, c['old_1'])
        add_scaled_(m, u, c['new_1'])
        torch._foreach_mul_(v, c['old_2'])
        add_scaled_(v, torch._foreach_mul(u, u), c['new_2'])
        u = torch._foreach_sqrt(v)
        torch._foreach_add_(u, operand(c['eps'], u))
        torch._foreach_reciprocal_(u)
        torch._foreach_mul_(u, m)
        add_scaled_(params, turned(u, bases, back=True), c['step'])
        torch._foreach_mul_(params, c['shrink'])
        for rows in alike(grads if dims else []):
            x = stacked(grads, rows, state['factor_' + str(dims[0])][0].dtype)
            for i in dims:
                y = x.movedim(i + 1, 1).flatten(2)
                factors = [state[f'factor_{i}'][k] for k in rows]
                products = list(torch.bmm(y, y.mT).unbind())
                torch._foreach_lerp_(factors, products, 1 - s['betas'][1])

    def finish(self, calls: list[Call]) -> None:
        """Turn the bases of the weights whose step it is."""
        for call in calls:
            done = call.c['done']
            if done % call.s['precondition_frequency'] == 0:
                for rows in alike(call.params):
                    turn_(call.state, call.s['kind'], rows, first=not done)


def alike(tensors: Tensors) -> Iterator[list[int]]:
    """The positions of the tensors of each shape."""
    found: dict[torch.Size, list[int]] = {}
    for k, t in enumerate(tensors):
        found.setdefault(t.shape, []).append(k)
    yield from found.values()


def stacked(tensors: Tensors, rows: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Those tensors of one shape in a batch, without a copy where it is a single one."""
    chosen = [tensors[k] for k in rows]
    return (torch.stack(chosen) if len(chosen) > 1 else chosen[0][None]).to(dtype)


def times(x: Tensor, dim: int, matrices: Tensor) -> Tensor:
    """Dimension ``dim`` of each tensor of a batch, as rows, times its matrix."""
    x = x.movedim(dim + 1, -1)
    return torch.bmm(x.flatten(1, -2), matrices).view(x.shape).movedim(-1, dim + 1)


def turned(tensors: Tensors, bases: Mapping[int, Tensors], back: bool = False) -> Tensors:
    """The tensors in their bases, by dimension, or ``back`` from there; new ones, if any basis."""
    found = list(tensors)
    for rows in alike(tensors if bases else []):
        for i, of_all in bases.items():
            dtype = of_all[0].dtype
            x = stacked(found, rows, dtype)
            q = stacked(of_all, rows, dtype)
            for k, t in zip(rows, times(x, i, q.mT if back else q).unbind()):
                found[k] = t
    return found


def turn_(state: State, dims: Sequence[int], rows: Sequence[int], first: bool) -> None:
    """Turn the bases of weights of one shape to where their factors are, and the moments along.

    The first moment is turned, the second is kept by basis vector, in order of the eigenvalues.
    """
    if not dims:
        return
    dtype = state[f'basis_{dims[0]}'][0].dtype
    m, v = (stacked(state[name], rows, dtype) for name in ('exp_avg', 'exp_avg_sq'))
    for i in dims:
        factor, old = (stacked(state[f'{name}_{i}'], rows, dtype) for name in ('factor', 'basis'))
        if first:
            new = eigenvectors(factor)
        else:
            new, order = power_step(factor, old)
            m = times(m, i, old.mT @ new)
            v = v.movedim(i + 1, -1)
            index = order.view(len(rows), *[1] * (v.dim() - 2), -1).expand_as(v)
            v = v.gather(-1, index).movedim(-1, i + 1)
        for k, q in zip(rows, new):
            state[f'basis_{i}'][k].copy_(q)
    for k, m_k, v_k in zip(rows, m, v):
        state['exp_avg'][k].copy_(m_k)
        state['exp_avg_sq'][k].copy_(v_k)


def eigenvectors(factor: Tensor) -> Tensor:
    """Of a batch of factors, by falling eigenvalue.

    One gradient leaves a null space, of which a library gives one basis or another as rounding
    has it. So that modes and machines agree, it is that of a constant matrix put through QR.
    """
    a = factor.nan_to_num(0.0, 0.0, 0.0)
    try:
        values, vectors = torch.linalg.eigh(a)
    except torch.linalg.LinAlgError:  # no convergence, in single precision
        values, vectors = (t.to(a.dtype) for t in torch.linalg.eigh(a.double()))
    null = (values <= smallest(values, factor.dtype))[:, None].flip(-1)
    constant = torch.randn(a.shape[-2:], generator=torch.Generator().manual_seed(0), dtype=a.dtype)
    return torch.linalg.qr(torch.where(null, constant.to(a.device), vectors.flip(-1))).Q


def power_step(factor: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """One step of orthogonal iteration, and the order of the old vectors in the new basis.

    A direction that no gradient has stays as it is, where rounding would have turned it.
    """
    product = factor @ basis
    values = (basis * product).sum(-2)
    null = values <= smallest(values, factor.dtype)
    product = torch.where(null[:, None], basis, product)
    order = values.masked_fill(null, 0.0).argsort(dim=-1, descending=True, stable=True)
    return torch.linalg.qr(product.gather(-1, order[:, None].expand_as(product))).Q, order


def smallest(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The eigenvalue below which all is rounding, for each row of eigenvalues."""
    return values.amax(-1, keepdim=True).clamp(min=0) * values.shape[-1] * torch.finfo(dtype).eps
