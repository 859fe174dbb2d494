"""A feature pyramid for networks whose blocks all work at one stride."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from bocb_mm.backbones.hierarchical import ChannelLayerNorm


class SimplePyramid(nn.Module):
    """Maps of strides 4, 8, 16 and 32 from one map of stride 16.

    Two, one or no transposed 2x2 convolutions of stride 2 enlarge the map, each halving the
    channels, with layer norm and GELU between two of them; a 2x2 max pooling makes the coarsest.
    Handing an FPN the stride-16 map four times instead trains without an error and with anchors
    of the wrong size, which is why the adapters never return it under another stride.

    Args:
        channels: Channels of the map it gets.
        out_indices: Which of the four maps to make; the layers of the others are not built.

    Example:
        >>> import torch
        >>> maps = SimplePyramid(384, (0, 1, 2, 3))(torch.zeros(1, 384, 14, 14))
        >>> [tuple(m.shape[1:]) for m in maps]
        [(96, 56, 56), (192, 28, 28), (384, 14, 14), (384, 7, 7)]

    Source: Li et al., "Exploring plain vision transformer backbones for object detection",
    ECCV 2022, section 3, without the convolutions that an FPN behind it brings anyway.
    """

    def __init__(self, channels: int, out_indices: Sequence[int]) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        makers = (
            lambda: nn.Sequential(
                nn.ConvTranspose2d(channels, half, 2, stride=2),
                ChannelLayerNorm(half),
                nn.GELU(),
                nn.ConvTranspose2d(half, quarter, 2, stride=2),
            ),
            lambda: nn.ConvTranspose2d(channels, half, 2, stride=2),
            lambda: nn.Identity(),
            # the ceiling gives a map of one pixel a coarser one too
            lambda: nn.MaxPool2d(2, stride=2, ceil_mode=True),
        )
        self.levels = nn.ModuleDict({str(i): makers[i]() for i in out_indices})

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The maps asked for, finest first, of a map (N, channels, H/16, W/16)."""
        return tuple(level(x) for level in self.levels.values())
