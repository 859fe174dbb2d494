"""SpeedHook: what makes a GPU faster and changes how results are rounded."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from bocb_mm.registry import HOOKS


@HOOKS.register_module()
class SpeedHook(Hook):
    """Lay convolution weights out as tensor cores read them; round float32 products to TF32.

    Neither changes what is computed, both change its last digits, so that runs to be compared
    should have the same. Shipped configs have this hook as ``default_hooks.speed``.

    Args:
        channels_last: Keep 4-D parameters with the channels innermost; activations follow. Saves
            cuDNN two transpositions a convolution under AMP. Values stay, rounding differs.
        tf32: ``True``: float32 convolutions and matrix products with 10 bits of mantissa instead
            of 23, from Ampere on; ``False``: neither; ``None``: PyTorch's default, which is
            convolutions only.

    Example:
        >>> custom_hooks = [dict(type='bocb_mm.SpeedHook', channels_last=True, tf32=True)]
    """

    priority = 'VERY_HIGH'  # before EMAHook copies the model

    def __init__(self, channels_last: bool = False, tf32: bool | None = None) -> None:
        self.channels_last, self.tf32 = channels_last, tf32

    def before_run(self, runner: Runner) -> None:
        """Set both before weights are loaded, which keeps their layout."""
        if self.tf32 is not None:
            torch.backends.cuda.matmul.allow_tf32 = self.tf32
            torch.backends.cudnn.allow_tf32 = self.tf32
        if self.channels_last:
            runner.model.to(memory_format=torch.channels_last)
