"""MogaNet: initialisation, stems, and its parts against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bocb_mm.backbones.moganet import Decomposition, GatedAggregation, MogaNet
from bocb_mm.errors import UserError


@pytest.fixture(scope='module')
def fresh():
    torch.manual_seed(0)
    return MogaNet(num_classes=1000)


def test_convolutions_start_with_the_fan_out_rule(fresh):
    # catalog.json: normal, std sqrt(2 / (kh * kw * out / groups)), bias 0
    seen = 0
    for name, m in fresh.named_modules():
        if not isinstance(m, nn.Conv2d):
            continue
        assert not m.bias.any(), name
        fan_out = m.kernel_size[0] * m.kernel_size[1] * m.out_channels / m.groups
        n = m.weight.numel()
        scaled = m.weight.detach().flatten() * (fan_out / 2) ** 0.5
        # five standard errors of the standard deviation and of the mean of n normal draws
        assert scaled.square().mean().sqrt().item() == pytest.approx(1, abs=5 * (2 * n) ** -0.5)
        assert scaled.mean().item() == pytest.approx(0, abs=5 * n**-0.5)
        seen += n
    assert seen > 24e6


def test_the_rest_starts_as_the_official_code_has_it(fresh):
    head = fresh.head.weight
    assert head.std().item() == pytest.approx(0.02, rel=0.01)
    assert not fresh.head.bias.any()
    for name, p in fresh.named_parameters():
        if 'scale' in name:
            assert (p == 1e-5).all(), name
        elif 'norm' in name or name.startswith(
            ('patch_embed1.projection.1', 'patch_embed1.projection.4')
        ):
            assert (p == float(name.endswith('weight'))).all(), name


@pytest.mark.parametrize(('stem', 'sides'), [(1, (32, 16, 8, 4)), (2, (16, 8, 4, 2))])
def test_cifar_stems(stem, sides):
    # spec, section 7: at 32x32 with stride 1, 64x32x32 ... 512x4x4; parameters unchanged
    net = MogaNet(num_classes=100, stem_stride=stem).eval()
    assert sum(p.numel() for p in net.parameters()) == 24873975
    assert net.strides == tuple(stem * s for s in (1, 2, 4, 8))
    with torch.no_grad():
        maps = net.forward_features(torch.randn(1, 3, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, s, s) for c, s in zip((64, 128, 320, 512), sides)
    ]
    with pytest.raises(UserError, match=r'stem_stride 3.*1, 2, 4'):
        MogaNet(stem_stride=3)


@pytest.mark.parametrize('scale', [1e-5, 0.3, 1.7])
def test_decomposition_is_its_formula(scale):
    torch.manual_seed(0)
    part = Decomposition(6, scale).double()
    x = torch.randn(2, 6, 5, 4, dtype=torch.double, requires_grad=True)
    common = torch.randn(2, 1, 5, 4, dtype=torch.double, requires_grad=True)
    torch.testing.assert_close(part(x, common), x + scale * (x - common))
    assert torch.autograd.gradcheck(part, (x, common))


def test_forced_fp32_gates_twice():
    # spec, section 6: the official switch applies both activations twice
    torch.manual_seed(0)
    plain, forced = GatedAggregation(16, 0.1, False), GatedAggregation(16, 0.1, True)
    forced.load_state_dict(plain.state_dict())
    z = torch.randn(2, 16, 8, 8)
    a = plain.proj_1(z)
    a = nn.functional.silu(a + 0.1 * (a - a.mean((2, 3), keepdim=True)))
    act = nn.functional.silu
    gate, value = plain.gate(a), plain.value(a)
    torch.testing.assert_close(plain(z), plain.proj_2(act(gate) * act(value)) + z)
    torch.testing.assert_close(forced(z), plain.proj_2(act(act(gate)) * act(act(value))) + z)
    with torch.autocast('cpu', torch.bfloat16):
        assert forced(z).dtype == torch.float32
