"""The two attentions of TransNeXt, and the position bias they share.

Tensors of queries, keys and values are laid out ``(N, heads, d, pixels)``: sums over ``d`` then run
along rows of pixels, and the 3x3 neighbourhood is nine shifted views instead of nine copies.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bocb_mm.backbones.hierarchical import truncated_normal_

WINDOW = 3
# Elements of a tensor worked on at once: 2**25 floats are 128 MiB.
CHUNK = 2**25
CPB_HIDDEN = 512


@dataclass(frozen=True)
class Grid:
    """What a stage must know of its map: where queries and keys lie, whatever the weights.

    Attributes:
        size: Rows and columns of queries.
        pooled: Rows and columns of keys.
        rows: Distinct row offsets of the (query, key) pairs, after the log scale, ``(R,)``.
        columns: The same for columns, ``(S,)``.
        row_index: Which of ``rows`` a pair has, ``(size[0], pooled[0])``.
        column_index: Which of ``columns`` a pair has, ``(size[1], pooled[1])``.
        outside: 0 where a neighbour of a pixel lies in the map and -inf where not, ``(9, H, W)``.
        log_keys: Logarithm of the number of keys a pixel sees in aggregated attention, ``(H, W)``.
    """

    size: tuple[int, int]
    pooled: tuple[int, int]
    rows: Tensor
    columns: Tensor
    row_index: Tensor
    column_index: Tensor
    outside: Tensor
    log_keys: Tensor


@functools.lru_cache(maxsize=64)
def make_grid(
    size: tuple[int, int], pooled: tuple[int, int], base: int, device: torch.device
) -> Grid:
    r"""The grid of a map, with log-scaled offsets between queries and keys.

    An offset of u pixels, on a map that is ``base`` wide in pre-training, becomes
    :math:`\mathrm{sign}(u)\log_2(|8u/(b-1)|+1)/\log_2 8`. A key that stands for a window of pixels
    lies at its middle.

    Args:
        size: Rows and columns of the map.
        pooled: Rows and columns of keys; ``size`` for no pooling.
        base: Side of the stage's map at the image size of pre-training.
        device: Where the tensors are kept.

    Returns:
        The grid; the same object for the same arguments.

    Source: Shi, "TransNeXt: robust foveal visual perception for vision transformers", CVPR 2024.
    """
    # Kept across calls, hence never an inference tensor, which autograd would refuse later.
    with torch.inference_mode(False):
        (rows, row_index), (columns, column_index) = (
            _offsets(n, p, base) for n, p in zip(size, pooled)
        )
        inside = F.unfold(torch.ones(1, 1, *size), WINDOW, padding=WINDOW // 2).view(9, *size)
        keys = inside.sum(0) + pooled[0] * pooled[1]
        tensors = (rows, columns, row_index, column_index, inside.log(), keys.log())
        return Grid(size, pooled, *(t.to(device) for t in tensors))


def _offsets(queries: int, keys: int, base: int) -> tuple[Tensor, Tensor]:
    """Distinct offsets of one axis, log-scaled, and the index of each (query, key) pair in them."""
    k = torch.arange(keys)
    first = k * queries // keys  # the window of adaptive average pooling
    end = -(-(k + 1) * queries // keys)
    twice = 2 * torch.arange(queries)[:, None] - (first + end - 1)  # whole numbers are exact
    distinct, index = torch.unique(twice, return_inverse=True)
    scaled = distinct.double() / 2 * 8 / max(base - 1, 1)
    return (scaled.sign() * (scaled.abs() + 1).log2() / 3).float(), index


class PositionBias(nn.Module):
    r"""Continuous position bias: an MLP from the offset (row, column) to one bias a head.

    It is evaluated on the distinct offsets only, (R rows) x (S columns) of them, and gathered; as
    the first layer is linear, its row and column parts are computed apart and added:
    :math:`h_{rs} = \mathrm{relu}(w_0 f(u_r) + w_1 f(u_s) + b)`.
    """

    cpb_fc1: nn.Linear
    cpb_fc2: nn.Linear

    def bias_table(self, grid: Grid) -> Tensor:
        """The bias of every distinct offset, ``(heads, R, S)``."""
        weight = self.cpb_fc1.weight
        rows = torch.outer(grid.rows.to(weight.dtype), weight[:, 0]) + self.cpb_fc1.bias
        columns = torch.outer(grid.columns.to(weight.dtype), weight[:, 1])
        step = max(CHUNK // columns.numel(), 1)
        if len(rows) <= step:
            return self._from_hidden(rows, columns)
        # The hidden layer of a large map would take gigabytes: recomputed rather than kept.
        parts = [
            checkpoint(self._from_hidden, part, columns, use_reentrant=False)
            for part in rows.split(step)
        ]
        return torch.cat(parts, 1)

    def _from_hidden(self, rows: Tensor, columns: Tensor) -> Tensor:
        hidden = F.relu(rows[:, None] + columns)
        return self.cpb_fc2(hidden).permute(2, 0, 1)


def unit(x: Tensor) -> Tensor:
    """``x`` (N, heads, d, L) over its L2 norm along ``d``, which counts as 1e-12 at least.

    ``F.normalize`` does the same; on a CPU its norm along any but the last dimension takes thirty
    times as long (torch 2.9.1).
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * wide.square().sum(2, keepdim=True).clamp_min(1e-24).rsqrt()).to(x.dtype)


