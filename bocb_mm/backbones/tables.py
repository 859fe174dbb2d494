"""Tables of positions, fitted to another image size or window."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bocb_mm.backbones.conversions import Weights


def resize_tables(network: nn.Module, weights: Weights, own: Weights) -> tuple[Weights, list[str]]:
    """Fit position tables to another image size and relative ones to another window.

    Returns:
        The weights with the tables in the network's shape, and what was done to which.
    """
    out, resized = dict(weights), []
    for name, value in weights.items():
        goal = own.get(name)
        if goal is None or goal.shape == value.shape or goal.ndim != value.ndim:
            continue
        grid = getattr(getattr(network, 'patch_embed', None), 'init_out_size', None)
        if name == 'pos_embed' and value.shape[-1] == goal.shape[-1] and grid is not None:
            new = resize_positions(value, grid)
        elif name.endswith('relative_position_bias_table') and value.shape[-1] == goal.shape[-1]:
            new = resize_relative(value, goal.shape[0])
        else:
            continue
        if new is not None and new.shape == goal.shape:
            out[name] = new
            resized.append(f'{name} {tuple(value.shape)} -> {tuple(new.shape)}')
    return out, resized


def resize_positions(table: Tensor, size: tuple[int, int], extra: int = 1) -> Tensor | None:
    """Bicubic resizing of a table of positions.

    Args:
        table: (1, extra + h * h, C), the first ``extra`` rows for class tokens.
        size: Rows and columns of the grid to come.
        extra: Number of tokens without a place.

    Returns:
        (1, extra + size[0] * size[1], C); None if the table's grid is not square.
    """
    side = round((table.shape[1] - extra) ** 0.5)
    if side * side != table.shape[1] - extra:
        return None
    tokens, grid = table[:, :extra], table[:, extra:]
    grid = grid.unflatten(1, (side, side)).permute(0, 3, 1, 2).float()
    grid = F.interpolate(grid, tuple(size), mode='bicubic', align_corners=False)
    return torch.cat((tokens, grid.flatten(2).transpose(1, 2).to(table.dtype)), 1)


def resize_relative(table: Tensor, length: int) -> Tensor | None:
    """Bicubic resizing of a table of relative positions ((2 w - 1)², heads) to ``length`` rows."""
    before, after = round(table.shape[0] ** 0.5), round(length**0.5)
    if before**2 != table.shape[0] or after**2 != length:
        return None
    grid = table.T.reshape(1, -1, before, before).float()
    grid = F.interpolate(grid, (after, after), mode='bicubic', align_corners=False)
    return grid.reshape(-1, length).T.to(table.dtype).contiguous()
