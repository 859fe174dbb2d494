"""Muon: momentum whose matrices are orthogonalised; AdamW for what is no hidden matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from bocb_mm.optimizers.base import MultiTensorOptimizer, Scalars, State, Tensors
from bocb_mm.optimizers.foreach import add_scaled_
from bocb_mm.optimizers.halves import Halves
from bocb_mm.optimizers.moments import adam_coefficients, adam_direction
from bocb_mm.optimizers.orthogonal import as_matrix, laid_out, orthogonalise_
from bocb_mm.optimizers.strict import require

AUX_RATIO = {'original': 0.05, 'match_rms_adamw': 1.0}
"""Rate of AdamW that moves a weight as far as rate 1 of the matrix update does, by scale."""


def auxiliary_rates(settings: Mapping[str, Any]) -> tuple[float, float]:
    """AdamW's rate and decay of the same strength as those of the matrix half."""
    ratio = AUX_RATIO[settings['adjust_lr_fn']]
    return settings['lr'] * ratio, settings['weight_decay'] / ratio


class Muon(MultiTensorOptimizer):
    r"""Momentum, orthogonalised: each hidden matrix moves in all its directions alike.

    For a matrix (a kernel is (out, in*k*k)), with ``O`` of :mod:`.orthogonal`::

        m = b m + (1-b) g;  u = (1-b) g + b m (nesterov) or m
        p = p (1 - lr weight_decay) - lr s O(u)

    ``s = sqrt(max(1, rows / columns))`` with ``adjust_lr_fn='original'``, the author's; or
    ``0.2 sqrt(max(rows, columns))`` with ``'match_rms_adamw'``, where rate and decay are those of
    AdamW (original: rates 20 times as large, decays 20 times as small).

    All else takes AdamW: groups with ``matrix=False`` at their own ``lr``, and parameters of at
    most one dimension in the others, at ``lr`` times :data:`AUX_RATIO`. Heads, stems, depthwise
    kernels and embeddings belong there, which only the model tells:
    ``bocb_mm.OptimWrapperConstructor`` and ``bocb_mm.optim_wrappers.param_groups`` do.

    Args:
        params: Parameters or groups.
        lr: Learning rate of the matrices.
        momentum: Decay of the momentum.
        nesterov: Look one step ahead.
        weight_decay: Decoupled, in both halves.
        betas, eps: Of the AdamW.
        ns_steps: Newton-Schulz iterations.
        adjust_lr_fn: Scale of an update, see above; the names are torch's.
        matrix: Whether the matrices of a group take the matrix update; meant to be set by group.
        split: Matrices of equal size in each weight of a group, one below the other: 3 for a
            fused qkv.
        foreach, compile: Execution mode, see :mod:`.base`.

    Example:
        >>> p = torch.nn.Parameter(torch.zeros(1, 1)); p.grad = torch.ones(1, 1)
        >>> Muon([p], lr=0.5).step(); 0.3 < -p.item() < 0.6
        True

    Source: Jordan et al. 2024 (kellerjordan.github.io/posts/muon); the second scale: Liu et al.,
    Muon is scalable for LLM training, arXiv 2502.16982.
    """

    defaults = {
        'lr': 0.02,
        'momentum': 0.95,
        'nesterov': True,
        'weight_decay': 0.0,
        'betas': (0.9, 0.999),
        'eps': 1e-8,
        'ns_steps': 5,
        'adjust_lr_fn': 'original',
        'matrix': True,
        'split': 1,
    }
    elementwise = False
    ranges = {'momentum': (0.0, 1.0)}
    halves = Halves({'matrix': True}, {'matrix': False}, auxiliary_rates, splits=True)

    @classmethod
    def check(cls, group: Mapping[str, Any]) -> None:
        """See the base class."""
        super().check(group)
        for name in ('ns_steps', 'split'):
            value = group[name]
            require(type(value) is int and value > 0, name, value, 'a whole number above 0')
        scale, known = group['adjust_lr_fn'], ' or '.join(map(repr, AUX_RATIO))
        require(scale in AUX_RATIO, 'adjust_lr_fn', scale, known)

    @staticmethod
    def kind(p: Tensor, group: dict[str, Any]) -> bool:
        """Whether the parameter takes the matrix update."""
        return bool(group['matrix']) and p.dim() > 1

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """``momentum_buffer`` of a matrix, Adam's two moments of the others."""
        names = ('momentum_buffer',) if self.kind(p, group) else ('exp_avg', 'exp_avg_sq')
        return {name: torch.zeros_like(p) for name in names}

    @staticmethod
    def coefficients(group: dict[str, Any], step: int) -> Scalars:
        """Step sizes of both halves, shrink factor, and those of Adam's direction."""
        lr = group['lr']
        ratio = AUX_RATIO[group['adjust_lr_fn']] if group['matrix'] else 1.0
        shrink = 1 - lr * group['weight_decay']
        adam = adam_coefficients(group, step)
        return adam | {'step': -lr, 'aux_step': -lr * ratio, 'shrink': shrink}

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """One buffer, and the stacks of one shape with their products."""
        muon_step(params, grads, state, c, s)


def muon_step(
    params: Tensors,
    grads: Tensors,
    state: State,
    c: Scalars,
    s: Scalars,
    normalise: Callable[[Tensors, State, Scalars], None] | None = None,
) -> None:
    """:meth:`Muon.update`, with what a relative does to the orthogonal matrices in between."""
    if not s['kind']:
        u = adam_direction(grads, state, c, s)
        torch._foreach_mul_(params, c['shrink'])
        add_scaled_(params, u, c['aux_step'])
        return
    momentum, b = state['momentum_buffer'], s['momentum']
    torch._foreach_lerp_(momentum, grads, 1 - b)
    u = torch._foreach_lerp(grads, momentum, b if s['nesterov'] else 1.0)
    u = [laid_out(x) for x in u]
    orthogonalise_(u, s['split'], s['ns_steps'])
    if normalise is not None:
        normalise(u, state, s)
    torch._foreach_mul_(u, [scale(x, s['split'], s['adjust_lr_fn']) for x in u])
    torch._foreach_mul_(params, c['shrink'])
    add_scaled_(params, u, c['step'])


def scale(t: Tensor, split: int, rule: str) -> float:
    """``s`` of the class, for the matrices that ``t`` holds."""
    rows, columns = as_matrix(t).shape
    rows = rows // split if rows % split == 0 else rows
    if rule == 'original':
        return math.sqrt(max(1.0, rows / columns))
    return 0.2 * math.sqrt(max(rows, columns))
