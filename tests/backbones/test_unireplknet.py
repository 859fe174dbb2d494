"""UniRepLKNet: merging of branches, feature modes, initialisation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from bocb_mm.backbones.unireplknet import BRANCHES, DilatedReparamConv, UniRepLKNet
from bocb_mm.errors import UserError
from tests.backbones.own_networks import SMALL, awake

GOLDEN = json.loads((Path(__file__).parent / 'golden' / 'golden_outputs.json').read_text())
MERGED = GOLDEN['models']['unireplknet_tiny']['after_reparameterization']


def small(**kwargs):
    return SMALL['unireplknet'](**kwargs)


def test_merging_keeps_the_outputs():
    net = awake(small(num_classes=9)).eval()
    x = torch.randn(2, 3, 64, 50)
    with torch.no_grad():
        before, maps = net(x), net.forward_features(x)
        net.switch_to_deploy()
        after, merged_maps = net(x), net.forward_features(x)
    assert before.abs().max() > 0.1
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    for a, b in zip(merged_maps, maps, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    net.switch_to_deploy()  # a second time: nothing left to merge
    assert net.state_dict().keys() == state.keys()
    again = small(num_classes=9, deploy=True).eval()
    again.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(again(x), after)


def test_merged_structure_is_the_official_one():
    net = UniRepLKNet(num_classes=1000, deploy=True)
    assert sum(p.numel() for p in net.parameters()) == MERGED['num_parameters'] == 31037980
    state = net.state_dict()
    assert len(state) == MERGED['num_state_dict_entries']
    # Shapes as listed are those of the first block of stages 1 and 0.
    for prefix, kind in (('stages.1.0.', 'big'), ('stages.0.0.', 'small')):
        got = {
            k.removeprefix(prefix): list(v.shape) for k, v in state.items() if k.startswith(prefix)
        }
        assert got == MERGED[f'keys_of_one_{kind}_kernel_block']


@pytest.mark.parametrize('kernel', BRANCHES)
def test_one_convolution_equals_the_sum_of_branches(kernel):
    conv = awake(DilatedReparamConv(6, kernel)).double().eval()
    x = torch.randn(2, 6, 20, 17, dtype=torch.double)
    y = conv(x)
    branches = sum(norm(branch(x)) for branch, norm in conv.pairs())
    torch.testing.assert_close(y, branches)
    weight = torch.randn_like(y)
    mine = torch.autograd.grad((y * weight).sum(), tuple(conv.parameters()))
    theirs = torch.autograd.grad((branches * weight).sum(), tuple(conv.parameters()))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_training_uses_the_statistics_of_each_branch():
    conv = awake(DilatedReparamConv(6, 7)).train()
    x = torch.randn(4, 6, 9, 9)
    before = [norm.running_mean.clone() for _, norm in conv.pairs()]
    want = sum(
        nn.functional.batch_norm(c(x), None, None, n.weight, n.bias, training=True)
        for c, n in conv.pairs()
    )
    torch.testing.assert_close(conv(x), want)
    assert all((b != n.running_mean).any() for b, (_, n) in zip(before, conv.pairs()))


def test_an_unknown_kernel_is_refused():
    with pytest.raises(UserError, match=r'kernel 14.*13'):
        UniRepLKNet(kernels=((3,), (14,), (3,), (3,)))


def test_maps_without_a_classifier_are_layer_normalised():
    # official feature mode: norm0..3 on what is shown, the bare map is handed on
    bare, shown = awake(small(num_classes=2)).eval(), small().eval()
    missing, unexpected = shown.load_state_dict(bare.state_dict(), strict=False)
    assert {k.split('.')[0] for k in missing} == {f'norm{i}' for i in range(4)}
    assert {k.split('.')[0] for k in unexpected} == {'norm', 'head'}
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for raw, normed in zip(bare.forward_features(x), shown(x), strict=True):
            mean = raw.mean(1, keepdim=True)
            std = (raw.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
            torch.testing.assert_close(normed, (raw - mean) / std, rtol=1e-4, atol=1e-4)


def test_a_pooled_last_map_makes_the_official_classifier():
    whole, pooled = awake(small(num_classes=4)).eval(), small(gap_before_final_norm=True).eval()
    missing, unexpected = pooled.load_state_dict(whole.state_dict(), strict=False)
    assert not missing
    assert set(unexpected) == {'head.weight', 'head.bias'}
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(whole.head(pooled(x)[-1]), whole(x))


def test_start_values():
    # catalog.json: conv and linear truncated normal 0.02, bias 0; norms 1/0; GRN 0; scale 1e-6
    torch.manual_seed(0)
    net = UniRepLKNet(num_classes=1000)
    for name, m in net.named_modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            n = m.weight.numel()
            assert m.weight.std().item() == pytest.approx(0.02, rel=5 * (2 * n) ** -0.5), name
            assert m.weight.mean().item() == pytest.approx(0, abs=0.1 * n**-0.5), name
            assert m.bias is None or not m.bias.any(), name
    for name, p in net.named_parameters():
        if name.endswith(('act.1.gamma', 'act.1.beta')):
            assert not p.any(), name
        elif name.endswith('gamma'):
            assert (p == 1e-6).all(), name
        elif 'norm' in name or '_bn' in name:
            assert (p == float(name.endswith('weight'))).all(), name
