"""TransNeXt: both attentions against the formulas written out pair by pair, grids, start values."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bocb_mm.backbones import transnext_attention
from bocb_mm.backbones.transnext import TransNeXt
from bocb_mm.backbones.transnext_attention import (
    AggregatedAttention,
    FullAttention,
    gather_bias,
    make_grid,
)
from bocb_mm.errors import UserError
from tests.backbones.own_networks import SMALL, awake

CPU = torch.device('cpu')


def centres(queries: int, keys: int) -> torch.Tensor:
    line = torch.arange(queries, dtype=torch.double).view(1, 1, -1)
    return F.adaptive_avg_pool1d(line, keys).flatten()


def pairwise_bias(attention, size, pooled, base):
    """The position MLP on every (query, key) pair: spec section 4, word for word."""
    axes = []
    for n, p in zip(size, pooled):
        u = (torch.arange(n).double()[:, None] - centres(n, p)) * 8 / (base - 1)
        axes.append(u.sign() * (u.abs() + 1).log2() / math.log2(8))
    rows = axes[0][:, None, :, None].expand(size[0], size[1], *pooled)
    columns = axes[1][None, :, None, :].expand(size[0], size[1], *pooled)
    pairs = torch.stack((rows, columns), -1).to(attention.cpb_fc1.weight.dtype)
    bias = attention.cpb_fc2(F.relu(attention.cpb_fc1(pairs)))
    return bias.flatten(2, 3).flatten(0, 1).permute(2, 0, 1)  # heads, queries, keys


def aggregated(a, x, size, pooled, base):
    """Spec section 5 with loops over pixels and neighbours, and a plain concatenated softmax."""
    n, _, c = x.shape
    h, d = a.heads, c // a.heads
    height, width = size

    def heads(t):
        return t.view(n, -1, h, d).transpose(1, 2)

    qn = F.normalize(heads(a.q(x)), dim=-1, eps=1e-12)
    k, v = (heads(t) for t in a.kv(x).chunk(2, -1))
    k = F.normalize(k, dim=-1, eps=1e-12)
    maps = F.gelu(a.sr(x.transpose(1, 2).reshape(n, c, height, width)))
    tokens = a.norm(F.adaptive_avg_pool2d(maps, pooled).flatten(2).transpose(1, 2))
    kp, vp = (heads(t) for t in a.kv(tokens).chunk(2, -1))
    bias = pairwise_bias(a, size, pooled, base)
    out = []
    for i in range(height):
        for j in range(width):
            at, near = i * width + j, []
            for w in range(9):
                r, s = i + w // 3 - 1, j + w % 3 - 1
                near.append((w, r * width + s) if 0 <= r < height and 0 <= s < width else None)
            inside = [p for p in near if p]
            count = math.log(len(inside) + pooled[0] * pooled[1])
            q = (qn[:, :, at] + a.query_embedding[:, 0]) * F.softplus(a.temperature[:, 0]) * count
            logits = [(q * k[:, :, p]).sum(-1) + a.relative_pos_bias_local[:, w] for w, p in inside]
            far = (q[:, :, None] * F.normalize(kp, dim=-1, eps=1e-12)).sum(-1) + bias[:, at]
            share = torch.cat((torch.stack(logits, -1), far), -1).softmax(-1)
            y = share[..., len(inside) :, None].mul(vp).sum(-2)
            learnt = torch.einsum('nhd,hdw->nhw', qn[:, :, at], a.learnable_tokens)
            learnt = learnt + a.learnable_bias[:, 0]
            for place, (w, p) in enumerate(inside):
                y = y + (share[..., place, None] + learnt[..., w, None]) * v[:, :, p]
            out.append(y.flatten(1))
    return a.proj(torch.stack(out, 1))


def full(a, x, size, base):
    """Spec section 6."""
    n, length, c = x.shape
    q, k, v = a.qkv(x).view(n, length, 3, a.heads, c // a.heads).permute(2, 0, 3, 1, 4)
    q = (F.normalize(q, dim=-1) + a.query_embedding) * F.softplus(a.temperature) * math.log(length)
    logits = q @ F.normalize(k, dim=-1).transpose(-1, -2) + pairwise_bias(a, size, size, base)
    return a.proj((logits.softmax(-1) @ v).transpose(1, 2).reshape(n, length, c))


def lively(attention):
    torch.manual_seed(0)
    for p in attention.parameters():
        nn.init.normal_(p, 0.1, 0.3)
    return attention.double()


def same_values_and_gradients(mine, theirs, inputs):
    # double all through, but for the coordinates, which the grid keeps in float32
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    weight = torch.randn_like(mine)
    for a, b in zip(
        torch.autograd.grad((mine * weight).sum(), inputs),
        torch.autograd.grad((theirs * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('chunk', [2**25, 200], ids=['whole', 'chunked'])
@pytest.mark.parametrize(('size', 'pooled'), [((6, 8), (3, 4)), ((5, 7), (2, 3)), ((1, 4), (1, 2))])
def test_aggregated_attention_is_its_formula(size, pooled, chunk, monkeypatch):
    monkeypatch.setattr(transnext_attention, 'CHUNK', chunk)
    attention = lively(AggregatedAttention(12, 3))
    x = torch.randn(2, size[0] * size[1], 12, dtype=torch.double, requires_grad=True)
    mine = attention(x, make_grid(size, pooled, 7, CPU))
    same_values_and_gradients(
        mine, aggregated(attention, x, size, pooled, 7), (x, *attention.parameters())
    )


@pytest.mark.parametrize('size', [(3, 4), (1, 1), (2, 5)])
def test_full_attention_is_its_formula(size):
    attention = lively(FullAttention(12, 2))
    x = torch.randn(2, size[0] * size[1], 12, dtype=torch.double, requires_grad=True)
    mine = attention(x, make_grid(size, size, 7, CPU))
    inputs = (x, attention.qkv.weight, attention.temperature, attention.query_embedding)
    if size != (1, 1):  # one key: its weight is 1, whatever the bias
        inputs += (attention.cpb_fc1.weight, attention.cpb_fc2.weight)
    same_values_and_gradients(mine, full(attention, x, size, 7), inputs)


# Rows of the table at 224, as the spec has them (section 4).
@pytest.mark.parametrize(
    ('side', 'keys', 'rows'), [(56, 7, 10816), (28, 7, 2704), (14, 7, 676), (7, 7, 169)]
)
def test_the_position_mlp_sees_distinct_offsets_only(side, keys, rows):
    grid = make_grid((side, side), (keys, keys), side, CPU)
    attention = AggregatedAttention(12, 3)
    seen = []
    attention.cpb_fc2.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    attention.bias_table(grid)
    (hidden,) = seen
    assert hidden.shape[0] * hidden.shape[1] == rows


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_gathered_bias_is_the_pairwise_one(data):
    size = tuple(data.draw(st.integers(1, 13)) for _ in range(2))
    pooled = tuple(data.draw(st.integers(1, n)) for n in size)
    base = data.draw(st.integers(2, 60))
    attention = lively(AggregatedAttention(4, 2))
    grid = make_grid(size, pooled, base, CPU)
    assert len(grid.rows.unique()) == len(grid.rows) <= 4 * size[0]
    got = gather_bias(attention.bias_table(grid), grid).flatten(3).flatten(1, 2)
    torch.testing.assert_close(
        got, pairwise_bias(attention, size, pooled, base), rtol=1e-5, atol=1e-5
    )
    # the grid's coordinates are kept in float32


def test_a_grid_made_in_inference_mode_serves_training():
    make_grid.cache_clear()
    net = awake(SMALL['transnext']())
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        net(x)
    sum(m.sum() for m in net(x)).backward()


def test_resized_bias_is_the_computed_one_at_its_own_size():
    computed = awake(SMALL['transnext'](img_size=64)).eval()
    resized = SMALL['transnext'](img_size=64, interpolate_bias=True).eval()
    resized.load_state_dict(computed.state_dict())
    with torch.no_grad():
        x = torch.randn(1, 3, 64, 64)
        assert all(torch.equal(a, b) for a, b in zip(computed(x), resized(x)))
        x = torch.randn(1, 3, 96, 50)
        assert not any(torch.allclose(a, b) for a, b in zip(computed(x), resized(x)))


def test_every_stage_needs_a_pooled_key():
    # stage 1 pools 8x8 of its pixels, which are 4x4 of the image's
    with pytest.raises(UserError, match=r'16x64 pixels.*32'):
        TransNeXt(out_indices=(0,))(torch.zeros(1, 3, 16, 64))


def test_start_values():
    # catalog.json
    torch.manual_seed(0)
    net = TransNeXt(num_classes=1000)
    for name, m in net.named_modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            std = 0.02
            if isinstance(m, nn.Conv2d):
                std = math.sqrt(2 * m.groups / (math.prod(m.kernel_size) * m.out_channels))
            n = m.weight.numel()
            assert m.weight.std().item() == pytest.approx(std, rel=5 * (2 * n) ** -0.5), name
            assert not m.bias.any(), name
        elif isinstance(m, nn.LayerNorm):
            assert (m.weight == 1).all() and not m.bias.any(), name
            patch = name.startswith('patch_embed') or name.endswith('attn.norm')
            assert m.eps == (1e-5 if patch else 1e-6), name
    drawn = {'query_embedding': 0.02, 'learnable_tokens': 0.02, 'relative_pos_bias_local': 4e-4}
    for ending, std in drawn.items():
        values = torch.cat([p.flatten() for n, p in net.named_parameters() if n.endswith(ending)])
        assert values.std().item() == pytest.approx(std, rel=5 * (2 * len(values)) ** -0.5)
    for name, p in net.named_parameters():
        if name.endswith('temperature'):
            torch.testing.assert_close(F.softplus(p), torch.full_like(p, 1 / 0.24))
        if name.endswith('learnable_bias'):
            assert not p.any()
