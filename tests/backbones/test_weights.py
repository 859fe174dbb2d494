"""Weights of other libraries, under their own names, give the same maps; misfits are refused."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bocb_mm.backbones import get_spec, list_backbones
from bocb_mm.errors import UserError


@pytest.fixture(autouse=True)
def _quick(toolboxes, no_threads, no_drawing):
    torch.manual_seed(0)


def build(name, **kwargs):
    from bocb_mm.registry import MODELS

    return MODELS.build(dict(type=f'bocb_mm.{name}', **kwargs))


def filled(network):
    """Weights and statistics that a wrong place would betray, with signals of moderate size."""
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if not value.is_floating_point():
                continue
            if key.endswith('running_var'):
                value.uniform_(0.5, 1.5)
            elif value.ndim > 1 and value.numel() > value.shape[0]:
                value.normal_(0, 1.4 * value[0].numel() ** -0.5)
            else:
                value.normal_(0.3 if key.endswith('bias') else 0.8, 0.1)
    network.eval()  # None from mmpretrain's own
    return network


def settled(network):
    """Batch norms with the statistics of a batch, without which a deep ReLU network falls silent."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(2, 3, 224, 224))
    return network.eval()


def load(network, content, **kwargs):
    from bocb_mm.backbones.weights import load_weights

    loaded = load_weights(network, content, 'file.pth', **kwargs)
    network.eval()
    return loaded


def torchvision_model(name):
    import torchvision

    return filled(getattr(torchvision.models, name)(weights=None))


def timm_model(name):
    import timm

    return filled(timm.create_model(name, pretrained=False))


def last_map(network, x):
    return network(x)[-1]


def tokens_as_map(network, x, cls):
    y = network.forward_features(x)[:, cls:]
    return y.transpose(1, 2).unflatten(2, (14, 14))


PAIRS = {
    # our name, arguments: the other network and what of it equals our last output
    'AlexNet torchvision': ('AlexNet', {}, lambda: torchvision_model('alexnet'), lambda m, x: m.features(x)),
    'VGG-13 torchvision': ('VGG-13', {}, lambda: torchvision_model('vgg13_bn'), lambda m, x: m.features(x)),
    'R-50 torchvision': ('R-50', {}, lambda: torchvision_model('resnet50'), lambda m, x: nn.Sequential(*list(m.children())[:-2])(x)),
    'R-50 timm': ('R-50', {}, lambda: timm_model('resnet50'), lambda m, x: m.forward_features(x)),
    'DN-121 torchvision': ('DN-121', {}, lambda: torchvision_model('densenet121'), lambda m, x: F.relu(m.features(x))),
    'MobV2 torchvision': ('MobV2', dict(out_indices=(7,)), lambda: torchvision_model('mobilenet_v2'), lambda m, x: m.features(x)),
    'RVGG-A1 timm': ('RVGG-A1', {}, lambda: settled(timm_model('repvgg_a1')), lambda m, x: m.forward_features(x)),
    'DeiT-S timm': ('DeiT-S', dict(out_indices=(2,)), lambda: timm_model('deit_small_patch16_224'), lambda m, x: tokens_as_map(m, x, 1)),
    'DeiT-S class token': ('DeiT-S', dict(classifier=True), lambda: timm_model('deit_small_patch16_224'), lambda m, x: m.forward_features(x)[:, 0]),
    'MLP-S timm': ('MLP-S', dict(out_indices=(2,)), lambda: timm_model('mixer_s16_224'), lambda m, x: tokens_as_map(m, x, 0)),
    'Swin-T timm': ('Swin-T', dict(classifier=True), lambda: timm_model('swin_tiny_patch4_window7_224'), lambda m, x: m.forward_features(x).permute(0, 3, 1, 2)),
    'CNX-T timm': ('CNX-T', dict(classifier=True), lambda: timm_model('convnext_tiny'), lambda m, x: m.forward_head(m.forward_features(x), pre_logits=True)),
    'CNXV2-T timm': ('CNXV2-T', dict(classifier=True), lambda: timm_model('convnextv2_tiny'), lambda m, x: m.forward_head(m.forward_features(x), pre_logits=True)),
    'PFV2-12 timm': ('PFV2-12', {}, lambda: timm_model('poolformerv2_s12'), lambda m, x: m.forward_features(x)),
}  # fmt: skip


