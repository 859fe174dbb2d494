"""Deformable convolution, versions 1 and 2 (Dai et al., ICCV 2017; Zhu et al., CVPR 2019).

Both on torchvision's kernel. mmcv hands the backward pass no graph, so it works the forward pass
out once more: a step costs one more forward. float16 and bfloat16 are worked out in float32.
The arguments are those of mmcv's functions: strides, paddings and dilations in pixels; what was a
buffer of its kernels (``columns``, ``ones``) is not used.
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the convolution of ``input`` sampled at the ``offset`` places into ``output``."""
    geometry = ((dH, dW), (padH, padW), (dilationH, dilationW))
    output.copy_(_convolve(_wide(input, weight, offset), None, None, *geometry))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the gradients of the input and of the offsets."""
    geometry = ((dH, dW), (padH, padW), (dilationH, dilationW))
    tensors = _leaves(input, weight, offset)
    with torch.enable_grad():
        out = _convolve(tensors, None, None, *geometry)
    grads = torch.autograd.grad(out, (tensors[0], tensors[2]), gradOutput.to(out.dtype))
    gradInput.copy_(grads[0])
    gradOffset.copy_(grads[1])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add ``scale`` times the gradient of the weights, whose shape ``gradWeight`` has."""
    geometry = ((dH, dW), (padH, padW), (dilationH, dilationW))
    # The convolution is linear in its weights, so their values play no part.
    tensors = _leaves(input, torch.zeros_like(gradWeight), offset)
    with torch.enable_grad():
        out = _convolve(tensors, None, None, *geometry)
    (grad,) = torch.autograd.grad(out, (tensors[1],), gradOutput.to(out.dtype))
    gradWeight.add_(grad.to(gradWeight.dtype), alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write the convolution whose samples are weighted by ``mask`` into ``output``."""
    geometry = ((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w))
    *tensors, mask, bias = _wide(input, weight, offset, mask, bias)
    output.copy_(_convolve(tensors, mask, bias if with_bias else None, *geometry))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write the gradients of all five tensors."""
    geometry = ((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w))
    leaves = _leaves(input, weight, offset, mask)
    with torch.enable_grad():
        out = _convolve(leaves[:3], leaves[3], None, *geometry)
    wide = grad_output.to(out.dtype)
    written = (grad_input, grad_weight, grad_offset, grad_mask)
    for into, grad in zip(written, torch.autograd.grad(out, leaves, wide)):
        into.copy_(grad)
    if with_bias:
        grad_bias.copy_(wide.sum((0, 2, 3)))


def _convolve(
    tensors: list[Tensor],
    mask: Tensor | None,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    """The convolution; torchvision reads the groups from the shapes of the three tensors."""
    input, weight, offset = tensors
    return torchvision.ops.deform_conv2d(
        input, offset, weight, bias, stride, padding, dilation, mask
    )


def _wide(*tensors: Tensor) -> list[Tensor]:
    """All in float32, or as they are where they have more."""
    return [t if t.dtype == torch.float64 else t.float() for t in tensors]


def _leaves(*tensors: Tensor) -> list[Tensor]:
    """Wide copies that collect gradients."""
    return [t.detach().requires_grad_() for t in _wide(*tensors)]
