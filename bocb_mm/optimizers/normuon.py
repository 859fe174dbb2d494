"""NorMuon: Muon whose neurons, the rows of a matrix, move alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bocb_mm.optimizers.base import Scalars, State, Tensors
from bocb_mm.optimizers.muon import Muon, muon_step
from bocb_mm.optimizers.orthogonal import as_matrix
from bocb_mm.optimizers.reductions import norms, per_tensor
from bocb_mm.optimizers.strict import require_number


class NorMuon(Muon):
    r"""Muon with the rows of the orthogonal matrix divided by the root of their mean square.

    With ``O`` of Muon: ``v = beta2 v + (1-beta2) mean_columns(O^2);  U = O / (sqrt(v) + eps)``,
    scaled back to ``|O|``, so that rates are those of Muon. The paper's algorithm has
    ``0.2 sqrt(rows columns)`` for ``|O|``; the authors' code is as here.

    Args:
        params: Parameters or groups.
        lr, momentum, nesterov, weight_decay, betas, eps, ns_steps: As in Muon.
        adjust_lr_fn, matrix, split: As in Muon.
        beta2: Decay of the rows' mean square.
        foreach, compile: Execution mode, see :mod:`.base`.

    Example:
        >>> p = torch.nn.Parameter(torch.zeros(1, 1)); p.grad = torch.ones(1, 1)
        >>> NorMuon([p], lr=0.5).step(); 0.3 < -p.item() < 0.6
        True

    Source: Li et al., NorMuon: making Muon more efficient and scalable, arXiv 2510.05491.
    """

    defaults = Muon.defaults | {'beta2': 0.95}

    @classmethod
    def check(cls, group: Any) -> None:
        """See the base class."""
        super().check(group)
        require_number('beta2', group['beta2'], below=1)

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """Muon's, and ``row_sq`` of a matrix."""
        state = super().init_state(p, group)
        return state | {'row_sq': p.new_zeros(len(p))} if self.kind(p, group) else state

    @staticmethod
    def update(params: Tensors, grads: Tensors, state: State, c: Scalars, s: Scalars) -> None:
        """As Muon's."""
        muon_step(params, grads, state, c, s, by_rows_)


def by_rows_(u: Tensors, state: State, s: Scalars) -> None:
    """Divide rows by the root of ``row_sq``, which is updated, and keep the norm of each tensor."""
    before = norms(u)
    matrices = [as_matrix(x) for x in u]
    squares = [torch.linalg.vector_norm(x, dim=1).square_().div_(x.shape[1]) for x in matrices]
    torch._foreach_lerp_(state['row_sq'], squares, 1 - s['beta2'])
    roots = torch._foreach_sqrt(state['row_sq'])
    torch._foreach_add_(roots, s['eps'])
    torch._foreach_div_(matrices, [r.unsqueeze(1) for r in roots])
    torch._foreach_mul_(u, per_tensor(before / norms(u).clamp(min=s['eps']), u))