@pytest.mark.parametrize('pair', PAIRS)
def test_other_libraries_weights_give_their_maps(pair, tmp_path):
    from bocb_mm.backbones.weights import load_pretrained

    name, kwargs, make, reference = PAIRS[pair]
    other = make()
    path = tmp_path / 'weights.pth'
    torch.save(other.state_dict(), path)
    ours = build(name, **kwargs)
    load_pretrained(ours, str(path))
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected, found = reference(other, x), last_map(ours.eval(), x)
    assert float(expected.std()) > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


# Names in the authors' own files, made from ours by the inverse of what the official code says.
AUTHORS = {
    'RVGG-A1': [
        (r'^stem\.', 'stage0.'), (r'^stage_', 'stage'), (r'branch_norm', 'rbr_identity'),
        (r'branch_3x3\.norm', 'rbr_dense.bn'), (r'branch_1x1\.norm', 'rbr_1x1.bn'),
        (r'branch_3x3', 'rbr_dense'), (r'branch_1x1', 'rbr_1x1'),
    ],
    'CNX-T': [
        ('depthwise_conv', 'dwconv'), (r'pointwise_conv', 'pwconv'), (r'^norm3\.', 'norm.'),
    ],
    'CNXV2-T': [
        ('depthwise_conv', 'dwconv'), (r'pointwise_conv', 'pwconv'), (r'^norm3\.', 'norm.'),
    ],
    'DeiT-S': [
        ('patch_embed.projection', 'patch_embed.proj'), (r'^layers', 'blocks'), (r'\.ln', '.norm'),
        (r'ffn\.layers\.0\.0', 'mlp.fc1'), (r'ffn\.layers\.1', 'mlp.fc2'), (r'^ln1', 'norm'),
    ],
    'CF-12': [
        (r'^stages\.(\d)\.downsample\.norm', r'downsample_layers.\1.pre_norm'),
        (r'^stages\.(\d)\.downsample', r'downsample_layers.\1'),
        (r'^stem\.norm', 'downsample_layers.0.post_norm'), (r'^stem', 'downsample_layers.0'),
        (r'\.blocks\.', '.'), (r'^head\.norm', 'norm'), (r'^head\.fc', 'head'),
    ],
}  # fmt: skip


AUTHORS['AF-12'] = AUTHORS['CAF-12'] = AUTHORS['CF-12']


@pytest.mark.parametrize('name', AUTHORS)
def test_the_authors_files(name):
    inside = get_spec(name).head == 'inside'
    kwargs = dict(num_classes=1000) if inside else dict(classifier=True)
    source = filled(build(name, **kwargs))
    file = {}
    for key, value in source.state_dict().items():
        for pattern, replacement in AUTHORS[name]:
            key = re.sub(pattern, replacement, key)
        if '.grn.' in key:
            value = value[None, None, None]
        # sail-sg's 1x1 convolutions, in the mixers too, are linear layers
        if name in ('CF-12', 'AF-12', 'CAF-12') and value.shape[2:] == (1, 1):
            value = value[:, :, 0, 0]
        file[key] = value
    target = build(name, **kwargs)
    loaded = load(target, {'model': file, 'epoch': 299})
    assert loaded.fresh == ()
    for key, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[key]), key


def test_swin_authors_file_equals_timms():
    timm_weights = timm_model('swin_tiny_patch4_window7_224').state_dict()
    authors = {}
    for key, value in timm_weights.items():
        key = re.sub(
            r'^layers\.(\d)\.downsample', lambda m: f'layers.{int(m[1]) - 1}.downsample', key
        )
        authors[key.replace('head.fc', 'head')] = value
    a, b = build('Swin-T'), build('Swin-T')
    load(a, timm_weights)
    load(b, {'model': authors})
    for key, value in a.state_dict().items():
        if not re.match(r'norm[012]', key):
            assert torch.equal(value, b.state_dict()[key]), key


