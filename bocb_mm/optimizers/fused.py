"""What PyTorch's fused kernels take for granted and do not check (torch 2.9.1).

They run where a user asks for ``fused=True``. Their faults, all without an error:

- They walk the memory of parameter, gradient and state side by side. Where these lie in different
  orders (channels-last) elements are mixed up; a parameter that is a part of a larger tensor
  (``big[:, :3]``) has other elements changed. (Other dtypes, as after ``model.bfloat16()``, fail.)
- SGD on a CPU leaves most elements of bfloat16 and float16 parameters as they are.
- SGD takes momentum buffers for fresh if the first one is missing. When the first step of a
  gradient scaler overflows, they stay memory that nothing was written to; a parameter whose
  gradient comes late fails.
"""

from __future__ import annotations

from typing import Any

import torch

from bocb_mm.optimizers.strict import SettingError


def prepare(optimizer: Any, group: dict[str, Any], params: list[torch.Tensor]) -> None:
    """Give gradients and state the layout of their parameters, start momentum buffers at 0.

    Raises:
        SettingError: The kernel would be wrong.
    """
    sgd = isinstance(optimizer, torch.optim.SGD)
    if sgd and group['momentum'] and group['dampening']:
        raise SettingError('fused=True with dampening: its first step is wrong; leave out fused')
    for p in params:
        _check(p, sgd)
        state = optimizer.state[p]
        if sgd and group['momentum'] and state.get('momentum_buffer') is None:
            state['momentum_buffer'] = torch.zeros_like(p)
        if p.grad is not None:
            p.grad = laid_as(p, p.grad)
        for key, value in state.items():
            if key != 'step' and value is not None:  # as torch saved SGD without momentum
                state[key] = laid_as(p, value.to(p.dtype))


def _check(p: torch.Tensor, sgd: bool) -> None:
    if torch.empty_like(p, device='meta').stride() != p.stride():
        raise SettingError(
            f'fused=True: a parameter of shape {tuple(p.shape)} is part of a larger tensor; leave '
            'out fused'
        )
    if sgd and p.device.type == 'cpu' and p.dtype not in (torch.float32, torch.float64):
        raise SettingError(f'fused=True: SGD on a CPU is wrong for {p.dtype}; leave out fused')


def laid_as(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """``t``, or a copy that lies in memory as ``p`` does."""
    if t.stride() == p.stride():
        return t
    return torch.empty_like(p, dtype=t.dtype, device=t.device).copy_(t)
