"""What tells one run from another."""

import json

import pytest
from mmengine.config import Config

from bocb_mm.config.identity import architecture, identity, image_size, optimizer_name, paper_name


def config(backbone=None, dataset=None, **more):
    return Config(
        {
            'default_scope': 'mmdet',
            'model': {'type': 'RTMDet', 'backbone': backbone or {'type': 'bocb_mm.R-50'}},
            'train_dataloader': {'dataset': dataset or {'type': 'CocoDataset'}},
            'optim_wrapper': {'optimizer': {'type': 'bocb_mm.adamw', 'lr': 1e-3}},
            **more,
        }
    )


NETWORKS = [
    {'type': 'TIMMBackbone', 'model_name': 'resnet18'},
    {'type': 'TIMMBackbone', 'model_name': 'resnet34'},
    {'type': 'CSPNeXt', 'deepen_factor': 0.167, 'widen_factor': 0.375},
    {'type': 'CSPNeXt', 'deepen_factor': 1, 'widen_factor': 1},
    {'type': 'SwinTransformer', 'depths': [2, 2, 6, 2]},
    {'type': 'SwinTransformer', 'depths': (2, 2, 18, 2)},
    {'type': 'ConvNeXt', 'arch': 'tiny'},
    {'type': 'ConvNeXt', 'arch': {'depths': [3, 3, 3], 'channels': [8, 16, 32]}},
    {'type': 'ResNet', 'depth': 50, 'norm_cfg': {'type': 'GN', 'num_groups': 32}},
    {'type': 'ResNet', 'depth': 50, 'norm_cfg': {'type': 'BN'}},
    {'type': 'bocb_mm.R-50'},
    {'type': 'bocb_mm.CNX-T'},
]


def test_different_networks_have_different_names_or_architectures():
    found = [identity(config(backbone), {}) for backbone in NETWORKS]
    keys = {json.dumps([f['backbone'], f['architecture']]) for f in found}
    assert len(keys) == len(NETWORKS)


SAME = {'type': 'ResNet', 'depth': 50}


@pytest.mark.parametrize(
    'more',
    [
        {'frozen_stages': 1, 'norm_eval': True},
        {'init_cfg': {'type': 'Pretrained', 'checkpoint': 'a.pth'}},
        {'out_indices': (3,), 'with_cp': True, 'drop_path_rate': 0.2},
    ],
)
def test_how_a_network_is_trained_makes_it_no_other(more):
    assert architecture(config({**SAME, **more})) == architecture(config(SAME)) == {'depth': 50}


def test_synchronised_or_frozen_normalisation_is_the_same():
    plain = architecture(config({**SAME, 'norm_cfg': {'type': 'BN'}}))
    for norm in ({'type': 'SyncBN'}, {'type': 'BN', 'requires_grad': False}):
        assert architecture(config({**SAME, 'norm_cfg': norm})) == plain


def test_a_network_of_our_catalog_is_its_name():
    found = identity(config({'type': 'bocb_mm.r-50', 'depth': 50}), {})
    assert (found['backbone'], found['architecture']) == ('R-50', {})


@pytest.mark.parametrize(
    ('name', 'ours', 'expected'),
    [
        ('ResNet-50', False, 'R-50'),
        ('AlexNet', False, 'AlexNet'),
        ('Swin', False, 'Swin'),
        ('MLP', False, 'MLP'),
        ('CF', False, 'CF'),
        ('swin', True, 'Swin-T'),
        ('MyNet', False, 'MyNet'),
    ],
)
def test_a_users_short_name_is_not_taken_for_the_papers(name, ours, expected):
    assert paper_name(name, ours) == expected


@pytest.mark.parametrize(
    ('registry_type', 'expected'),
    [
        ('bocb_mm.sgd', 'SGD'), ('Lamb', 'LAMB'), ('bocb_mm.timm.lamb', 'timm.lamb'),
        ('mmpretrain.Lamb', 'mmpretrain.Lamb'), ('MyOptimizer', 'MyOptimizer'), ('', ''),
    ],
)  # fmt: skip
def test_names_of_optimizers(registry_type, expected):
    assert optimizer_name(registry_type) == expected


SIZES = [
    ([{'type': 'RandomResizedCrop', 'scale': 224}], [224, 224]),
    ([{'type': 'mmdet.Resize', 'scale': (1333, 800), 'keep_ratio': True}], [800, 1333]),
    ([{'type': 'TopdownAffine', 'input_size': (192, 256)}], [256, 192]),
    ([{'type': 'Resize', 'scale': (2048, 1024)}, {'type': 'RandomCrop', 'crop_size': (512, 1024)}],
     [512, 1024]),
    ([{'type': 'RandomChoiceResize', 'scales': [(1333, 640), (1333, 800)]}], []),
    ([{'type': 'Resize', 'scale': (0.5, 2.0)}], []),
    ([{'type': 'LoadImageFromFile'}], []),
    (None, []),
]  # fmt: skip


@pytest.mark.parametrize(('pipeline', 'size'), SIZES)
def test_the_size_of_images_is_that_of_the_last_transform_that_sets_one(pipeline, size):
    assert image_size(config(dataset={'type': 'A', 'pipeline': pipeline})) == size


def test_annotations_are_named_with_their_folder():
    one = {'type': 'CocoDataset', 'data_root': 'data/bccd', 'ann_file': 'train.json'}
    assert identity(config(dataset=one), {})['ann_file'] == 'data/bccd/train.json'
    two = {**one, 'ann_file': ['a.json', 'b.json']}
    assert identity(config(dataset=two), {})['ann_file'] == 'data/bccd/a.json+data/bccd/b.json'
    assert identity(config(), {})['ann_file'] == ''


def test_what_the_user_named_comes_first():
    given = {'task': 'pose', 'backbone': 'r-50', 'dataset': None, 'gamma': 1}
    found = identity(config({'type': 'MyNet'}), given)
    assert (found['task'], found['backbone'], found['dataset']) == ('pose', 'R-50', 'coco')
    assert found['gamma'] == 1


@pytest.mark.parametrize(
    'changed',
    [
        {'resume': True}, {'load_from': 'a.pth'}, {'work_dir': 'b'}, {'randomness': {'seed': 3}},
        {'headline_metric': 'coco/AR@100'}, {'lr_origin': 'given'},
    ],
)  # fmt: skip
def test_the_hash_is_of_what_is_trained(changed):
    same = identity(config(), {})['config_hash']
    assert identity(config(**changed), {})['config_hash'] == same
    assert identity(config(train_cfg={'max_epochs': 3}), {})['config_hash'] != same


def test_several_optimizers_are_named_by_the_first():
    wrapper = {
        'generator': {'optimizer': {'type': 'SGD', 'lr': 0.1}},
        'discriminator': {'optimizer': {'type': 'Adam', 'lr': 0.2}},
    }
    found = identity(config(optim_wrapper=wrapper), {})
    assert (found['optimizer'], found['lr']) == ('SGD', 0.1)