def gather_bias(table: Tensor, grid: Grid, rows: slice = slice(None)) -> Tensor:
    """The bias of each pair, ``(heads, query rows, query columns, key rows, key columns)``.

    Args:
        table: Of :meth:`PositionBias.bias_table`.
        grid: The stage's grid.
        rows: The query rows wanted.
    """
    index = grid.row_index[rows]
    picked = table.index_select(1, index.flatten()).index_select(2, grid.column_index.flatten())
    shape = (-1, *index.shape, *grid.column_index.shape)
    return picked.view(shape).transpose(2, 3)


def resize_bias(bias: Tensor, size: tuple[int, int], pooled: tuple[int, int]) -> Tensor:
    """Resize a whole bias of :func:`gather_bias` bilinearly, first over keys, then over queries."""
    heads, old, old_pooled = bias.shape[0], bias.shape[1:3], bias.shape[3:]
    if pooled != tuple(old_pooled):
        flat = bias.reshape(1, -1, *old_pooled)
        bias = F.interpolate(flat, pooled, mode='bilinear').view(heads, *old, *pooled)
    if size != tuple(old):
        flat = bias.permute(0, 3, 4, 1, 2).reshape(1, -1, *old)
        bias = F.interpolate(flat, size, mode='bilinear').view(heads, *pooled, *size)
        bias = bias.permute(0, 3, 4, 1, 2)
    return bias


