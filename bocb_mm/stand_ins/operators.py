"""The table of mmcv's operators that have a stand-in, and what happens to the others."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

import torchvision

from bocb_mm.errors import UserError
from bocb_mm.stand_ins import attention, deform_conv, focal_loss, nms, roi
from bocb_mm.stand_ins.advice import COMPILE

#: What a compiled operator says of a device or a number format that it was not built for.
_NOT_BUILT_FOR = re.compile(
    'implementation for device|ot compiled with GPU support|not implemented for'
)


def get_compiler_version() -> str:
    """What mmcv's report of the environment shows as its compiler."""
    return f'none: bocb_mm stand-ins on torchvision {torchvision.__version__}'


def get_compiling_cuda_version() -> str:
    """What mmcv's report of the environment shows as its CUDA."""
    return 'not available'


#: Name within ``mmcv._ext`` -> function with the same arguments.
OPERATORS: dict[str, Callable[..., Any]] = {
    'nms': nms.nms,
    'softnms': nms.softnms,
    'nms_match': nms.nms_match,
    'roi_align_forward': roi.roi_align_forward,
    'roi_align_backward': roi.roi_align_backward,
    'roi_pool_forward': roi.roi_pool_forward,
    'roi_pool_backward': roi.roi_pool_backward,
    'deform_conv_forward': deform_conv.deform_conv_forward,
    'deform_conv_backward_input': deform_conv.deform_conv_backward_input,
    'deform_conv_backward_parameters': deform_conv.deform_conv_backward_parameters,
    'modulated_deform_conv_forward': deform_conv.modulated_deform_conv_forward,
    'modulated_deform_conv_backward': deform_conv.modulated_deform_conv_backward,
    'sigmoid_focal_loss_forward': focal_loss.sigmoid_focal_loss_forward,
    'sigmoid_focal_loss_backward': focal_loss.sigmoid_focal_loss_backward,
    'ms_deform_attn_forward': attention.ms_deform_attn_forward,
    'ms_deform_attn_backward': attention.ms_deform_attn_backward,
    'get_compiler_version': get_compiler_version,
    'get_compiling_cuda_version': get_compiling_cuda_version,
}


def missing(name: str) -> Callable[..., NoReturn]:
    """A function that says what the operator ``name`` needs, when it is called.

    Example:
        >>> missing('carafe_forward')()
        Traceback (most recent call last):
            ...
        bocb_mm.errors.UserError: mmcv's operator 'carafe_forward' needs the compiled mmcv: ...
    """

    def call(*args: Any, **kwargs: Any) -> NoReturn:
        raise UserError(f"mmcv's operator {name!r} needs the compiled mmcv: {COMPILE}")

    call.__name__ = name
    return call


def complete(module: ModuleType) -> None:
    """Let stand-ins take the calls that a compiled ``mmcv._ext`` was not built for.

    Each operator of the module stays; only where it refuses the device or the number format (an
    mmcv compiled without CUDA on a GPU, bfloat16 in its focal loss) does ours run instead.
    """
    for name, ours in OPERATORS.items():
        compiled = getattr(module, name, None)
        setattr(module, name, ours if compiled is None else _compiled_first(compiled, ours))


def _compiled_first(compiled: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(compiled)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return compiled(*args, **kwargs)
        except RuntimeError as error:
            if not _NOT_BUILT_FOR.search(str(error)):
                raise
        return ours(*args, **kwargs)

    return call
