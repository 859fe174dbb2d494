"""Backbones that are not of the catalog: the toolboxes' own, from files of every usual kind."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from bocb_mm.errors import UserError


@pytest.fixture(autouse=True)
def _quick(toolboxes, no_threads, no_drawing):
    torch.manual_seed(0)


def build(scope, **cfg):
    import importlib

    return importlib.import_module(f'{scope}.registry').MODELS.build(cfg)


def drawn(network, seed=1):
    """The state of a network, every number in it drawn."""
    generator = torch.Generator().manual_seed(seed)
    return {
        k: torch.randn(v.shape, generator=generator) if v.is_floating_point() else v
        for k, v in network.state_dict().items()
    }


def under(prefix, state):
    return {prefix + k: v for k, v in state.items()}


HEAD = {'head.fc.weight': torch.zeros(10, 512), 'head.fc.bias': torch.zeros(10)}
NECK = {
    **{f'neck.lateral_convs.{i}.conv.weight': torch.zeros(256, 512, 1, 1) for i in range(3)},
    'bbox_head.retina_cls.weight': torch.zeros(720, 256, 3, 3),
}
# What people have: the file's content, made from the names and numbers of a ResNet-18.
RESNET_FILES = {
    'torchvision': lambda s: s | {'fc.weight': torch.zeros(1000, 512), 'fc.bias': torch.zeros(1000)},
    'DataParallel': lambda s: under('module.', s),
    "PyTorch's ImageNet example": lambda s: {
        'epoch': 90, 'state_dict': under('module.', s), 'best_acc1': torch.tensor(69.8), 'optimizer': {},
    },
    'a classifier of mmpretrain': lambda s: {'meta': {}, 'state_dict': under('backbone.', s) | HEAD},
    'a detector': lambda s: {'meta': {}, 'state_dict': under('backbone.', s) | NECK},
    'Lightning': lambda s: {'state_dict': under('model.', s) | {'model.fc.weight': torch.zeros(9, 512)}},
    'MoCo': lambda s: {'state_dict': {
        **under('module.encoder_q.', s), **under('module.encoder_k.', {k: v + 1 for k, v in s.items()}),
        'module.queue': torch.zeros(128, 999),
    }},
    'timm, saved by its trainer': lambda s: {'arch': 'resnet18', 'state_dict': s, 'state_dict_ema': s},
    'without counters': lambda s: {k: v for k, v in s.items() if 'num_batches' not in k},
    'an unknown container and prefix': lambda s: {'nets': under('teacher.trunk.', s), 'step': torch.ones(1)},
}  # fmt: skip


@pytest.mark.parametrize('scope', ['mmdet', 'mmpose', 'mmpretrain'])
@pytest.mark.parametrize('file', RESNET_FILES)
def test_a_stock_resnet_takes_every_usual_file(scope, file, tmp_path):
    from bocb_mm.backbones.weights import load_pretrained

    network = build(scope, type='ResNet', depth=18)
    state = drawn(network)
    path = tmp_path / 'file.pth'
    torch.save(RESNET_FILES[file](state), path)
    loaded = load_pretrained(network, str(path))
    assert loaded.n_loaded == loaded.n_tensors == 100 and loaded.share == 1
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


def timm_network(name, **kwargs):
    import timm

    return timm.create_model(name, **kwargs)


def timm_backbone(name, **kwargs):
    return build('mmpretrain', type='TIMMBackbone', model_name=name, **kwargs)


def saved_classifier(network):
    return {'state_dict': under('backbone.', drawn(network)) | HEAD}


TIMM = {
    'ResNet': ('resnet18', {}),
    'ResNet, maps': ('resnet18', dict(features_only=True)),
    'EfficientNet, maps': ('tf_efficientnet_lite0', dict(features_only=True, out_indices=(2, 3, 4))),
    'ConvNeXt, maps': ('convnext_atto', dict(features_only=True)),
    'Swin, maps': ('swin_tiny_patch4_window7_224', dict(features_only=True)),
    'ViT, maps': ('vit_tiny_patch16_224', dict(features_only=True)),
}  # fmt: skip


@pytest.mark.parametrize('name', TIMM)
def test_timm_backbone_takes_timms_own_file_and_its_own(name):
    from bocb_mm.backbones.weights import load_weights

    model, kwargs = TIMM[name]
    network = timm_backbone(model, **kwargs)
    original = timm_network(model)
    file = drawn(original)
    assert load_weights(network, file, 'timm.pth').share == 1
    taken = network.state_dict()
    # timm joins the first two levels of a name for its maps
    flat = {re.sub(r'^([a-z]+)\.(\d+)\.', r'\1_\2.', k): v for k, v in file.items()}
    for key, value in taken.items():
        bare = key.removeprefix('timm_model.').removeprefix('model.')
        assert torch.equal(value, file[bare] if bare in file else flat[bare]), key
    own = saved_classifier(network)
    assert load_weights(network, own, 'own.pth').prefix == 'backbone.'
    for key, value in network.state_dict().items():
        assert torch.equal(value, own['state_dict'][f'backbone.{key}']), key


def test_efficientnet_pytorch_names(toolboxes):
    """The package's order of tensors is timm's: ../shared/specs/pretrained_weights.md."""
    from bocb_mm.backbones.weights import load_weights

    original = timm_network('tf_efficientnet_lite0')
    state = {k: v for k, v in drawn(original).items() if 'num_batches' not in k}
    file, count = {}, -1
    for key, value in state.items():
        name = re.sub(r'^conv_(stem|head)', r'_conv_\1', key).replace('classifier', '_fc')
        name = re.sub(r'^bn([12])', lambda m: f'_bn{int(m[1]) - 1}', name)
        block = re.match(r'blocks\.(\d)\.(\d)\.(\w+)', key)
        if block:
            first = block[3] in ('conv_pw', 'conv_dw') and block[3] == (
                'conv_dw' if block[1] == '0' else 'conv_pw'
            )
            count += first
            parts = (
                {'conv_dw': '_depthwise_conv', 'bn1': '_bn1', 'conv_pw': '_project_conv', 'bn2': '_bn2'}
                if block[1] == '0'
                else {'conv_pw': '_expand_conv', 'bn1': '_bn0', 'conv_dw': '_depthwise_conv',
                      'bn2': '_bn1', 'conv_pwl': '_project_conv', 'bn3': '_bn2'}
            )  # fmt: skip
            name = f'_blocks.{count}.{parts[block[3]]}.{key.rpartition(".")[2]}'
        file[name] = value
    assert len(file) == 247 and '_blocks.15._bn2.running_var' in file
    network = timm_backbone('tf_efficientnet_lite0', features_only=True, out_indices=(2, 3, 4))
    loaded = load_weights(network, file, 'lite0.pth')
    assert loaded.share == 1
    for key, value in network.state_dict().items():
        assert 'num_batches' in key or torch.equal(value, state[key.removeprefix('timm_model.')])


SWIN = dict(type='SwinTransformer', out_indices=(0, 1, 2, 3))
CONVNEXT = dict(type='ConvNeXt', arch='atto', out_indices=(0, 1, 2, 3), gap_before_final_norm=False)
# stock network, the names of its file's parts that nothing is left for, and the file
FAMILIES = {
    'Swin of mmpretrain': ('mmpretrain', dict(SWIN, arch='tiny')),
    'Swin of mmdet': ('mmdet', SWIN),
    'Swin of mmpose': ('mmpose', SWIN),
    'ConvNeXt of mmpretrain': ('mmpretrain', CONVNEXT),
}


@pytest.mark.parametrize('name', FAMILIES)
def test_swin_and_convnext_of_the_toolboxes(name):
    """From timm's file as the catalog's network, whose maps test_weights.py compares with timm's."""
    from bocb_mm.backbones import get_spec
    from bocb_mm.backbones.build import build as build_row
    from bocb_mm.backbones.weights import load_weights

    scope, cfg = FAMILIES[name]
    swin = 'Swin' in name
    stock = build(scope, **cfg)
    catalog = build_row(get_spec('Swin-T' if swin else 'CNX-A'))
    file = drawn(timm_network('swin_tiny_patch4_window7_224' if swin else 'convnext_atto'))
    assert load_weights(stock, file, 'timm.pth').share > 0.99  # but for the norms of the maps
    load_weights(catalog, file, 'timm.pth')
    expected = catalog.state_dict()
    for key, value in stock.state_dict().items():
        if not re.match(r'norm[012]\.', key):
            assert torch.equal(value, expected[key]), key
    own = saved_classifier(stock)
    assert load_weights(stock, own, 'own.pth').share == 1
    for key, value in stock.state_dict().items():
        if 'relative_position_index' not in key:
            assert torch.equal(value, own['state_dict'][f'backbone.{key}']), key


