"""One table drives the checks of every backbone: shapes, counts, arguments, bad input."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from bocb_mm.backbones import get_spec, list_backbones
from bocb_mm.errors import UserError

TWENTY = list_backbones()
ALL = list_backbones(extras=True)
CIFAR = [n for n in TWENTY if get_spec(n).cifar is not None]
FLEXIBLE = [n for n in TWENTY if not get_spec(n).fixed_size]


@pytest.fixture(autouse=True)
def _quick(no_drawing, toolboxes):
    torch.manual_seed(0)


def build(name, **kwargs):
    from bocb_mm.registry import MODELS

    return MODELS.build(dict(type=name, **kwargs))


def size(network):
    return sum(p.numel() for p in network.parameters())


def randomise(network):
    """Weights that keep signals of moderate size, whatever the constructor left."""
    for p in network.parameters():
        with torch.no_grad():
            p.normal_(0.3, 0.02) if p.ndim < 2 else p.normal_(0, p[0].numel() ** -0.5)


def image(name, h=65, w=50, n=1):
    return torch.randn(n, 3, 224, 224) if get_spec(name).fixed_size else torch.randn(n, 3, h, w)


@pytest.mark.parametrize('name', ALL)
def test_counts_of_weights_are_exact(name):
    from mmpretrain.registry import MODELS

    spec = get_spec(name)
    for classes, total in ((1000, spec.parameters.total_1000), (100, spec.parameters.total_100)):
        model = MODELS.build(spec.classifier(classes))
        assert size(model) == total
    if spec.cifar:
        model = MODELS.build(spec.classifier(100, cifar=True))
        assert size(model) == spec.parameters.cifar_100
        # the stem's stride moves no weight
        assert size(MODELS.build(spec.classifier(100, cifar=True, stem_stride=2))) == size(model)


@pytest.mark.parametrize('name', TWENTY)
def test_counts_without_the_classifier(name):
    spec = get_spec(name)
    if spec.head == 'inside':
        network = build(spec.type, num_classes=10)
        inner = ('head.fc.', 'head.', 'classifier.')
        prefix = 'head.fc.' if spec.family == 'MetaFormer' else inner[1:]
        count = sum(p.numel() for k, p in network.named_parameters() if not k.startswith(prefix))
    else:
        count = size(build(spec.type, classifier=True))
    assert count == spec.parameters.backbone


@pytest.mark.parametrize('name', ALL)
def test_maps_have_the_channels_and_strides_of_the_catalog(name):
    spec = get_spec(name)
    network = build(spec.type, out_indices=range(len(spec.channels))).eval()
    x = image(name, 96, 64)
    with torch.no_grad():
        maps = network(x)
    assert isinstance(maps, tuple)
    assert network.channels == spec.channels
    assert network.strides == spec.strides
    for m, channels, stride in zip(maps, spec.channels, spec.strides, strict=True):
        assert m.shape[1] == channels
        if name == 'AlexNet':  # its convolutions and poolings have no full padding
            assert x.shape[2] / m.shape[2] >= stride
        else:
            assert m.shape[2:] == (x.shape[2] // stride, x.shape[3] // stride)
    with pytest.raises(UserError, match=r'31x40 pixels.*(at least|takes 224x224 only)'):
        network(torch.randn(1, 3, 31, 40))


@pytest.mark.parametrize('name', FLEXIBLE)
def test_pictures_that_are_no_multiple_of_the_stride(name):
    spec = get_spec(name)
    network = build(spec.type).eval()
    assert network.channels == tuple(spec.channels[i] for i in spec.out_indices)
    with torch.no_grad():
        maps = network(torch.randn(1, 3, 71, 101))
    for m, stride in zip(maps, network.strides, strict=True):
        for side, pixels in zip(m.shape[2:], (71, 101)):
            low = math.floor(pixels / stride) - (1 if name == 'AlexNet' else 0)
            # DeiT pads to whole patches of 16 pixels, from which the finer maps are made
            high = math.ceil(pixels / 16) * 16 // stride if name == 'DeiT-S' else 0
            assert low <= side <= max(high, math.ceil(pixels / stride))


@pytest.mark.parametrize('name', CIFAR)
@pytest.mark.parametrize('stem_stride', [1, 2])
def test_cifar_variants(name, stem_stride):
    spec = get_spec(name)
    network = build(spec.type, cifar=True, stem_stride=stem_stride, out_indices=(0, 1, 2, 3)).eval()
    with torch.no_grad():
        maps = network(torch.randn(1, 3, 32, 32))
    assert network.strides == tuple(s * stem_stride for s in spec.cifar.strides)
    assert [32 // m.shape[-1] for m in maps] == list(network.strides)


def test_the_stem_stride_of_cifar_variants_defaults_to_the_code_bases():
    assert build('bocb_mm.R-50', cifar=True).strides == (1, 2, 4, 8)


@pytest.mark.parametrize('name', TWENTY)
def test_no_weight_lacks_a_gradient_whatever_maps_are_taken(name):
    spec = get_spec(name)
    for out_indices in ((1,), spec.fpn_out_indices):
        network = build(spec.type, out_indices=out_indices)
        maps = network(image(name, 65, 66, 2))
        assert len(maps) == len(out_indices)
        sum(m.mean() for m in maps).backward()
        assert [k for k, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize('name', ALL)
def test_frozen_stages(name):
    network = build(f'bocb_mm.{name}')
    every = {id(p) for p in network.parameters()}
    grouped = set()
    for group in network.groups:
        for _, part in network._parts(group):
            grouped |= {id(p) for p in getattr(part, 'parameters', lambda part=part: [part])()}
    beside = {id(p) for k, p in network.named_parameters() if k.startswith('pyramid.')}
    assert every - beside == grouped, 'a weight is in no stage'
    stages = len(network.groups) - 1
    for frozen in (0, stages - 1):
        network = build(f'bocb_mm.{name}', frozen_stages=frozen)
        assert network.train() is network
        for index, group in enumerate(network.groups):
            for _, part in network._parts(group):
                weights = [part] if isinstance(part, torch.Tensor) else list(part.parameters())
                assert all(p.requires_grad == (index > frozen) for p in weights)
                if weights and isinstance(part, torch.nn.Module):
                    # not every module: DenseNet has one ReLU for all stages
                    kept = [m for m in part.modules() if list(m.parameters(recurse=False))]
                    assert all(m.training == (index > frozen) for m in kept)


@pytest.mark.parametrize('name', ALL)
def test_norm_eval_stops_batch_norms_only(name):
    network = build(f'bocb_mm.{name}', norm_eval=True).train()
    norms = [m for m in network.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert not any(m.training for m in norms)
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert network.eval() is network
    assert not network.training


@pytest.mark.parametrize('name', TWENTY)
def test_recomputation_gives_the_same_gradients_and_statistics(name):
    plain = build(f'bocb_mm.{name}').train()
    randomise(plain)
    saving = build(f'bocb_mm.{name}', with_cp=True).train()
    saving.load_state_dict(plain.state_dict())
    saving = copy.deepcopy(saving)  # as mmengine's EMA hook does
    x = image(name, 64, 66, 2) if name == 'AlexNet' else image(name, 32, 34, 2)
    for network in (plain, saving):
        sum(m.square().mean() for m in network(x)).backward()
    for (k, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5, msg=k)
    for (k, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=k)


@pytest.mark.parametrize('name', ['R-50', 'MogaNet-S'])
def test_recomputation_with_batch_norm_over_processes(name):
    saving = build(f'bocb_mm.{name}', with_cp=True)
    saving = torch.nn.SyncBatchNorm.convert_sync_batchnorm(saving).train()
    sum(m.square().mean() for m in saving(image(name, 32, 34, 2))).backward()
    counts = {int(v) for k, v in saving.named_buffers() if k.endswith('num_batches_tracked')}
    assert counts == {1}


@pytest.mark.parametrize('name', TWENTY)
def test_stochastic_depth(name):
    spec = get_spec(name)
    if not spec.droppable:
        with pytest.raises(UserError, match='has no residual branch to drop'):
            build(spec.type, drop_path_rate=0.1)
        return
    network = build(spec.type, drop_path_rate=0.9)
    kinds = [m for m in network.modules() if type(m).__name__ == 'DropPath']
    rates = [getattr(m, 'rate', getattr(m, 'drop_prob', None)) for m in kinds]
    shares = {'MobV2': 15 / 16, 'Eff-B0': 15 / 16}  # the last block has no branch; i / 16
    assert max(rates) == pytest.approx(0.9 * shares.get(name, 1))
    assert rates == sorted(rates)
    assert network.state_dict().keys() == build(spec.type).state_dict().keys()


def test_efficientnet_drops_block_i_of_16_with_i_sixteenths():
    """As TensorFlow's and timm's code; mmpretrain spreads the rate over i / 15."""
    import timm

    def rates(network):
        kinds = [m for m in network.modules() if type(m).__name__ == 'DropPath']
        return [m.drop_prob for m in kinds]

    theirs = rates(timm.create_model('efficientnet_b0', drop_path_rate=0.16))
    assert theirs == pytest.approx([i / 100 for i in range(1, 16)])
    assert rates(build('bocb_mm.Eff-B0', drop_path_rate=0.16)) == pytest.approx(theirs)


def test_names_are_found_in_every_spelling(toolboxes):
    for name in ('bocb_mm.R-50', 'bocb_mm.r-50', 'bocb_mm.ResNet-50', 'bocb_mm.resnet-50'):
        assert build(name).channels == (256, 512, 1024, 2048)
    from mmdet.registry import MODELS as MMDET
    from mmpose.registry import MODELS as MMPOSE
    from mmpretrain.registry import MODELS as MMPRETRAIN

    for registry in (MMDET, MMPOSE, MMPRETRAIN):
        assert registry.build(dict(type='bocb_mm.CNX-A')).strides == (4, 8, 16, 32)


def test_table_3_networks_are_upstream_s_with_upstream_s_names():
    import mmpretrain.models as m

    for name, plain in {
        'VGG-13': m.VGG(13, norm_cfg=dict(type='BN'), num_classes=1000),
        'R-50': m.ResNet(50, out_indices=(0, 1, 2, 3)),
        'Swin-T': m.SwinTransformer('tiny', out_indices=(0, 1, 2, 3)),
        'CNX-T': m.ConvNeXt('tiny', out_indices=(0, 1, 2, 3)),
    }.items():
        ours = build(f'bocb_mm.{name}', **(dict(num_classes=1000) if name == 'VGG-13' else {}))
        assert isinstance(ours, type(plain))
        assert {k: v.shape for k, v in ours.state_dict().items()} == {
            k: v.shape for k, v in plain.state_dict().items()
        }


@pytest.mark.parametrize('name', ['RVGG-A1', 'URLK-T'])
def test_merging_branches_keeps_the_outputs(name):
    network = build(f'bocb_mm.{name}')
    randomise(network)
    x = torch.randn(2, 3, 64, 32)
    network.train()(x)  # statistics that are not 0 and 1
    network.eval()
    with torch.no_grad():
        before = network(x)
        count = size(network)
        network.switch_to_deploy()
        after = network(x)
    assert size(network) < count
    for a, b in zip(before, after):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(a.abs().max()))


def test_metaformers_with_an_mlp_head_have_sail_sgs_epsilon():
    for name, expected in {'CF-12': 1e-5, 'AF-12': 1e-5, 'CAF-12': 1e-5}.items():
        head = build(f'bocb_mm.{name}', num_classes=10).head
        assert (head.norm.eps, head.fc.norm.eps) == (1e-6, expected)


def test_mixer_for_pose_has_its_own_token_grid():
    network = build('bocb_mm.MLP-S', img_size=(256, 192), out_indices=(2,)).eval()
    assert network(torch.randn(1, 3, 256, 192))[0].shape == (1, 512, 16, 12)


BAD = [
    ('R-50', dict(out_indices=(4,)), r'out_indices=\(4,\), its maps are 0 \(stride 4\)'),
    ('DeiT-S', dict(out_indices=(2, 5, 8, 11)), r'its maps are 0 \(stride 4\), 1 \(stride 8\)'),
    ('R-50', dict(out_indices=(2, 1)), 'must ascend'),
    ('R-50', dict(out_indices=()), 'its maps are'),
    ('R-50', dict(out_indice=(1,)), "no argument 'out_indice'; did you mean out_indices"),
    ('R-50', dict(depth=101), 'has depth=50, got 101'),
    ('R-50', dict(num_classes=10), 'num_classes goes to the head'),
    ('R-50', dict(frozen_stages=5), r'frozen_stages=5, expected -1 \(none\) to 4'),
    ('R-50', dict(drop_path_rate=1.5), r'drop_path_rate=1.5, expected a number in \[0, 1\)'),
    ('R-50', dict(stem_stride=2), 'add cifar=True'),
    ('R-50', dict(cifar=True, stem_stride=4), 'stem_stride=4, expected 1 or 2'),
    ('Swin-T', dict(cifar=True), 'has no CIFAR variant .* R-50, DN-121, CNX-T, CNXV2-T, Moga-S'),
    ('R-50', dict(init_cfg=dict(type='Pretrained')), 'names no checkpoint'),
    ('VGG-13', dict(classifier=True), 'give num_classes'),
    ('R-50', dict(classifier=True, out_indices=(1,)), 'leave out_indices out'),
    ('MLP-S', dict(img_size=200), 'multiples of 16'),
]  # fmt: skip


@pytest.mark.parametrize(('name', 'kwargs', 'message'), BAD)
def test_bad_arguments(name, kwargs, message):
    with pytest.raises(UserError, match=message):
        build(f'bocb_mm.{name}', **kwargs)


@pytest.mark.parametrize('name', ['AlexNet', 'VGG-13'])
def test_classifiers_of_one_picture_size(name):
    network = build(f'bocb_mm.{name}', num_classes=10).eval()
    with pytest.raises(UserError, match='its classifier takes 224x224 only'):
        network(torch.randn(1, 3, 192, 192))