class _CosineAttention(PositionBias):
    """Parameters and query scaling that both attentions have in common."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_channels = heads, channels // heads
        start = math.log(math.exp(1 / 0.24) - 1)  # softplus of it is 1 / 0.24
        self.temperature = nn.Parameter(torch.full((heads, 1, 1), start))
        self.query_embedding = nn.Parameter(torch.empty(heads, 1, self.head_channels))
        truncated_normal_(self.query_embedding, std=0.02)

    def _by_head(self, tokens: Tensor, parts: int) -> Iterator[Tensor]:
        """Tokens ``(N, L, parts * C)`` as ``parts`` tensors ``(N, heads, d, L)``."""
        n, length, _ = tokens.shape
        shape = (n, length, parts, self.heads, self.head_channels)
        return iter(tokens.view(shape).permute(2, 0, 3, 4, 1).contiguous())

    def _scaled(self, unit_query: Tensor, log_keys: Tensor | float) -> Tensor:
        if isinstance(log_keys, Tensor):  # a wider table would widen all that follows
            log_keys = log_keys.to(self.temperature.dtype)
        query = unit_query + self.query_embedding.transpose(1, 2)
        return query * (F.softplus(self.temperature) * log_keys)


class AggregatedAttention(_CosineAttention):
    r"""Attention of every pixel to its 3x3 neighbours and to a pooled map, in one softmax.

    To the neighbours' weights, weights that are learnt are added after the softmax:
    :math:`y = \sum_w (A_w + \hat q T_w + b_w) v_w + \sum_p A_p v_p`.

    The softmax is never taken over a concatenation: the pooled keys get one more, whose logit is
    the log-sum-exp :math:`L` of the neighbours' logits and whose value is zero. Its weight
    :math:`m` is the neighbours' share, so that :math:`A_w = m\,\mathrm{softmax}(\ell)_w`.

    Args:
        channels: C, in and out.
        heads: Heads; C is a multiple of it.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels, heads)
        d, window = self.head_channels, WINDOW**2
        self.relative_pos_bias_local = nn.Parameter(torch.empty(heads, window))
        self.learnable_tokens = nn.Parameter(torch.empty(heads, d, window))
        self.learnable_bias = nn.Parameter(torch.zeros(heads, 1, window))
        truncated_normal_(self.relative_pos_bias_local, std=0.0004)
        truncated_normal_(self.learnable_tokens, std=0.02)
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.sr = nn.Conv2d(channels, channels, 1)
        self.norm = nn.LayerNorm(channels)
        self.cpb_fc1 = nn.Linear(2, CPB_HIDDEN)
        self.cpb_fc2 = nn.Linear(CPB_HIDDEN, heads)

    def forward(self, x: Tensor, grid: Grid, bias_grid: Grid | None = None) -> Tensor:
        """Tokens ``(N, H * W, C)`` to tokens of the same shape.

        Args:
            x: Tokens, row by row.
            grid: Of the map.
            bias_grid: The grid that the position bias is computed on and resized from, if not
                ``grid``.
        """
        n, length, channels = x.shape
        unit_query = unit(next(self._by_head(self.q(x), 1)))
        key, value = self._by_head(self.kv(x), 2)
        query = self._scaled(unit_query, grid.log_keys.flatten())

        local = self._local_logits(query, unit(key), grid)
        total = local.logsumexp(2, keepdim=True)
        pooled, share = self._pooled(torch.cat((query, total), 2), x, grid, bias_grid)
        tokens = self.learnable_tokens.transpose(1, 2) @ unit_query
        weights = local.softmax(2) * share + tokens + self.learnable_bias.transpose(1, 2)
        y = pooled + self._local_values(weights, value, grid)
        return self.proj(y.view(n, channels, length).transpose(1, 2))

    def _neighbours(self, x: Tensor, grid: Grid) -> Iterator[Tensor]:
        """Views of ``x`` (N, heads, d, L) shifted to each of the nine neighbours, zero outside."""
        height, width = grid.size
        padded = F.pad(x.unflatten(-1, grid.size), (1, 1, 1, 1))
        for i, j in itertools.product(range(WINDOW), repeat=2):
            yield padded[..., i : i + height, j : j + width]

    def _local_logits(self, query: Tensor, key: Tensor, grid: Grid) -> Tensor:
        """Logits of the nine neighbours, ``(N, heads, 9, L)``; -inf outside the map."""
        query = query.unflatten(-1, grid.size)
        logits = torch.stack([(query * k).sum(2) for k in self._neighbours(key, grid)], 2)
        own = self.relative_pos_bias_local
        bias = own[..., None, None] + grid.outside.to(own.dtype)
        return (logits + bias).flatten(3)

    def _local_values(self, weights: Tensor, value: Tensor, grid: Grid) -> Tensor:
        """The neighbours' values, weighted and summed, ``(N, heads, d, L)``."""
        weights = weights.to(value.dtype).unflatten(-1, grid.size)
        total = torch.zeros_like(value).unflatten(-1, grid.size)
        for i, neighbour in enumerate(self._neighbours(value, grid)):
            total.addcmul_(weights[:, :, i : i + 1], neighbour)
        return total.flatten(3)

    def _pooled(
        self, query: Tensor, x: Tensor, grid: Grid, bias_grid: Grid | None
    ) -> tuple[Tensor, Tensor]:
        """The pooled part of the output, ``(N, heads, d, L)``, and the neighbours' share of weight.

        Args:
            query: Scaled queries and, as channel d + 1, the log-sum-exp of the neighbours' logits.
            x: Tokens ``(N, L, C)``.
            grid: Of the map.
            bias_grid: See :meth:`forward`.
        """
        image = x.transpose(1, 2).unflatten(2, grid.size)
        tokens = F.adaptive_avg_pool2d(F.gelu(self.sr(image)), grid.pooled)
        key, value = self._by_head(self.kv(self.norm(tokens.flatten(2).transpose(1, 2))), 2)
        # The key that stands for the neighbours: its product with a query is that query's last
        # channel. Its value is zero, and a further channel of the values shows its weight.
        key = F.pad(unit(key), (0, 1, 0, 1))
        value = F.pad(value, (0, 1, 0, 1))
        key[:, :, -1, -1] = value[:, :, -1, -1] = 1

        width, keys = grid.size[1], key.shape[-1]
        step = max(CHUNK // (query.shape[0] * self.heads * width * keys), 1)
        whole = None
        table = self.bias_table(bias_grid or grid)
        if bias_grid is not None:
            whole = resize_bias(gather_bias(table, bias_grid), grid.size, grid.pooled)
        parts = []
        for start in range(0, grid.size[0], step):
            rows = slice(start, min(start + step, grid.size[0]))
            bias = gather_bias(table, grid, rows) if whole is None else whole[:, rows]
            part = query[..., rows.start * width : rows.stop * width]
            logits = part.transpose(2, 3) @ key
            seen = logits[..., :-1].unflatten(-1, grid.pooled).unflatten(2, (-1, width))
            seen += bias
            parts.append(value @ logits.softmax(-1).to(value.dtype).transpose(2, 3))
        y = torch.cat(parts, 3) if len(parts) > 1 else parts[0]
        return y[:, :, :-1], y[:, :, -1:]


class FullAttention(_CosineAttention):
    """Attention of every pixel to every pixel, with unit queries and keys and a position bias.

    Args:
        channels: C, in and out.
        heads: Heads; C is a multiple of it.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels, heads)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.cpb_fc1 = nn.Linear(2, CPB_HIDDEN)
        self.cpb_fc2 = nn.Linear(CPB_HIDDEN, heads)

    def forward(self, x: Tensor, grid: Grid, bias_grid: Grid | None = None) -> Tensor:
        """Tokens ``(N, H * W, C)`` to tokens of the same shape; arguments as its sibling's."""
        n, length, channels = x.shape
        query, key, value = self._by_head(self.qkv(x), 3)
        query = self._scaled(unit(query), math.log(length))
        bias = gather_bias(self.bias_table(bias_grid or grid), bias_grid or grid)
        bias = resize_bias(bias, grid.size, grid.pooled).flatten(3).flatten(1, 2)
        logits = query.transpose(2, 3) @ unit(key) + bias
        y = value @ logits.softmax(-1).to(value.dtype).transpose(2, 3)
        return self.proj(y.view(n, channels, length).transpose(1, 2))
