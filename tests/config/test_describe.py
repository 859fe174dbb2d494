import pytest

from bocb_mm.config.describe import describe
from bocb_mm.errors import UserError


@pytest.mark.parametrize(
    'cfg, expected',
    [
        (
            {
                'default_scope': 'mmdet',
                'model': {'backbone': {'type': 'ResNet', 'depth': 50}},
                'train_dataloader': {'dataset': {'type': 'CocoDataset'}},
            },
            ('detection', 'coco', 'ResNet-50', 'coco/bbox_mAP'),
        ),
        (
            {
                'default_scope': 'mmpretrain',
                'model': {'backbone': {'type': 'bocb_mm.Swin-T'}},
                'train_dataloader': {
                    'dataset': {'type': 'RepeatDataset', 'dataset': {'type': 'mmpretrain.CIFAR100'}}
                },
            },
            ('classification', 'cifar100', 'Swin-T', 'accuracy/top1'),
        ),
        (
            {
                'default_scope': 'mmdet',
                'model': {'backbone': {'type': 'bocb_mm.R-50', 'depth': 50}},
                'train_dataloader': {'dataset': {'type': 'CocoDataset'}},
            },
            ('detection', 'coco', 'R-50', 'coco/bbox_mAP'),
        ),
        (
            {'model': {'type': 'mmpose.TopdownPoseEstimator', 'backbone': {'type': 'HRNet'}}},
            ('pose', '', 'HRNet', 'coco/AP'),
        ),
    ],
)
def test_a_config_says_what_it_trains(cfg, expected):
    found = describe(cfg)
    assert (found.task, found.dataset, found.backbone, found.metric) == expected


@pytest.mark.parametrize('scope', ['mmseg', None])
def test_another_toolbox_is_refused_with_the_ones_that_work(scope):
    with pytest.raises(UserError, match='mmpretrain, mmdet, mmpose'):
        describe({'default_scope': scope, 'model': {'type': 'EncoderDecoder'}})
