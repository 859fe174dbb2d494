"""UniRepLKNet-T (Ding et al., "UniRepLKNet: a universal perception large-kernel ConvNet", 2024).

Written from the architecture's description and its published key names (AILab-CVC/UniRepLKNet,
``unireplknet.py``), so that the official checkpoints load. All convolutions are torch's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bocb_mm.backbones.hierarchical import (
    ChannelLayerNorm,
    DropPath,
    HierarchicalNet,
    drop_path_rates,
    small_normal_,
)
from bocb_mm.errors import UserError

# Main kernel -> (kernel, dilation) of the branches beside it.
BRANCHES: dict[int, tuple[tuple[int, int], ...]] = {
    7: ((5, 1), (3, 2), (3, 3)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
}
TINY_KERNELS = ((3,) * 3, (13,) * 3, (13, 3) * 9, (13,) * 3)


class UniRepLKNet(HierarchicalNet):
    r"""UniRepLKNet: large depthwise kernels trained as sums of dilated ones; default size Tiny.

    .. math:: x \leftarrow x + \gamma\,\mathrm{BN}(W_2\,\mathrm{GRN}(\mathrm{GELU}(
              W_1\,\mathrm{SE}(\mathrm{BN}(\mathrm{dwconv}(x))))))

    With a classifier the keys are the official ones and the maps are the bare stage outputs.
    Without, the maps pass through a channel layer norm each (``norm0`` ...), as in the official
    feature mode; the next stage still takes the bare map.

    Args:
        in_channels: Channels of the image.
        num_classes: Classes of the classifier; ``None`` or 0 for none.
        channels: Channels of the four stages.
        kernels: Depthwise kernel of every block, a tuple a stage; 3 and 5 are plain convolutions.
        drop_path_rate: Stochastic depth of the last block; 0.2 in the official training of Tiny.
        init_value: Start value of the layer scales.
        gap_before_final_norm: For classification with the head elsewhere, named as in mmpretrain's
            ConvNeXt: the last map is averaged first and normalised then, as in the official
            classifier (key ``norm``), and is returned as a vector ``(N, C)``.
        deploy: Build the merged structure that :meth:`switch_to_deploy` makes.
        out_indices: Stages whose maps are returned.
        with_cp: Recompute each block in the backward pass.

    Raises:
        UserError: A kernel has no table of branches, or ``out_indices`` names a missing stage.

    Example:
        >>> net = UniRepLKNet(out_indices=(1, 2, 3)).eval()
        >>> [tuple(m.shape) for m in net(torch.zeros(1, 3, 64, 50))]
        [(1, 160, 8, 7), (1, 320, 4, 4), (1, 640, 2, 2)]
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int | None = None,
        channels: Sequence[int] = (80, 160, 320, 640),
        kernels: Sequence[Sequence[int]] = TINY_KERNELS,
        drop_path_rate: float = 0.0,
        init_value: float = 1e-6,
        gap_before_final_norm: bool = False,
        deploy: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        with_cp: bool = False,
    ) -> None:
        strides = tuple(4 * 2**i for i in range(len(channels)))
        super().__init__(channels, strides, num_classes, out_indices, with_cp)
        rates = drop_path_rates(drop_path_rate, [len(k) for k in kernels])
        self.downsample_layers = nn.ModuleList()
        self.stages = nn.ModuleList()
        for i in range(self.num_stages):
            before = channels[i - 1] if i else in_channels
            self.downsample_layers.append((_downsample if i else _stem)(before, channels[i]))
            blocks = [
                UniRepLKBlock(channels[i], kernel, rate, init_value)
                for kernel, rate in zip(kernels[i], rates[i], strict=True)
            ]
            self.stages.append(nn.Sequential(*blocks))
        self.gap_before_final_norm = gap_before_final_norm and not self.num_classes
        if self.num_classes or self.gap_before_final_norm:
            self.norm = nn.LayerNorm(channels[self.num_stages - 1], eps=1e-6)
        else:
            for i in self.out_indices:
                self.add_module(f'norm{i}', ChannelLayerNorm(channels[i]))
        if self.num_classes:
            self.head = nn.Linear(channels[-1], self.num_classes)
        self.init_weights()
        if deploy:
            self.switch_to_deploy()

    def init_weights(self) -> None:
        """Draw convolutions and linear layers anew, as the official code does."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                small_normal_(module)

    def stage_modules(self) -> tuple[tuple[nn.Module, ...], ...]:
        """Downsampling and blocks of each stage, and its feature norm where it has one."""
        norms = [getattr(self, f'norm{i}', None) for i in range(self.num_stages)]
        return tuple(
            (down, blocks) if norm is None else (down, blocks, norm)
            for down, blocks, norm in zip(self.downsample_layers, self.stages, norms)
        )

    def forward_stage(self, x: Tensor, index: int) -> Tensor:
        """Downsampling and blocks of stage ``index``."""
        return self.run_blocks(self.stages[index], self.downsample_layers[index](x))

    def forward_feature(self, x: Tensor, index: int) -> Tensor:
        """The map with the stage's feature norm; a vector for ``gap_before_final_norm``."""
        if self.gap_before_final_norm and index == self.num_stages - 1:
            return self.norm(x.mean((2, 3)))
        norm = getattr(self, f'norm{index}', None)
        return x if norm is None else norm(x)

    def forward_head(self, x: Tensor) -> Tensor:
        """Mean over the map, layer norm, linear classifier."""
        return self.head(self.norm(x.mean((2, 3))))

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Merge each block's branches, norms and scales into its convolutions, for inference only.

        The outputs in eval mode stay the same up to rounding. Calling it again does nothing.
        """
        for block in self.modules():
            if isinstance(block, UniRepLKBlock):
                block.switch_to_deploy()


class UniRepLKBlock(nn.Module):
    """One block: depthwise convolution, squeeze and excitation, feed-forward part with GRN."""

    def __init__(self, channels: int, kernel: int, drop_path: float, init_value: float) -> None:
        super().__init__()
        hidden = 4 * channels
        self.gamma: nn.Parameter | None = nn.Parameter(torch.full((channels,), init_value))
        self.dwconv: nn.Module
        if kernel in (3, 5):
            self.dwconv = _depthwise(channels, kernel)
        else:
            self.dwconv = DilatedReparamConv(channels, kernel)
        self.norm: nn.Module = nn.BatchNorm2d(channels)
        self.se = SqueezeExcite(channels, channels // 4)
        self.pwconv1 = nn.Sequential(_ToChannelsLast(), nn.Linear(channels, hidden))
        self.act = nn.Sequential(nn.GELU(), GlobalResponseNorm(hidden))
        self.pwconv2 = nn.Sequential(
            nn.Linear(hidden, channels, bias=False), _ToChannelsFirst(), nn.BatchNorm2d(channels)
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """A map ``(N, C, H, W)`` of the same shape."""
        y = self.pwconv2(self.act(self.pwconv1(self.se(self.norm(self.dwconv(x))))))
        if self.gamma is not None:
            y = self.gamma.view(-1, 1, 1) * y
        return x + self.drop_path(y)

    def switch_to_deploy(self) -> None:
        """Fold both batch norms, GRN's shift and the layer scale; see the official section."""
        if self.gamma is None:
            return
        scale, shift = _affine(self.norm)
        if isinstance(self.dwconv, DilatedReparamConv):
            self.dwconv.switch_to_deploy(scale, shift)
        else:
            kernel = self.dwconv.weight * scale.view(-1, 1, 1, 1)
            self.dwconv = _merged_conv(kernel, shift)
        self.norm = nn.Identity()

        linear, norm, grn = self.pwconv2[0], self.pwconv2[2], self.act[1]
        scale, shift = _affine(norm)
        merged = nn.Linear(linear.in_features, linear.out_features).to(linear.weight)
        merged.weight.copy_(linear.weight * (self.gamma * scale)[:, None])
        merged.bias.copy_((shift + scale * (linear.weight @ grn.beta.flatten())) * self.gamma)
        self.pwconv2 = nn.Sequential(merged, _ToChannelsFirst())
        grn.beta = None
        self.gamma = None


