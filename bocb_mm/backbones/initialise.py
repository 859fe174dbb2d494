"""How the official code of each network draws its weights, where the source library does not.

``tests/backbones/test_init.py`` checks the statistics. Networks that are not here (VGG,
MobileNetV2, ConvNeXt, MetaFormer and our own three) start right by themselves; ResNet starts as
mmpretrain's.
"""

from __future__ import annotations

import math

from torch import nn

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


def as_constructed(network: nn.Module) -> None:
    """Draw PyTorch's constructor defaults anew: U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    for module in network.modules():
        if hasattr(module, 'reset_parameters'):
            module.reset_parameters()  # type: ignore[operator]


def reset_norms(network: nn.Module) -> None:
    """Weight 1, bias 0 and fresh statistics for every norm layer."""
    for module in network.modules():
        if isinstance(module, _NORMS):
            module.reset_parameters()  # type: ignore[operator]


def densenet(network: nn.Module) -> None:
    """Convolutions N(0, 2 / fan_in) (torchvision; mmpretrain leaves PyTorch's defaults)."""
    reset_norms(network)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)


def efficientnet(network: nn.Module) -> None:
    """Convolutions N(0, 2 / fan_out), fan_out = kh * kw * out / groups, bias 0 (TensorFlow).

    TensorFlow's depthwise kernels have one output channel, hence the groups; mmpretrain leaves
    them out, which makes its depthwise weights sqrt(channels) times smaller.
    """
    reset_norms(network)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            _zero_bias(module)


def vision_transformer(network: nn.Module) -> None:
    """Linear layers, position table and class token N(0, 0.02²), bias 0 (DeiT).

    The patch convolution keeps PyTorch's default there, as DeiT's code touches linear layers only.
    """
    reset_norms(network)
    network.patch_embed.projection.reset_parameters()  # type: ignore[union-attr, operator]
    _linear_trunc_normal(network)
    nn.init.trunc_normal_(network.pos_embed, std=0.02)  # type: ignore[arg-type]
    nn.init.trunc_normal_(network.cls_token, std=0.02)  # type: ignore[arg-type]
    _reset_pyramid(network)


def mlp_mixer(network: nn.Module) -> None:
    """Every kernel LeCun normal, that is truncated N(0, 1 / fan_in); bias 0 (JAX)."""
    reset_norms(network)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            # JAX cuts at two standard deviations and corrects for what that takes away
            std = math.sqrt(1 / fan_in) / 0.87962566103423978
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
            _zero_bias(module)
    _reset_pyramid(network)


def swin(network: nn.Module) -> None:
    """Linear layers and relative position tables N(0, 0.02²), bias 0; patches as built."""
    reset_norms(network)
    network.patch_embed.projection.reset_parameters()  # type: ignore[union-attr, operator]
    _linear_trunc_normal(network)
    for name, weight in network.named_parameters():
        if name.endswith('relative_position_bias_table'):
            nn.init.trunc_normal_(weight, std=0.02)


def _linear_trunc_normal(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            _zero_bias(module)


def _zero_bias(module: nn.Conv2d | nn.Linear) -> None:
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _reset_pyramid(network: nn.Module) -> None:
    """The pyramid is ours: PyTorch's defaults, whatever went over it before."""
    pyramid = getattr(network, 'pyramid', None)
    if pyramid is not None:
        as_constructed(pyramid)
