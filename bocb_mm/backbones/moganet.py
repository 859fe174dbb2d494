"""MogaNet-S (Li et al., "MogaNet: multi-order gated aggregation network", ICLR 2024).

Written from the architecture's description and its published key names (Westlake-AI/MogaNet,
``models/moganet.py``), so that the official checkpoints load.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bocb_mm.backbones.hierarchical import DropPath, EmbeddedStagesNet, drop_path_rates
from bocb_mm.errors import UserError

_STEM_STRIDES = {1: (1, 1), 2: (2, 1), 4: (2, 2)}


class MogaNet(EmbeddedStagesNet):
    r"""MogaNet: gated aggregation of depthwise convolutions of three orders; default size Small.

    Each block is two residual halves, with a layer scale :math:`\gamma` each:

    .. math:: x \leftarrow x + \gamma_1\,\mathrm{attn}(\mathrm{BN}(x)), \qquad
              x \leftarrow x + \gamma_2\,\mathrm{mlp}(\mathrm{BN}(x))

    The batch-normalised map of a stage is its feature and the next stage's input.

    Args:
        in_channels: Channels of the image.
        num_classes: Classes of the classifier; ``None`` or 0 for none.
        channels: Channels of the four stages.
        depths: Blocks of the four stages.
        mlp_ratios: Hidden channels of the feed-forward part / channels, a stage.
        drop_path_rate: Stochastic depth of the last block; 0.1 in the official training of Small.
        init_value: Start value of layer scales and of the decomposition scales.
        stem_stride: Downsampling of the stem: 4 (ImageNet), 2 (what the paper says for 32x32
            images) or 1 (what its code base uses for them). Parameters are the same.
        attn_force_fp32: The gate in fp32. As in the official code this also applies both gate
            activations twice, which is another function: openmixup's configs set it.
        out_indices: Stages whose maps are returned.
        with_cp: Recompute each block in the backward pass.

    Raises:
        UserError: ``stem_stride`` is none of 1, 2, 4, or ``out_indices`` names a missing stage.

    Example:
        >>> net = MogaNet(num_classes=100, stem_stride=1)
        >>> net(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 100])
        >>> [tuple(m.shape) for m in net.forward_features(torch.zeros(1, 3, 32, 32))][::3]
        [(1, 64, 32, 32), (1, 512, 4, 4)]
    """

    blocks_name = 'blocks'

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int | None = None,
        channels: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (2, 3, 12, 2),
        mlp_ratios: Sequence[int] = (8, 8, 4, 4),
        drop_path_rate: float = 0.0,
        init_value: float = 1e-5,
        stem_stride: int = 4,
        attn_force_fp32: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        with_cp: bool = False,
    ) -> None:
        if stem_stride not in _STEM_STRIDES:
            raise UserError(f'stem_stride {stem_stride!r} of MogaNet is none of 1, 2, 4: give one')
        strides = tuple(stem_stride * 2**i for i in range(len(channels)))
        super().__init__(channels, strides, num_classes, out_indices, with_cp)
        rates = drop_path_rates(drop_path_rate, depths)
        for i in range(self.num_stages):
            embed: nn.Module
            if i == 0:
                embed = _Stem(in_channels, channels[0], _STEM_STRIDES[stem_stride])
            else:
                embed = _Downsample(channels[i - 1], channels[i])
            blocks = [
                MogaBlock(channels[i], mlp_ratios[i], rate, init_value, attn_force_fp32)
                for rate in rates[i]
            ]
            self.add_stage(i, embed, blocks, nn.BatchNorm2d(channels[i]))
        if self.num_classes:
            self.head = nn.Linear(channels[-1], self.num_classes)
        self.init_weights()

    def forward_stage(self, x: Tensor, index: int) -> Tensor:
        """Embedding, blocks and norm of stage ``index``."""
        embed, blocks, norm = self.stage_modules()[index]
        return norm(self.run_blocks(blocks, embed(x)))


class MogaBlock(nn.Module):
    """One block: gated aggregation over space, then aggregation over channels."""

    def __init__(
        self, channels: int, mlp_ratio: int, drop_path: float, init_value: float, force_fp32: bool
    ) -> None:
        super().__init__()
        self.layer_scale_1 = nn.Parameter(torch.full((1, channels, 1, 1), init_value))
        self.layer_scale_2 = nn.Parameter(torch.full((1, channels, 1, 1), init_value))
        self.norm1 = nn.BatchNorm2d(channels)
        self.attn = GatedAggregation(channels, init_value, force_fp32)
        self.norm2 = nn.BatchNorm2d(channels)
        self.mlp = ChannelAggregationFFN(channels, channels * mlp_ratio, init_value)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """A map ``(N, C, H, W)`` of the same shape."""
        x = x + self.drop_path(self.layer_scale_1 * self.attn(self.norm1(x)))
        return x + self.drop_path(self.layer_scale_2 * self.mlp(self.norm2(x)))


class GatedAggregation(nn.Module):
    r"""Spatial aggregation: :math:`z + W_2(\mathrm{SiLU}(W_g a) \cdot \mathrm{SiLU}(V(a)))`.

    Here :math:`a = \mathrm{SiLU}(u + \sigma(u - \bar u))` with :math:`u = W_1 z` and
    :math:`\bar u` its mean over the map; V stands for the three-order depthwise convolutions. Note
    that ``z`` (the normalised input) is added, not the block's input.
    """

    def __init__(self, channels: int, init_value: float, force_fp32: bool) -> None:
        super().__init__()
        self.proj_1 = nn.Conv2d(channels, channels, 1)
        self.gate = nn.Conv2d(channels, channels, 1)
        self.value = MultiOrderConv(channels)
        self.proj_2 = nn.Conv2d(channels, channels, 1)
        self.sigma = Decomposition(channels, init_value)
        self.force_fp32 = force_fp32

    def forward(self, z: Tensor) -> Tensor:
        """A map ``(N, C, H, W)`` of the same shape."""
        a = self.proj_1(z)
        a = F.silu(self.sigma(a, a.mean((2, 3), keepdim=True)))
        gate, value = self.gate(a), self.value(a)
        if not self.force_fp32:
            return self.proj_2(F.silu(gate) * F.silu(value)) + z
        with torch.autocast(z.device.type, enabled=False):
            gate, value = F.silu(F.silu(gate.float())), F.silu(F.silu(value.float()))
            return self.proj_2(gate * value) + z


class MultiOrderConv(nn.Module):
    """Depthwise convolutions of 5x5, then 5x5 dilated by 2 and 7x7 dilated by 3 on 3/8 and 4/8.

    The first eighth of the channels goes past the dilated ones.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle, high = channels * 3 // 8, channels * 4 // 8
        self.split = (channels - middle - high, middle, high)
        self.DW_conv0 = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.DW_conv1 = nn.Conv2d(middle, middle, 5, padding=4, dilation=2, groups=middle)
        self.DW_conv2 = nn.Conv2d(high, high, 7, padding=9, dilation=3, groups=high)
        self.PW_conv = nn.Conv2d(channels, channels, 1)

    def forward(self, a: Tensor) -> Tensor:
        """A map ``(N, C, H, W)`` of the same shape."""
        low, middle, high = self.DW_conv0(a).split(self.split, 1)
        return self.PW_conv(torch.cat((low, self.DW_conv1(middle), self.DW_conv2(high)), 1))