@pytest.mark.parametrize('scope', ['mmdet', 'mmpose'])
def test_pvt_of_the_toolboxes_takes_the_authors_file(scope):
    import importlib

    from bocb_mm.backbones.weights import load_weights

    module = importlib.import_module(f'{scope}.models.backbones.pvt')
    network = module.PyramidVisionTransformer(num_layers=[1, 1, 1, 1])
    own, file = drawn(network), {}
    for key, value in own.items():
        stage = int(key.split('.')[1]) + 1
        name = re.sub(r'^layers\.\d\.', '', key)
        name = re.sub(r'^1\.0\.pos_embed', f'pos_embed{stage}', name)
        name = re.sub(r'^0\.', f'patch_embed{stage}.', name).replace('projection', 'proj')
        name = re.sub(r'^1\.1\.', f'block{stage}.0.', name).replace(
            'attn.attn.out_proj', 'attn.proj'
        )
        name = name.replace('ffn.layers.0', 'mlp.fc1').replace('ffn.layers.3', 'mlp.fc2')
        if 'in_proj' in name:  # kept apart there
            name, width = name.replace('attn.attn.in_proj_', 'attn.{}.'), value.shape[0] // 3
            file |= {name.format('q'): value[:width], name.format('kv'): value[width:]}
        else:
            file[name] = value.flatten(1) if 'mlp' in name and value.ndim == 4 else value
    assert load_weights(network, {'model': file}, 'pvt.pth').share == 1
    assert all(torch.equal(v, own[k]) for k, v in network.state_dict().items())