class DilatedReparamConv(nn.Module):
    r"""A large depthwise convolution plus smaller dilated ones, each with its own batch norm.

    .. math:: y = \mathrm{BN}(K * x) + \sum_b \mathrm{BN}_b(K_b *_{r_b} x)

    While the batch norms use running statistics they are affine maps, and the whole is the one
    convolution with the kernel :math:`sK + \sum_b s_b\,\mathrm{dilate}_{r_b}(K_b)`: it is run as
    such, with gradients to every branch. In training each branch's batch statistics are needed.

    Args:
        channels: C, in and out.
        kernel: Size of the large kernel, a key of ``BRANCHES``.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        if kernel not in BRANCHES:
            raise UserError(
                f'UniRepLKNet has no branches for kernel {kernel}; give one of 3, 5, '
                f'{", ".join(map(str, BRANCHES))}'
            )
        self.kernel, self.branches = kernel, BRANCHES[kernel]
        self.lk_origin = _depthwise(channels, kernel)
        self.origin_bn = nn.BatchNorm2d(channels)
        for k, r in self.branches:
            self.add_module(f'dil_conv_k{k}_{r}', _depthwise(channels, k, r))
            self.add_module(f'dil_bn_k{k}_{r}', nn.BatchNorm2d(channels))

    def pairs(self) -> list[tuple[Any, Any]]:
        """Convolution and batch norm of every branch, the large one first."""
        names = [(f'dil_conv_k{k}_{r}', f'dil_bn_k{k}_{r}') for k, r in self.branches]
        return [
            (getattr(self, c), getattr(self, n)) for c, n in [('lk_origin', 'origin_bn'), *names]
        ]

    def forward(self, x: Tensor) -> Tensor:
        """A map ``(N, C, H, W)`` of the same shape."""
        if not hasattr(self, 'origin_bn'):
            return self.lk_origin(x)
        pairs = self.pairs()
        if any(norm.training for _, norm in pairs):
            return sum(norm(conv(x)) for conv, norm in pairs)
        kernel, bias = self.merged_kernel()
        return F.conv2d(x, kernel, bias, padding=self.kernel // 2, groups=kernel.shape[0])

    def merged_kernel(self) -> tuple[Tensor, Tensor]:
        """Kernel ``(C, 1, K, K)`` and bias ``(C,)`` of the equivalent single convolution."""
        (conv, norm), *others = self.pairs()
        scale, bias = _affine(norm)
        kernel = conv.weight * scale.view(-1, 1, 1, 1)
        for conv, norm in others:
            scale, shift = _affine(norm)
            step = conv.dilation[0]
            start = self.kernel // 2 - step * (conv.kernel_size[0] // 2)
            taps = slice(start, self.kernel - start, step)
            kernel[:, :, taps, taps] += conv.weight * scale.view(-1, 1, 1, 1)
            bias = bias + shift
        return kernel, bias

    def switch_to_deploy(self, scale: Tensor, shift: Tensor) -> None:
        """Keep one convolution, followed by ``scale * y + shift`` folded into it."""
        kernel, bias = self.merged_kernel()
        for k, r in self.branches:
            delattr(self, f'dil_conv_k{k}_{r}')
            delattr(self, f'dil_bn_k{k}_{r}')
        del self.origin_bn
        self.lk_origin = _merged_conv(kernel * scale.view(-1, 1, 1, 1), bias * scale + shift)


class SqueezeExcite(nn.Module):
    """Scale every channel by a sigmoid gate computed from the means of all channels."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, hidden, 1)
        self.up = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """A map ``(N, C, H, W)`` of the same shape."""
        means = x.mean((2, 3), keepdim=True)
        return x * self.up(F.relu(self.down(means))).sigmoid()


