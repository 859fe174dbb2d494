"""Weights at the start have the statistics of the official code, in the whole classifier."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bocb_mm.backbones import get_spec, list_backbones


@pytest.fixture(autouse=True)
def _seeded(toolboxes):
    torch.manual_seed(0)


def started(name):
    """A classifier after init_weights; first every weight is 7, so that one left out would show."""
    from mmpretrain.registry import MODELS

    model = MODELS.build(get_spec(name).classifier(100))
    with torch.no_grad():
        for module in model.backbone.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                for p in module.parameters(recurse=False):
                    p.fill_(7.0)
    model.backbone.init_weights()
    model.head.init_weights()
    return model


def fan(m, out, grouped=True):
    k = m.weight[0][0].numel() if m.weight.ndim == 4 else 1
    if out:
        return k * m.weight.shape[0] // (getattr(m, 'groups', 1) if grouped else 1)
    return k * m.weight.shape[1]


def he_out(m):
    return math.sqrt(2 / fan(m, True, grouped=False))


def he_out_grouped(m):
    return math.sqrt(2 / fan(m, True))


def he_in(m):
    return math.sqrt(2 / fan(m, False))


def torch_default(m):
    return 1 / math.sqrt(3 * fan(m, False))


def lecun(m):
    return math.sqrt(1 / fan(m, False))


def fixed(std):
    return lambda m: std


TRUNC = fixed(0.02)
# Standard deviation of convolutions and linear layers in the network, and of the last linear layer.
# Sources: torchvision (AlexNet, VGG, DenseNet, MobileNetV2), mmpretrain (ResNet), RepVGG, TensorFlow EfficientNet,
# DeiT, JAX MLP-Mixer, Swin, ConvNeXt, MogaNet, UniRepLKNet, TransNeXt, sail-sg.
OFFICIAL = {
    'AlexNet': (torch_default, torch_default, torch_default),
    'VGG-13': (he_out, fixed(0.01), fixed(0.01)),
    'R-50': (he_out, None, fixed(0.01)),
    'DN-121': (he_in, None, torch_default),
    'MobV2': (he_out, None, fixed(0.01)),
    'Eff-B0': (he_out_grouped, None, fixed(0.1 / math.sqrt(3))),  # U(-1/sqrt(100), 1/sqrt(100))
    'RVGG-A1': (torch_default, None, torch_default),
    'DeiT-S': (torch_default, TRUNC, TRUNC),
    'MLP-S': (lecun, lecun, fixed(0.0)),
    'Swin-T': (torch_default, TRUNC, TRUNC),
    'CNX-T': (TRUNC, TRUNC, TRUNC),
    'CNXV2-T': (TRUNC, TRUNC, TRUNC),
    'Moga-S': (he_out_grouped, TRUNC, TRUNC),
    'URLK-T': (TRUNC, TRUNC, TRUNC),
    'TNX-T': (he_out_grouped, TRUNC, TRUNC),
    'IF-12': (TRUNC, TRUNC, TRUNC),
    'PFV2-12': (TRUNC, TRUNC, TRUNC),
    'CF-12': (TRUNC, TRUNC, TRUNC),
    'AF-12': (TRUNC, TRUNC, TRUNC),
    'CAF-12': (TRUNC, TRUNC, TRUNC),
}


def check_std(weight, std, name):
    # torch.nn.init.trunc_normal_ (2.9.1) turns a uniform draw of exactly -1, one in 2^24, into its
    # lower bound, -2, a hundred standard deviations out. The official code calls it, so it stays.
    cut = weight.detach() == -2.0
    assert int(cut.sum()) <= 3, name
    weight = weight.detach()[~cut]
    # five standard errors of the estimate; kurtosis of uniform and normal bound it by 1 / sqrt(2 n)
    slack = 5 * std / math.sqrt(2 * weight.numel()) + 1e-12
    assert float(weight.mean().abs()) <= 5 * std / math.sqrt(weight.numel()) + 1e-12, name
    assert abs(float(weight.std(unbiased=False)) - std) <= slack, name


@pytest.mark.parametrize('name', list_backbones())
def test_statistics_of_the_official_code(name):
    model = started(name)
    check_convolutions_and_linear_layers(name, model)
    check_norms(name, model)
    check_tables(name, model.backbone)


def check_convolutions_and_linear_layers(name, model):
    conv, linear, last = OFFICIAL[name]
    modules = {k: m for k, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    classifier = [k for k, m in modules.items() if isinstance(m, nn.Linear)][-1]
    assert modules[classifier].out_features == 100
    for key, m in modules.items():
        rule = last if key == classifier else conv if isinstance(m, nn.Conv2d) else linear
        check_std(m.weight, rule(m), key)
        if m.bias is None:
            continue
        if (rule is torch_default and key != classifier) or name in ('AlexNet', 'RVGG-A1'):
            assert 0 < float(m.bias.abs().max()) <= 1 / math.sqrt(fan(m, False)), key
        else:
            assert float(m.bias.abs().max()) == 0, key


def check_norms(name, model):
    zero = []
    for key, m in model.named_modules():
        if 'norm' in type(m).__name__.lower() and getattr(m, 'weight', None) is not None:
            if (m.weight == 0).all():
                zero.append(key)
            else:
                assert (m.weight == 1).all(), key
            assert m.bias is None or (m.bias == 0).all(), key
    # the last norm of a residual branch, which makes every block the identity at the start
    assert all(key.endswith('.bn3') for key in zero)
    assert len(zero) == (16 if name == 'R-50' else 0)


def check_tables(name, backbone):
    weights = dict(backbone.named_parameters())
    if name == 'DeiT-S':
        check_std(weights['pos_embed'], 0.02, 'pos_embed')
        assert 0.015 < float(weights['cls_token'].std()) < 0.025
    if name == 'Swin-T':
        tables = [p for k, p in weights.items() if k.endswith('relative_position_bias_table')]
        assert len(tables) == 12
        for p in tables:
            assert abs(float(p.std()) - 0.02) < 5 * 0.02 / math.sqrt(2 * p.numel())


def test_layer_scales_and_response_norms_as_constructed():
    from bocb_mm.backbones import build_backbone

    scales = [p for k, p in build_backbone('CNX-T').named_parameters() if k.endswith('.gamma')]
    assert len(scales) == 18
    assert all(torch.equal(p, torch.full_like(p, 1e-6)) for p in scales)
    v2 = dict(build_backbone('CNXV2-T').named_parameters())
    assert all((v2[k] == 0).all() for k in v2 if '.grn.' in k)
    assert sum('.grn.' in k for k in v2) == 36
    assert not any(k.endswith('.gamma') and '.grn.' not in k for k in v2)


def test_same_seed_same_weights():
    from bocb_mm.backbones import build_backbone

    def draw():
        torch.manual_seed(3)
        return build_backbone('CNX-A').state_dict()

    a, b = draw(), draw()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_init_cfg_of_the_user_comes_after():
    from bocb_mm.backbones import build_backbone

    network = build_backbone('R-18-XS', init_cfg=dict(type='Constant', layer='Conv2d', val=0.5))
    assert (network.conv1.weight == 0.5).all()