def test_a_file_of_another_network_is_refused_with_the_names_of_both_sides():
    from bocb_mm.backbones.weights import load_weights

    network = build('mmdet', type='ResNet', depth=18)
    network.load_state_dict(drawn(network, seed=2))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    other = under('encoder.', drawn(timm_network('convnext_atto')))
    with pytest.raises(UserError) as error:
        load_weights(network, {'state_dict': other}, 'other.pth')
    text = str(error.value)
    assert '\n' not in text and text.startswith(
        'other.pth: has 0 % of the parameters of this ResNet'
    )
    assert 'conv1.weight' in text and 'encoder.stem.0.weight' in text and '90 % are needed' in text
    half = {k: v for k, v in drawn(network).items() if not k.startswith('layer4')}
    with pytest.raises(UserError, match=r"behind the prefix 'net\.' conv1\.weight"):
        load_weights(network, under('net.', half), 'half.pth')
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_less_may_be_asked_for():
    from bocb_mm.backbones.weights import load_weights

    network = build('mmdet', type='ResNet', depth=18)
    stem = {k: v for k, v in drawn(network).items() if k.startswith(('conv1', 'bn1'))}
    loaded = load_weights(network, stem, 'stem.pth', least=0)
    assert (loaded.n_loaded, round(loaded.share, 5)) == (5, 0.00086)
    assert torch.equal(network.conv1.weight, stem['conv1.weight'])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    prefix=st.text('ab01_.', max_size=12).filter(lambda p: not p or p.endswith('.')),
    others=st.dictionaries(st.text('abw.', min_size=1, max_size=9), st.integers(1, 40), max_size=5),
    first=st.booleans(),
)
def test_any_prefix_is_found_among_any_other_tensors(prefix, others, first):
    from bocb_mm.backbones.weights import load_weights

    network = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 6))
    state = drawn(network)
    noise = {k: torch.zeros(n) for k, n in others.items() if not k.startswith(prefix or '0')}
    parts = [noise, under(prefix, state)] if first else [under(prefix, state), noise]
    loaded = load_weights(network, {'state_dict': parts[0] | parts[1]}, 'f')
    assert loaded.share == 1
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


def test_the_prefix_of_the_best_match_is_taken_and_the_first_of_two_alike():
    from bocb_mm.backbones.matching import best_match

    net = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6))
    state = net.state_dict()
    stem = {k: v for k, v in state.items() if k.startswith('0.')}
    file = under('a.', stem) | under('teacher.', state) | under('student.', state)
    assert best_match(net, file, 'f').prefix == 'teacher.'
    assert best_match(net, file, 'f', 'student').prefix == 'student.'
    assert (
        best_match(net, under('x.', {k: v[..., None] for k, v in state.items()}), 'f').n_numbers
        == 61
    )
