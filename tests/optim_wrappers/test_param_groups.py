"""Grouping by role: which parameter is what, how few groups there are, and what is refused."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bocb_mm.backbones import list_backbones
from bocb_mm.errors import UserError
from bocb_mm.optim_wrappers.layer_decay import layer_depths
from bocb_mm.optim_wrappers.param_groups import GroupRules, param_groups
from bocb_mm.optim_wrappers.roles import EXCLUDED_ROLES, ROLES, parameters_with_roles


def timm_model(name: str) -> nn.Module:
    timm = pytest.importorskip('timm', reason='timm is not installed')
    with torch.device('meta'):
        return timm.create_model(name)


def roles_of(model: nn.Module) -> dict[str, str]:
    return {p.name: p.role for p in parameters_with_roles(model)}


# model -> (parameter, role); the names stand in the models' own code.
TIMM_ROLES = {
    'resnet50': {
        'conv1.weight': 'weight',
        'bn1.weight': 'norm',
        'layer1.0.downsample.1.bias': 'norm',
        'fc.weight': 'weight',
        'fc.bias': 'bias',
    },
    'deit_small_distilled_patch16_224': {
        'cls_token': 'cls_token',
        'dist_token': 'cls_token',
        'pos_embed': 'pos_embed',
        'patch_embed.proj.weight': 'weight',
        'blocks.0.attn.qkv.bias': 'bias',
        'blocks.0.norm1.weight': 'norm',
    },
    'swin_tiny_patch4_window7_224': {
        'layers.0.blocks.0.attn.relative_position_bias_table': 'rel_pos',
        'layers.1.downsample.norm.weight': 'norm',
        'layers.1.downsample.reduction.weight': 'weight',
    },
    'swinv2_tiny_window8_256': {
        'layers.0.blocks.0.attn.cpb_mlp.0.weight': 'rel_pos',
        'layers.0.blocks.0.attn.logit_scale': 'declared',  # timm's no_weight_decay() names it
    },
    'convnext_tiny': {'stages.0.blocks.0.gamma': 'layer_scale', 'stem.1.weight': 'norm'},
    'convnextv2_tiny': {'stages.0.blocks.0.mlp.grn.weight': 'norm'},
    'caformer_s18': {
        'stages.2.blocks.0.res_scale1.scale': 'layer_scale',
        'stages.0.blocks.0.mlp.act.scale': 'flat',  # StarReLU
    },
    'beit_base_patch16_224': {
        'blocks.0.gamma_1': 'layer_scale',
        'blocks.0.attn.q_bias': 'bias',
    },
}


@pytest.mark.parametrize('name', TIMM_ROLES)
def test_roles_in_timm(name):
    roles = roles_of(timm_model(name))
    assert {n: roles[n] for n in TIMM_ROLES[name]} == TIMM_ROLES[name]


@pytest.mark.parametrize('name', TIMM_ROLES)
def test_every_matrix_and_only_matrices_are_weights(name):
    """Independent of names: what decays has at least two real dimensions, but for tables."""
    for p in parameters_with_roles(timm_model(name)):
        dims = sum(s > 1 for s in p.parameter.shape)
        if p.role == 'weight':
            assert dims >= 2 or p.parameter.ndim >= 2, p.name
        elif p.role not in ('rel_pos', 'pos_embed', 'cls_token'):
            assert dims <= 1, p.name


def test_roles_of_own_names():
    """Names that MogaNet-S, UniRepLKNet-T and TransNeXt-T use (shared/specs/backbones)."""

    class ElementScale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1, 8, 1, 1))

    class GRNwithNHWC(nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = nn.Parameter(torch.zeros(1, 1, 1, 8))
            self.beta = nn.Parameter(torch.zeros(1, 1, 1, 8))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer_scale_1 = nn.Parameter(torch.ones(1, 8, 1, 1))
            self.gamma = nn.Parameter(torch.ones(8))
            self.sigma = ElementScale()
            self.grn = GRNwithNHWC()
            self.decompose = nn.Conv2d(8, 1, 1)
            self.temperature = nn.Parameter(torch.ones(4, 1, 1))
            self.query_embedding = nn.Parameter(torch.ones(4, 1, 8))
            self.relative_pos_bias_local = nn.Parameter(torch.ones(4, 9))
            self.cpb_fc1 = nn.Linear(2, 8)
            self.pos_embed = nn.Embedding(16, 8)
            self.pos_conv = nn.Conv2d(8, 8, 3, groups=8)

    assert roles_of(Block()) == {
        'layer_scale_1': 'layer_scale',
        'gamma': 'layer_scale',
        'temperature': 'flat',
        'query_embedding': 'pos_embed',
        'relative_pos_bias_local': 'rel_pos',
        'sigma.scale': 'layer_scale',
        'grn.gamma': 'norm',
        'grn.beta': 'norm',
        'decompose.weight': 'weight',
        'decompose.bias': 'bias',
        'cpb_fc1.weight': 'rel_pos',
        'cpb_fc1.bias': 'rel_pos',
        'pos_embed.weight': 'pos_embed',
        'pos_conv.weight': 'weight',
        'pos_conv.bias': 'bias',
    }


@pytest.mark.parametrize('name', TIMM_ROLES)
@pytest.mark.parametrize('adapt', [False, True])
def test_few_groups_hold_every_parameter_once(name, adapt):
    model = timm_model(name)
    groups = param_groups(model, 0.1, 1e-4, adapt=adapt)
    assert len(groups) <= 4
    ids = [id(p) for g in groups for p in g['params']]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert len({g['name'] for g in groups}) == len(groups)
    for group in groups:
        excluded = not set(group['role'].split('+')) - set(EXCLUDED_ROLES)
        assert (group.get('weight_decay') == 0.0) == excluded
        assert group.get('adapt') == ((not excluded) if adapt else None)


def test_frozen_parameters_are_left_out_and_shared_ones_taken_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    groups = param_groups(model, 0.1)
    assert sum(len(g['params']) for g in groups) == 3
    model.requires_grad_(False)
    with pytest.raises(UserError, match='no trainable parameter'):
        param_groups(model)


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.neck = nn.Conv2d(4, 4, 1)
        self.bbox_head = nn.Conv2d(4, 2, 1)


def settings_by_name(model: nn.Module, **rules) -> dict[str, tuple[float, float]]:
    names = {id(p): n for n, p in model.named_parameters()}
    groups = param_groups(model, 0.1, 0.01, **rules)
    return {
        names[id(p)]: (g.get('lr', 0.1), g.get('weight_decay', 0.01))
        for g in groups
        for p in g['params']
    }


def test_rates_by_part_and_custom_key():
    got = settings_by_name(
        Detector(),
        backbone_lr_mult=0.1,
        head_lr_mult=2.0,
        custom_keys={'backbone.0': {'lr_mult': 0.5}, 'bbox_head.bias': {'decay_mult': 3.0}},
    )
    assert {n: (pytest.approx(lr), pytest.approx(wd)) for n, (lr, wd) in got.items()} == {
        'backbone.0.weight': (0.005, 0.01),  # 0.1 backbone x 0.5 custom
        'backbone.0.bias': (0.005, 0.0),  # the role still decides about the decay
        'backbone.1.weight': (0.01, 0.0),
        'backbone.1.bias': (0.01, 0.0),
        'neck.weight': (0.1, 0.01),
        'neck.bias': (0.1, 0.0),
        'bbox_head.weight': (0.2, 0.01),
        'bbox_head.bias': (0.2, 0.03),
    }


def test_the_longest_custom_key_wins():
    rules = GroupRules.from_cfg(
        {'custom_keys': {'back': {'lr_mult': 1}, 'backbone.1': {'lr_mult': 3}, 'bone': {}}}
    )
    assert rules.custom('backbone.1.weight') == {'lr_mult': 3}
    assert rules.custom('backbone.0.weight') == {'lr_mult': 1}
    assert rules.custom('neck.weight') == {}


def test_decay_multipliers_of_stock_configs():
    got = settings_by_name(
        Detector(), norm_decay_mult=1.0, bias_decay_mult=0.5, bypass_duplicate=True
    )
    assert got['backbone.1.weight'][1] == pytest.approx(0.01)
    assert got['neck.bias'][1] == pytest.approx(0.005)
    everything = settings_by_name(Detector(), excluded_decay_mult=1.0)
    assert {wd for _, wd in everything.values()} == {0.01}
    assert len(param_groups(Detector(), excluded_decay_mult=1.0)) == 1


def test_depthwise_kernels():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.Conv2d(4, 4, 1, bias=False))
    got = settings_by_name(model, dwconv_decay_mult=0.0)
    assert got == {'0.weight': (0.1, 0.0), '1.weight': (0.1, 0.01)}


def test_extra_settings_reach_the_group():
    groups = param_groups(Detector(), custom_keys={'neck': {'betas': (0.8, 0.9)}})
    assert {g.get('betas') for g in groups if 'betas' in g} == {(0.8, 0.9)}
    assert sum(len(g['params']) for g in groups if 'betas' in g) == 2


REFUSED = {
    'misspelt key': (
        {'norm_decay_mul': 0},
        "unknown paramwise_cfg key 'norm_decay_mul'.*norm_decay_mult",
    ),
    'misspelt role': ({'no_adapt': ['nrom']}, "unknown role in no_adapt 'nrom'.*'norm'"),
    'role as text': ({'no_adapt': 'norm'}, 'expected a list of roles'),
    'negative': ({'bias_lr_mult': -1}, 'bias_lr_mult=-1: expected a number of at least 0'),
    'not a number': ({'layer_decay_rate': 'x'}, "layer_decay_rate='x'"),
    'nan': ({'head_lr_mult': float('nan')}, 'head_lr_mult=nan'),
    'custom keys': ({'custom_keys': {'a': 0.1}}, 'custom_keys='),
    'custom value': ({'custom_keys': {'a': {'lr_mult': True}}}, r"custom_keys\['a'\]\['lr_mult'\]"),
    'absent part': ({'backbone_lr_mult': 0.1}, 'backbone_lr_mult: the model has no such part'),
    'no layers': (
        {'layer_decay_rate': 0.7},
        'layer_decay_rate: Linear has no layers to tell apart',
    ),
}


@pytest.mark.parametrize('case', REFUSED)
def test_refused(case):
    rules, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        param_groups(nn.Linear(2, 2), 0.1, 0.1, **rules)
    assert '\n' not in str(caught.value)


def test_a_rate_and_decay_that_are_given_are_meant_as_they_stand():
    model = nn.Sequential()
    model.add_module('backbone', nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))
    model.add_module('head', nn.Linear(8, 2))
    keys = {'backbone.1': dict(weight_decay=0.5), 'head': dict(lr=0.9)}
    groups = param_groups(model, 0.1, 0.05, custom_keys=keys, head_lr_mult=10.0)
    of = {id(p): g for g in groups for p in g['params']}
    assert of[id(model.backbone[1].weight)]['weight_decay'] == 0.5
    assert of[id(model.head.weight)]['lr'] == 0.9
    assert (of[id(model.head.bias)]['lr'], of[id(model.head.bias)]['weight_decay']) == (0.9, 0.0)


def test_a_multiplier_needs_its_base():
    with pytest.raises(UserError, match='a multiplier of lr needs lr itself'):
        param_groups(nn.Linear(2, 2), bias_lr_mult=2.0)


@settings(max_examples=50, deadline=None)
@given(
    mults=st.fixed_dictionaries(
        {}, optional={f'{r}_decay_mult': st.sampled_from([0, 0.5, 1, 2]) for r in ROLES[:-1]}
    ),
    lr=st.floats(1e-6, 10),
    bias_lr=st.sampled_from([0, 0.5, 1, 2]),
)
def test_settings_follow_the_product_of_multipliers(mults, lr, bias_lr):
    """For any rules: every parameter is in one group, with base times its multipliers."""
    model = Detector()
    rules = GroupRules.from_cfg({**mults, 'bias_lr_mult': bias_lr})
    groups = param_groups(model, lr, 0.3, **mults, bias_lr_mult=bias_lr)
    by_id = {id(p): g for g in groups for p in g['params']}
    assert len(by_id) == len(list(model.parameters())) == sum(len(g['params']) for g in groups)
    for p in parameters_with_roles(model):
        group = by_id[id(p.parameter)]
        assert group.get('lr', lr) == pytest.approx(lr * rules.lr_mult(p))
        assert group.get('weight_decay', 0.3) == pytest.approx(0.3 * rules.decay_mult(p))


# Depths by the conventions of BEiT/MAE (isotropic, Swin) and of ConvNeXt's optim_factory.py.
TIMM_DEPTHS = {
    'deit_small_patch16_224': (
        13,
        {'cls_token': 0, 'pos_embed': 0, 'patch_embed.proj.weight': 0, 'blocks.0.norm1.weight': 1,
         'blocks.11.mlp.fc2.bias': 12, 'norm.weight': 13, 'head.weight': 13},
    ),
    'swin_tiny_patch4_window7_224': (
        13,
        {'patch_embed.norm.weight': 0, 'layers.0.blocks.1.norm1.weight': 2,
         'layers.1.downsample.reduction.weight': 2, 'layers.1.blocks.0.norm1.weight': 3,
         'layers.3.downsample.norm.weight': 10, 'layers.3.blocks.1.mlp.fc1.weight': 12,
         'norm.bias': 13, 'head.fc.weight': 13},
    ),
    'convnext_tiny': (
        7,
        {'stem.0.weight': 0, 'stages.0.blocks.2.gamma': 1, 'stages.1.downsample.0.weight': 2,
         'stages.2.downsample.1.weight': 3, 'stages.2.blocks.0.gamma': 3, 'stages.2.blocks.8.gamma': 5,
         'stages.3.downsample.0.weight': 6, 'stages.3.blocks.0.gamma': 6, 'head.norm.weight': 7},
    ),
    'convnext_small': (13, {'stages.2.blocks.26.gamma': 11, 'stages.3.blocks.0.gamma': 12}),
}  # fmt: skip


@pytest.mark.parametrize('name', TIMM_DEPTHS)
def test_depths_in_timm(name):
    top, expected = TIMM_DEPTHS[name]
    depths, deepest = layer_depths(timm_model(name))
    assert deepest == top
    assert {n: depths[n] for n in expected} == expected
    assert set(depths.values()) == set(range(top + 1))


def executed(model: nn.Module, x: torch.Tensor) -> list[str]:
    """Names of the kernels in the order in which a forward uses them."""
    order: list[str] = []
    kernels = (nn.Linear, nn.modules.conv._ConvNd)
    for name, module in model.named_modules():
        if isinstance(module, kernels):
            module.register_forward_hook(lambda *_, n=name: order.append(f'{n}.weight'))
    with torch.no_grad():
        model.eval()(x)
    return list(dict.fromkeys(order))


@pytest.mark.parametrize('name', list_backbones())
def test_depths_of_the_catalog_grow_as_a_forward_goes(name):
    from bocb_mm.backbones import build_backbone, get_spec

    model = nn.Module()
    model.backbone = build_backbone(name)
    model.head = nn.Linear(2, 2)
    depths, top = layer_depths(model)
    assert set(depths) == {n for n, _ in model.named_parameters()}
    assert set(depths.values()) <= set(range(top + 1)) and top >= 5
    own = hasattr(model.backbone, 'get_layer_depth')  # mmpretrain's leave a depth out
    assert own or len(set(depths.values())) == top + 1
    assert depths['head.weight'] == top
    size = 224 if get_spec(name).fixed_size else 64
    order = executed(model.backbone, torch.zeros(1, 3, size, size))
    found = [depths[f'backbone.{n}'] for n in order]
    assert len(order) >= 5 and found[0] == 0 and found == sorted(found)


@pytest.mark.parametrize('name', ['resnet18', 'efficientnet_b0', 'regnety_002', 'mobilevit_xxs'])
def test_depths_of_other_networks_grow_as_a_forward_goes(name):
    import timm

    model = timm.create_model(name)
    depths, top = layer_depths(model)
    assert set(depths.values()) == set(range(top + 1)) and top >= 6
    found = [depths[n] for n in executed(model, torch.zeros(1, 3, 64, 64))]
    assert found[0] == 0 and found[-1] == top and found == sorted(found)


@pytest.mark.parametrize(('stages', 'inner'), [(4, 'layers'), (5, 'blocks'), (2, 'blocks')])
def test_a_convnext_of_other_names_is_divided_like_any_network(stages, inner):
    class ConvNextEncoder(nn.Module):
        def __init__(self):
            super().__init__()
            pairs = [nn.ModuleList([nn.Conv2d(4, 4, 1) for _ in 'ab']) for _ in range(stages)]
            self.stages = nn.ModuleList([nn.ModuleDict({inner: pair}) for pair in pairs])

    depths, top = layer_depths(ConvNextEncoder())
    assert top >= stages and len(set(depths.values())) >= stages


def test_layer_decay_multiplies_the_rate():
    model = nn.Module()
    model.backbone = timm_model('deit_small_patch16_224')
    model.head = nn.Linear(4, 4)
    names = {id(p): n for n, p in model.named_parameters()}
    groups = param_groups(model, 1.0, 0.05, layer_decay_rate=0.5, head_lr_mult=3.0)
    rates = {names[id(p)]: g.get('lr', 1.0) for g in groups for p in g['params']}
    assert rates['backbone.cls_token'] == pytest.approx(0.5**13)
    assert rates['backbone.blocks.3.attn.qkv.weight'] == pytest.approx(0.5**9)
    assert rates['backbone.norm.weight'] == 1.0
    assert rates['head.weight'] == 3.0
    assert len(groups) <= 2 * 14 + 2


@pytest.mark.parametrize(
    'cfg',
    [
        {'type': 'VisionTransformer', 'arch': 'deit-small'},
        {'type': 'SwinTransformer', 'arch': 'tiny'},
        {'type': 'ConvNeXt', 'arch': 'tiny'},
        {'type': 'ConvNeXt', 'arch': 'small'},
    ],
    ids=lambda c: '-'.join(c.values()),
)
def test_depths_equal_mmpretrains(cfg):
    """All parameters: our depth is what mmpretrain 1.2.0's get_layer_depth says."""
    import mmpretrain.models  # noqa: F401
    from mmengine.registry import DefaultScope
    from mmpretrain.registry import MODELS

    model = nn.Module()
    # A Runner of an earlier test may have left another toolbox's scope behind.
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model.backbone = MODELS.build(cfg)
    model.head = nn.Linear(2, 2)
    depths, top = layer_depths(model)
    for name, depth in depths.items():
        theirs, n = model.backbone.get_layer_depth(name, 'backbone.')
        assert (depth, top) == (theirs, n - 1), name


@pytest.mark.parametrize(
    ('name', 'pattern'),
    [
        ('Moga-S', r'\.layer_scale_[12]$|\.sigma\.scale$'),
        ('URLK-T', r'\.act\.1\.(gamma|beta)$'),
        ('CNXV2-T', r'\.grn\.(gamma|beta)$'),
        ('RVGG-A1', r'\.branch_norm\.weight$'),
        ('R-18-XS', r'^$'),
    ],
)
def test_official_decay_adds_what_the_networks_own_code_decays(name, pattern):
    from bocb_mm.backbones import build_backbone

    network = build_backbone(name)

    def decayed(**rules):
        groups = param_groups(network, 0.1, 0.05, **rules)
        names = {id(p): n for n, p in network.named_parameters()}
        return {names[id(p)] for g in groups for p in g['params'] if g.get('weight_decay') != 0}

    more = decayed(official_decay=True) - decayed()
    assert more == {n for n, _ in network.named_parameters() if re.search(pattern, n)}
    assert decayed() <= decayed(official_decay=True)


def test_official_decay_is_a_choice():
    with pytest.raises(UserError, match="official_decay='yes': expected True or False"):
        param_groups(nn.Linear(2, 2), official_decay='yes')
