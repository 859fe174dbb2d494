"""TransNeXt-Tiny (Shi, "TransNeXt: robust foveal visual perception for ViTs", CVPR 2024).

Written from the architecture's description and its published key names (DaiShiResearch/TransNeXt,
``classification/transnext.py``, ``detection/maskrcnn/transnext_native.py``), so that the official
checkpoints load. It takes any image size; no CUDA kernel is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from bocb_mm.backbones.hierarchical import DropPath, EmbeddedStagesNet, drop_path_rates
from bocb_mm.backbones.transnext_attention import (
    AggregatedAttention,
    FullAttention,
    Grid,
    make_grid,
)


class TransNeXt(EmbeddedStagesNet):
    r"""TransNeXt: attention to a 3x3 window and a pooled map at once; default size Tiny.

    .. math:: x \leftarrow x + \mathrm{attn}(\mathrm{LN}(x)), \qquad
              x \leftarrow x + \mathrm{GLU}(\mathrm{LN}(x))

    The layer-normalised map of a stage is its feature and the next stage's input.

    Args:
        in_channels: Channels of the image.
        num_classes: Classes of the classifier; ``None`` or 0 for none.
        channels: Channels of the four stages.
        heads: Heads of the four stages.
        depths: Blocks of the four stages.
        mlp_ratios: Hidden channels of the gated part x 1.5 / channels, a stage.
        pool_ratios: Pixels per pooled key and axis, a stage; 1 for full attention.
        drop_path_rate: Stochastic depth of the last block; officially 0.25 for pre-training of Tiny
            and 0.4 for detection.
        pretrain_size: Side of the images in pre-training, which sets the unit of the position
            bias.
        img_size: Side of the images whose bias is resized if ``interpolate_bias``.
        interpolate_bias: Compute the position bias for ``img_size`` and resize it to the image at
            hand, as the official detection configs do (with img_size 800), instead of computing it
            for the image at hand.
        out_indices: Stages whose maps are returned.
        with_cp: Recompute each block in the backward pass.

    Raises:
        UserError: ``out_indices`` names a missing stage.

    Example:
        >>> import torch
        >>> net = TransNeXt(out_indices=(2, 3)).eval()
        >>> [tuple(m.shape) for m in net(torch.zeros(1, 3, 64, 50))]
        [(1, 288, 4, 4), (1, 576, 2, 2)]
    """

    blocks_name = 'block'

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int | None = None,
        channels: Sequence[int] = (72, 144, 288, 576),
        heads: Sequence[int] = (3, 6, 12, 24),
        depths: Sequence[int] = (2, 2, 15, 2),
        mlp_ratios: Sequence[int] = (8, 8, 4, 4),
        pool_ratios: Sequence[int] = (8, 4, 2, 1),
        drop_path_rate: float = 0.0,
        pretrain_size: int = 224,
        img_size: int = 224,
        interpolate_bias: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        with_cp: bool = False,
    ) -> None:
        strides = tuple(4 * 2**i for i in range(len(channels)))
        super().__init__(channels, strides, num_classes, out_indices, with_cp)
        self.pool_ratios = tuple(pool_ratios)
        # Side of each stage's map in pre-training, and of the one the bias is resized from.
        self.bases = tuple(pretrain_size // s for s in strides)
        self.bias_sides = tuple(img_size // s for s in strides) if interpolate_bias else None
        self.min_size = max(s * r for s, r in zip(strides[: self.num_stages], pool_ratios))
        rates = drop_path_rates(drop_path_rate, depths)
        for i in range(self.num_stages):
            c = channels[i]
            embed = (
                _PatchEmbed(channels[i - 1], c, 3, 2) if i else _PatchEmbed(in_channels, c, 7, 4)
            )
            hidden = 2 * c * mlp_ratios[i] // 3
            attention = AggregatedAttention if pool_ratios[i] > 1 else FullAttention
            blocks = [TransNeXtBlock(c, attention(c, heads[i]), hidden, rate) for rate in rates[i]]
            self.add_stage(i, embed, blocks, nn.LayerNorm(c, eps=1e-6))
        if self.num_classes:
            self.head = nn.Linear(channels[-1], self.num_classes)
        self.init_weights()

    def forward_stage(self, x: Tensor, index: int) -> Tensor:
        """Embedding, blocks and norm of stage ``index``."""
        embed, blocks, norm = self.stage_modules()[index]
        x, size = embed(x)
        grids = self._grids(size, index, x)
        x = norm(self.run_blocks(blocks, x, *grids))
        return x.transpose(1, 2).unflatten(2, size)

    def forward_feature(self, x: Tensor, index: int) -> Tensor:
        """The map, laid out as other networks' maps are."""
        return x.contiguous()

    def _grids(self, size: tuple[int, int], index: int, x: Tensor) -> tuple[Grid, Grid | None]:
        """The grid of the map at hand, and the one to resize the position bias from, if any."""
        ratio = self.pool_ratios[index]

        def grid(height: int, width: int) -> Grid:
            pooled = (height // ratio, width // ratio)
            return make_grid((height, width), pooled, self.bases[index], x.device)

        side = self.bias_sides[index] if self.bias_sides else size[0]
        resized = self.bias_sides and size != (side, side)
        return grid(*size), grid(side, side) if resized else None


class TransNeXtBlock(nn.Module):
    """One block: attention, then the convolutional gated linear unit, each behind a layer norm."""

    def __init__(self, channels: int, attention: nn.Module, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = attention
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = ConvGLU(channels, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Grid, bias_grid: Grid | None = None) -> Tensor:
        """Tokens ``(N, H * W, C)`` to tokens of the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x), grid, bias_grid))
        return x + self.drop_path(self.mlp(self.norm2(x), grid.size))


class ConvGLU(nn.Module):
    r"""Convolutional gated linear unit: :math:`W_2(\mathrm{GELU}(\mathrm{dw}(a)) \cdot v)`.

    ``a`` and ``v`` are the two halves of :math:`W_1 x`, and dw a depthwise 3x3 convolution.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 2 * hidden)
        self.dwconv = _TokenConv(hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens ``(N, H * W, C)`` of a map of ``size`` to tokens of the same shape."""
        a, v = self.fc1(x).chunk(2, -1)
        return self.fc2(F.gelu(self.dwconv(a, size)) * v)


class _TokenConv(nn.Module):
    """A depthwise 3x3 convolution on the map that tokens stand for."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.dwconv(x.transpose(1, 2).unflatten(2, size)).flatten(2).transpose(1, 2)


class _PatchEmbed(nn.Module):
    """An overlapping convolution, its pixels as normalised tokens, and the size of the map."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = self.proj(x)
        height, width = x.shape[2:]
        return self.norm(x.flatten(2).transpose(1, 2)), (height, width)
