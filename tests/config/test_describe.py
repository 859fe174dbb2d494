"""A config of any toolbox says what it trains; what nobody knows keeps its own name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bocb_mm.config.describe import describe, task_of_rates, training_data
from bocb_mm.config.metric import Headline, among, headline_of

COCO = {'train_dataloader': {'dataset': {'type': 'CocoDataset'}}}
CASES = {
    'mmdet': (
        {'default_scope': 'mmdet', 'model': {'backbone': {'type': 'ResNet', 'depth': 50}}, **COCO},
        ('detection', 'coco', 'ResNet-50', 'coco/bbox_mAP'),
    ),
    'a repeated data set': (
        {
            'default_scope': 'mmpretrain',
            'model': {'backbone': {'type': 'bocb_mm.Swin-T'}},
            'train_dataloader': {
                'dataset': {'type': 'RepeatDataset', 'dataset': {'type': 'mmpretrain.CIFAR100'}}
            },
        },
        ('classification', 'cifar100', 'Swin-T', 'accuracy/top1'),
    ),
    'ours with a depth left over': (
        {
            'default_scope': 'mmdet',
            'model': {'backbone': {'type': 'bocb_mm.R-50', 'depth': 50}},
            **COCO,
        },
        ('detection', 'coco', 'R-50', 'coco/bbox_mAP'),
    ),
    'no default scope': (
        {'model': {'type': 'mmpose.TopdownPoseEstimator', 'backbone': {'type': 'HRNet'}}},
        ('pose', '', 'HRNet', 'coco/AP'),
    ),
    'timm': (
        {
            'default_scope': 'mmpretrain',
            'model': {'backbone': {'type': 'TIMMBackbone', 'model_name': 'resnet18'}},
        },
        ('classification', '', 'timm/resnet18', 'accuracy/top1'),
    ),
    'mmseg': (
        {
            'default_scope': 'mmseg',
            'model': {'type': 'EncoderDecoder', 'backbone': {'type': 'ResNetV1c', 'depth': 18}},
            'train_dataloader': {'dataset': {'type': 'CityscapesDataset'}},
            'val_evaluator': {'type': 'IoUMetric', 'iou_metrics': ['mIoU']},
        },
        ('segmentation', 'cityscapes', 'ResNetV1c-18', 'mIoU'),
    ),
    'mmaction, ours under its scope': (
        {
            'default_scope': 'mmaction',
            'model': {'backbone': {'type': 'mmpretrain.bocb_mm.CNX-XS'}},
            'train_dataloader': {'dataset': {'type': 'VideoDataset'}},
            'val_evaluator': {'type': 'AccMetric'},
        },
        ('action recognition', 'video', 'CNX-XS', 'acc/top1'),
    ),
    'mmyolo': (
        {
            'default_scope': 'mmyolo',
            'model': {'backbone': {'type': 'YOLOv5CSPDarknet'}},
            'train_dataloader': {'dataset': {'type': 'YOLOv5CocoDataset'}},
            'val_evaluator': {'type': 'mmdet.CocoMetric', 'metric': 'bbox'},
        },
        ('detection', 'yolov5coco', 'YOLOv5CSPDarknet', 'coco/bbox_mAP'),
    ),
    'mmrotate': (
        {'default_scope': 'mmrotate', 'val_evaluator': {'type': 'DOTAMetric', 'metric': 'mAP'}},
        ('rotated detection', '', '', 'dota/mAP'),
    ),
    'mmocr, recognition of several sets': (
        {
            'default_scope': 'mmocr',
            'model': {'type': 'CRNN', 'backbone': {'type': 'MiniVGG'}},
            'val_evaluator': {
                'type': 'MultiDatasetsEvaluator',
                'metrics': [{'type': 'WordMetric'}, {'type': 'CharMetric'}],
            },
        },
        ('text recognition', '', 'MiniVGG', 'recog/word_acc_ignore_case_symbol'),
    ),
    'mmocr, detection': (
        {'default_scope': 'mmocr', 'val_evaluator': {'type': 'HmeanIOUMetric'}},
        ('text detection', '', '', 'icdar/hmean'),
    ),
    'a backbone deep in the model': (
        {'default_scope': 'mmdet', 'model': {'detector': {'backbone': {'type': 'PVT'}}}},
        ('detection', '', 'PVT', 'coco/bbox_mAP'),
    ),
    'a toolbox of the user': (
        {
            'default_scope': 'my_toolbox',
            'model': {'type': 'MyModel'},
            'val_evaluator': [{'type': 'MyMetric'}],
        },
        ('my_toolbox', '', 'MyModel', ''),
    ),
    'nothing at all': ({}, ('', '', '', '')),
}


@pytest.mark.parametrize('case', CASES)
def test_a_config_says_what_it_trains(case):
    cfg, expected = CASES[case]
    found = describe(cfg)
    assert (found.task, found.dataset, found.backbone, found.metric) == expected


def test_several_data_sets_are_named_by_their_first():
    both = {'type': 'ConcatDataset', 'datasets': [{'type': 'A'}, {'type': 'B'}]}
    cfg = {'train_dataloader': {'dataset': {'type': 'RepeatDataset', 'dataset': both}}}
    assert training_data(cfg) == {'type': 'A'}


@pytest.mark.parametrize(
    ('scope', 'task'),
    [
        ('mmseg', 'detection'),
        ('mmrotate', 'detection'),
        ('mmpose', 'pose'),
        ('x', 'classification'),
    ],
)
def test_a_task_without_default_rates_takes_those_of_the_nearest(scope, task):
    assert task_of_rates({'default_scope': scope}) == task


EVALUATORS = [
    ({'type': 'Accuracy', 'topk': (1, 5)}, 'accuracy/top1'),
    ({'type': 'mmpretrain.SingleLabelMetric'}, 'single-label/f1-score'),
    ({'type': 'Accuracy', 'prefix': 'val'}, 'val/top1'),
    ({'type': 'VOCMetric', 'metric': 'mAP'}, 'pascal_voc/mAP'),
    ({'type': 'mmdet.CocoMetric', 'metric': ['bbox', 'segm']}, 'coco/bbox_mAP'),
    ({'type': 'mmdet.CocoMetric', 'metric': 'segm'}, 'coco/segm_mAP'),
    ({'type': 'mmpose.PCKAccuracy'}, 'PCK'),
    ({'type': 'mmpose.PCKAccuracy', 'norm_item': ['head', 'bbox']}, 'PCKh'),
    ({'type': 'MpiiPCKAccuracy'}, 'PCK'),
    ({'type': 'NME', 'norm_mode': 'keypoint_distance'}, 'NME'),
    ({'type': 'MPJPE', 'mode': 'p-mpjpe'}, 'P-MPJPE'),
    ([{'type': 'Unknown'}, {'type': 'VOCMetric'}], 'pascal_voc/mAP'),
]


@pytest.mark.parametrize(('evaluator', 'name'), EVALUATORS)
def test_the_evaluator_names_the_headline_metric(evaluator, name):
    assert headline_of({'val_evaluator': evaluator}, 'detection').name == name


def test_save_best_comes_before_the_evaluator_and_a_named_metric_before_both():
    hook = {'type': 'CheckpointHook', 'save_best': ['NME', 'AUC'], 'rule': ['less', 'greater']}
    evaluator = [{'type': 'PCKAccuracy'}, {'type': 'NME'}]
    cfg = {'default_hooks': {'checkpoint': hook}, 'val_evaluator': evaluator}
    assert headline_of(cfg, 'pose') == Headline('NME', 'NME', 'less')
    hook['save_best'] = 'auto'
    assert headline_of(cfg, 'pose') == Headline('PCK', 'PCKAccuracy')
    cfg['headline_metric'] = 'AUC'
    assert headline_of(cfg, 'pose') == Headline('AUC', 'PCKAccuracy', given=True)


RESULTS = [
    (Headline('coco/AP'), {'coco/AP': 0.5, 'coco/AR': 0.6}, 'coco/AP'),
    (Headline('accuracy/top1'), {'val/top5': 9.0, 'val/top1': 7.0}, 'val/top1'),
    (Headline('recog/word_acc'), {'IIIT5K/recog/word_acc': 0.4}, 'IIIT5K/recog/word_acc'),
    (Headline(''), {'my/score': 1.0, 'other': 2.0}, 'my/score'),
    (Headline('coco/AP'), {'my/score': 1.0}, 'my/score'),
    (Headline('coco/AP', given=True), {'my/score': 1.0}, None),
    (Headline('coco/AP'), {}, None),
]


@pytest.mark.parametrize(('headline', 'results', 'name'), RESULTS)
def test_the_headline_metric_is_found_among_the_results(headline, results, name):
    assert among(headline, results) == name


values = st.recursive(
    st.one_of(st.none(), st.text(max_size=5), st.integers(), st.floats(), st.booleans()),
    lambda parts: st.one_of(
        st.lists(parts, max_size=3),
        st.dictionaries(
            st.sampled_from(['type', 'dataset', 'datasets', 'backbone', 'metrics', 'save_best',
                             'rule', 'depth', 'metric', 'prefix', 'optimizer', 'pipeline']),
            parts, max_size=4,
        ),
    ),
    max_leaves=12,
)  # fmt: skip
KEYS = ['default_scope', 'model', 'train_dataloader', 'val_evaluator', 'dataset_name']
hooks = st.dictionaries(st.text(max_size=3), values, max_size=2)


@given(st.fixed_dictionaries({}, optional={**dict.fromkeys(KEYS, values), 'default_hooks': hooks}))
def test_no_config_is_too_strange_to_be_described(cfg):
    found = describe(cfg)
    assert all(isinstance(x, str) for x in (found.task, found.dataset, found.backbone))