class GlobalResponseNorm(nn.Module):
    r"""GRN: :math:`(\gamma\,G / \bar G + 1)\,t + \beta` with G the L2 norm of a channel's map.

    Source: Woo et al., "ConvNeXt V2", CVPR 2023; here the 1 stands for its shortcut.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta: nn.Parameter | None = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, t: Tensor) -> Tensor:
        """A map ``(N, H, W, C)`` of the same shape."""
        # Not linalg.vector_norm: along these dimensions it takes ten times as long on a CPU (torch
        # 2.9.1). The least value keeps the root's gradient finite for a channel that is all zero.
        wide = t.to(torch.promote_types(t.dtype, torch.float32))
        norm = wide.square().sum((1, 2), keepdim=True).clamp_min(1e-24).sqrt()
        factor = self.gamma * (norm / (norm.mean(-1, keepdim=True) + 1e-6)) + 1
        factor = factor.to(torch.promote_types(t.dtype, self.gamma.dtype))
        return factor * t if self.beta is None else torch.addcmul(self.beta, factor, t)


class _ToChannelsLast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class _ToChannelsFirst(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


def _stem(in_channels: int, channels: int) -> nn.Sequential:
    half = channels // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, half, 3, stride=2, padding=1),
        ChannelLayerNorm(half),
        nn.GELU(),
        nn.Conv2d(half, channels, 3, stride=2, padding=1),
        ChannelLayerNorm(channels),
    )


def _downsample(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, stride=2, padding=1), ChannelLayerNorm(channels)
    )


def _depthwise(channels: int, kernel: int, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel - 1) // 2
    return nn.Conv2d(
        channels,
        channels,
        kernel,
        padding=padding,
        dilation=dilation,
        groups=channels,
        bias=False,
    )


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift that a batch norm amounts to in eval mode, (C,) each."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


def _merged_conv(kernel: Tensor, bias: Tensor) -> nn.Conv2d:
    """A depthwise convolution with the given kernel ``(C, 1, K, K)`` and bias."""
    channels, size = kernel.shape[0], kernel.shape[-1]
    conv = nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels).to(kernel)
    conv.weight.data.copy_(kernel)
    conv.bias.data.copy_(bias)
    return conv