@pytest.mark.parametrize('name', list_backbones())
def test_own_files_in_every_wrapping(name):
    spec = get_spec(name)
    kwargs = dict(num_classes=7) if spec.head == 'inside' else dict(classifier=True)
    source = filled(build(name, **kwargs)).state_dict()
    # without the networks' many weights twice in memory: one wrapping each, in turn
    wrappings = [
        lambda s: s,
        lambda s: {'state_dict': {f'backbone.{k}': v for k, v in s.items()} | {'head.fc.weight': torch.zeros(3)}},
        lambda s: {'model': {f'module.{k}': v for k, v in s.items()}},
        lambda s: {'state_dict': {f'module.backbone.{k}': v for k, v in s.items()}},
    ]  # fmt: skip
    wrap = wrappings[list_backbones().index(name) % len(wrappings)]
    target = build(name)  # the form with maps
    loaded = load(target, wrap(source))
    for key, value in target.state_dict().items():
        if key in source:
            assert torch.equal(value, source[key]), key
        else:
            assert key in loaded.fresh, key
    assert all(re.match(r'norm\d?\.|pyramid\.', k) for k in loaded.fresh)
    # a part of the network, so a part of the file
    part = build(name, out_indices=(0,))
    load(part, wrap(source))


def test_openmmlab_files_leave_nothing_out(tmp_path):
    import mmpretrain.models as m

    for name, other in {
        'R-50': m.ResNet(50),
        'Swin-T': m.SwinTransformer('tiny', out_indices=(0, 1, 2, 3)),
        'CNX-T': m.ConvNeXt('tiny', out_indices=(0, 1, 2, 3), gap_before_final_norm=False),
        'VGG-13': m.VGG(13, norm_cfg=dict(type='BN')),
    }.items():
        path = tmp_path / 'published.pth'
        state = {f'backbone.{k}': v for k, v in filled(other).state_dict().items()}
        torch.save({'meta': {}, 'state_dict': state}, path)
        ours = build(name, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
        ours.init_weights()
        assert all(torch.equal(v, state[f'backbone.{k}']) for k, v in ours.state_dict().items())


def test_positions_are_resized():
    for size in (384, 224):
        source = filled(build('DeiT-S', img_size=size, classifier=True)).state_dict()
        target = build('DeiT-S', img_size=(256, 192))
        loaded = load(target, dict(source))
        assert target.pos_embed.shape == (1, 1 + 16 * 12, 384)
        assert len(loaded.resized) == 1
        assert torch.equal(target.pos_embed[:, 0], source['pos_embed'][:, 0])
    # a table that depends on the column only still does
    ramp = torch.arange(14.0).repeat(14)[None, :, None].expand(1, 196, 384)
    source['pos_embed'] = torch.cat((torch.zeros(1, 1, 384), ramp), 1)
    load(target, dict(source))
    grid = target.pos_embed[0, 1:].unflatten(0, (16, 12))
    torch.testing.assert_close(grid, grid[:1].expand_as(grid), rtol=0, atol=1e-4)
    assert (grid[0, 1:, 0] > grid[0, :-1, 0]).all()


def test_relative_positions_are_resized():
    source = filled(build('Swin-T', window_size=12, classifier=True)).state_dict()
    target = build('Swin-T')
    assert len(load(target, source).resized) == 12
    table = 'stages.0.blocks.0.attn.w_msa.relative_position_bias_table'
    assert target.state_dict()[table].shape == (169, 3)
    from bocb_mm.backbones.tables import resize_relative

    same = torch.randn(169, 3)
    torch.testing.assert_close(resize_relative(same, 169), same)


def test_classifier_of_other_classes_stays_behind():
    source = filled(build('CF-12', num_classes=1000)).state_dict()
    target = build('CF-12', num_classes=10)
    loaded = load(target, source)
    assert loaded.fresh == ('head.fc.fc2.weight', 'head.fc.fc2.bias')
    again = build('CF-12', num_classes=1000)
    assert load(again, source).fresh == ()


def test_mae_files_bring_their_encoder():
    source = filled(build('DeiT-S', classifier=True)).state_dict()
    file = {}
    for key, value in source.items():
        for pattern, replacement in AUTHORS['DeiT-S']:
            key = re.sub(pattern, replacement, key)
        file[key] = value
    file |= {'mask_token': torch.zeros(1, 1, 512), 'decoder_blocks.0.norm1.weight': torch.ones(512)}
    assert load(build('DeiT-S', classifier=True), {'model': file}).fresh == ()
    encoder = {f'encoder.{k}': v for k, v in file.items()}
    assert load(build('DeiT-S', classifier=True), encoder).fresh == ()


def wrong(name, other, **kwargs):
    with pytest.raises(UserError) as error:
        load(build(name, **kwargs), other.state_dict() if isinstance(other, nn.Module) else other)
    text = str(error.value)
    assert '\n' not in text
    return text


def test_other_networks_are_refused_by_the_names_that_do_not_fit():
    assert 'such as conv1.weight' not in wrong('R-50', build('R-18'))
    assert 'weights are missing, such as layer1.0.conv3.weight' in wrong('R-50', build('R-18'))
    assert 'it has 80 that R-18 lacks, such as layer1.2' in wrong(
        'R-18', torchvision_model('resnet34')
    )
    assert 'conv1.weight (64, 3, 7, 7) for (64, 3, 3, 3)' in wrong(
        'R-50', build('R-50'), cifar=True
    )
    assert 'weights are missing' in wrong('CNX-T', build('R-18'))
    assert 'grn' in wrong('CNX-T', build('CNXV2-T'))
    assert '.gamma' in wrong('CNXV2-T', build('CNX-T'))
    assert 'pos_embed (1, 198, 384)' in wrong(
        'DeiT-S', build('DeiT-S').state_dict() | {'pos_embed': torch.zeros(1, 198, 384)}
    )
    # fixed to its image size
    assert '(256, 196) for (256, 192)' in wrong('MLP-S', build('MLP-S'), img_size=(256, 192))
    # padding and epsilon differ: the same counts, other numbers
    assert 'weights are missing' in wrong('Eff-B0', timm_model('efficientnet_b0'))


def test_files_without_weights_and_with_other_prefixes():
    with pytest.raises(UserError, match='holds no weights, its keys are epoch'):
        load(build('R-18-XS'), {'epoch': 1})
    weights = {f'student.{k}': v for k, v in build('R-18-XS').state_dict().items()}
    assert load(build('R-18-XS'), weights).prefix == 'student.'
    assert load(build('R-18-XS'), weights, prefix='student').fresh == ()
    with pytest.raises(UserError, match="no name begins with 'teacher.'"):
        load(build('R-18-XS'), weights, prefix='teacher')


@pytest.mark.parametrize(
    'name', sorted({c for n in list_backbones(extras=True) for c in get_spec(n).checkpoints})
)
def test_published_names_have_an_address(name):
    from mmengine.runner.checkpoint import get_torchvision_models

    from bocb_mm.checkpoints.download import resolve

    if name.startswith('torchvision://'):
        assert name.partition('://')[2] in get_torchvision_models()
    else:
        assert resolve(name).startswith('https://')


def test_unpublished_names():
    from bocb_mm.checkpoints.download import resolve

    with pytest.raises(UserError, match=r'did you mean .*mmpretrain://resnet50_8xb32_in1k'):
        resolve('mmpretrain://resnet50_8xb32_in1')
    with pytest.raises(UserError, match='timm://resnet5000: no published weights'):
        resolve('timm://resnet5000')
