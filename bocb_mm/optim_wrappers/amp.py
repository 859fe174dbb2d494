"""``bocb_mm.AmpOptimWrapper``: mixed precision on a GPU or on the CPU, in bf16 or fp16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper as MMAmpOptimWrapper
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from bocb_mm.compat import read_bfloat16_in_mmpose
from bocb_mm.errors import UserError
from bocb_mm.registry import OPTIM_WRAPPERS

_DTYPES = {'float16': torch.float16, 'bfloat16': torch.bfloat16}


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(MMAmpOptimWrapper):
    """mmengine's AmpOptimWrapper that also runs without a GPU.

    Departs from mmengine 0.10.7: it runs on the CPU; bf16, whose range is that of fp32, has no
    loss scale; gradients are unscaled before the step whether or not they are clipped, so that
    clipping, step hooks and every optimizer read true gradients; in fp16 a step with gradients that
    are not finite is left out.

    Args:
        loss_scale: ``'dynamic'``, a fixed scale, or a dict of ``torch.amp.GradScaler`` arguments.
        dtype: ``'float16'`` or ``'bfloat16'``; None is fp16 on CUDA and bf16 elsewhere.
        **kwargs: Arguments of mmengine's OptimWrapper (``optimizer``, ``accumulative_counts``,
            ``clip_grad``).

    Raises:
        UserError: A dtype or loss scale of another kind.

    Example:
        >>> optim_wrapper = dict(
        ...     type='bocb_mm.AmpOptimWrapper',
        ...     dtype='bfloat16',
        ...     optimizer=dict(type='bocb_mm.AdamW', lr=1e-3),
        ... )
    """

    def __init__(
        self,
        loss_scale: str | float | dict[str, Any] = 'dynamic',
        dtype: str | torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        # mmengine's own __init__ refuses to run without a GPU, so its parent's is called.
        OptimWrapper.__init__(self, **kwargs)
        self.device_type = torch.device(get_device()).type
        self.cast_dtype = _dtype(dtype, self.device_type)
        if self.cast_dtype is torch.bfloat16:
            read_bfloat16_in_mmpose()
        self._scale_update_param = None
        scaling: dict[str, Any] = {'enabled': self.cast_dtype is torch.float16}
        if isinstance(loss_scale, dict):
            scaling.update(loss_scale)
        elif isinstance(loss_scale, (int, float)) and not isinstance(loss_scale, bool):
            self._scale_update_param = scaling['init_scale'] = float(loss_scale)
        elif loss_scale != 'dynamic':
            raise UserError(f'loss_scale={loss_scale!r}: expected "dynamic", a number or a dict')
        self.loss_scaler = torch.amp.GradScaler(self.device_type, **scaling)

    def step(self, **kwargs: Any) -> None:
        """Unscale, clip if asked to, step if all gradients are finite, and adapt the scale."""
        if self.loss_scaler.is_enabled():
            self.loss_scaler.unscale_(self.optimizer)
        if self.clip_grad_kwargs:
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update(self._scale_update_param if self.loss_scaler.is_enabled() else None)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state over; that of a bf16 training has no loss scale, which starts anew then."""
        if not state_dict.get('loss_scaler'):
            state_dict = {k: v for k, v in state_dict.items() if k != 'loss_scaler'}
        super().load_state_dict(state_dict)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast for the forward; under accumulation without gradient synchronisation."""
        with OptimWrapper.optim_context(self, model), self.autocast():
            yield

    def autocast(self) -> torch.autocast:
        """The autocast context of one forward."""
        return torch.autocast(self.device_type, dtype=self.cast_dtype)

    def scale_for_backward(self, loss: Tensor) -> tuple[Tensor, float]:
        """``loss`` times the loss scale, and the factor that undoes it on the gradients."""
        return self.loss_scaler.scale(loss), 1.0 / self.loss_scaler.get_scale()


def _dtype(dtype: str | torch.dtype | None, device_type: str) -> torch.dtype:
    if dtype is None:
        return torch.float16 if device_type == 'cuda' else torch.bfloat16
    found = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found not in _DTYPES.values():
        raise UserError(f'dtype={dtype!r}: expected one of {", ".join(_DTYPES)}')
    return found
