"""Multi-scale deformable attention (Zhu et al., ICLR 2021) on mmcv's own PyTorch form.

mmcv takes that form on the CPU by itself and calls these on a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Weighted sums of bilinear samples from maps of several sizes.

    Args:
        value: ``(n, keys, heads, channels)``, the maps one after the other.
        value_spatial_shapes: ``(levels, 2)`` height and width of each map.
        value_level_start_index: Not used: the maps lie without gaps.
        sampling_locations: ``(n, queries, heads, levels, points, 2)``, x and y in 0 .. 1.
        attention_weights: ``(n, queries, heads, levels, points)``.
        im2col_step: Not used: a matter of mmcv's kernel.

    Returns:
        ``(n, queries, heads * channels)``.
    """
    tensors = [_wide(t) for t in (value, sampling_locations, attention_weights)]
    return _attend(value_spatial_shapes, *tensors).to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Write the gradients of value, locations and weights; the forward pass is worked out anew."""
    given = (value, sampling_locations, attention_weights)
    leaves = [_wide(t.detach()).requires_grad_() for t in given]
    with torch.enable_grad():
        out = _attend(value_spatial_shapes, *leaves)
    grads = torch.autograd.grad(out, leaves, grad_output.to(out.dtype))
    for into, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads):
        into.copy_(grad)


def _attend(shapes: Tensor, value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    # Not at the top: mmcv.ops asks for this module while it is being imported itself.
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, shapes.tolist(), locations, weights)


def _wide(x: Tensor) -> Tensor:
    """``x`` in float32, or as it is where it has more."""
    return x if x.dtype == torch.float64 else x.float()