class ChannelAggregationFFN(nn.Module):
    """Feed-forward part whose hidden map is set off from what its channels have in common."""

    def __init__(self, channels: int, hidden: int, init_value: float) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        self.decompose = nn.Conv2d(hidden, 1, 1)
        self.sigma = Decomposition(hidden, init_value)

    def forward(self, x: Tensor) -> Tensor:
        """A map ``(N, C, H, W)`` of the same shape."""
        y = F.gelu(self.dwconv(self.fc1(x)))
        return self.fc2(self.sigma(y, F.gelu(self.decompose(y))))


class Decomposition(nn.Module):
    """``x + scale * (x - common)``: stress what sets ``x`` off from ``common``."""

    def __init__(self, channels: int, init_value: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, channels, 1, 1), init_value))

    def forward(self, x: Tensor, common: Tensor) -> Tensor:
        """A map of the shape of ``x``; ``common`` broadcasts to it."""
        if torch.is_grad_enabled():  # lerp's gradient costs more than those of the plain form
            return x + self.scale * (x - common)
        # One pass and no difference map stored. lerp takes a single dtype: under autocast the
        # maps are half, and go up to the scale's precision as a plain product would take them.
        dtype = torch.promote_types(x.dtype, self.scale.dtype)
        return torch.lerp(x.to(dtype), common.to(dtype), -self.scale.to(dtype))


class _Stem(nn.Module):
    """Two 3x3 convolutions with batch norm, a GELU between them."""

    def __init__(self, in_channels: int, channels: int, strides: tuple[int, int]) -> None:
        super().__init__()
        half = channels // 2
        self.projection = nn.Sequential(
            nn.Conv2d(in_channels, half, 3, stride=strides[0], padding=1),
            nn.BatchNorm2d(half),
            nn.GELU(),
            nn.Conv2d(half, channels, 3, stride=strides[1], padding=1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(x)


class _Downsample(nn.Module):
    """A 3x3 convolution of stride 2 with batch norm."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.projection(x))
