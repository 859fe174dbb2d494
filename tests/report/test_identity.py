"""What differs does not share a cell: networks, data, metrics, pre-trainings, schedules."""

import pytest

from bocb_mm.report import identity, load, names, records
from tests.report.synthetic_runs import make_record


def tables_of(tmp_path, *made, **options):
    runs = [records.summary(r, tmp_path / str(i)) for i, r in enumerate(made)]
    rows, left_out = load.tidy_runs(runs, **options)
    return {t.name: t for t in load.tables_from_runs(rows, runs)}, left_out


def columns_of(tmp_path, *made):
    (table,) = tables_of(tmp_path, *made)[0].values()
    return list(table.values.columns)


# -- networks ----------------------------------------------------------------------------------


def test_timm_backbones_of_two_models_are_two_columns(tmp_path):
    made = [
        make_record('SGD', 'TIMMBackbone', architecture={'model_name': name}, best=70.0 + i)
        for i, name in enumerate(('resnet18', 'mobilenetv3_small_100', 'resnet18'))
    ]
    made[2].seed = 1
    columns = columns_of(tmp_path, *made)
    assert columns == [
        'TIMMBackbone [model_name=mobilenetv3_small_100]', 'TIMMBackbone [model_name=resnet18]'
    ]  # fmt: skip
    table = tables_of(tmp_path, *made)[0]['table1_cifar100']
    assert table.cells.set_index('column').loc[columns[1], 'n'] == 2  # the seeds stay together


def test_sizes_of_rtmdet_are_told_apart_by_what_differs(tmp_path):
    sizes = {
        'tiny': {'arch': 'P5', 'deepen_factor': 0.167, 'widen_factor': 0.375},
        'l': {'arch': 'P5', 'deepen_factor': 1, 'widen_factor': 1},
    }
    coco = {'task': 'detection', 'dataset': 'coco', 'n_classes': 80, 'pretraining': 'none'}
    made = [
        make_record('AdamW', 'CSPNeXt-P5', best=0.4, architecture=a, **coco) for a in sizes.values()
    ]
    assert columns_of(tmp_path, *made) == [
        'det CSPNeXt-P5 (none) [deepen_factor=0.167, widen_factor=0.375]',
        'det CSPNeXt-P5 (none) [deepen_factor=1, widen_factor=1]',
    ]


def test_records_without_architecture_are_told_apart_by_their_parameters(tmp_path):
    made = [make_record('SGD', 'SwinTransformer', n_parameters=n) for n in (28_000_000, 49_000_000)]
    assert columns_of(tmp_path, *made) == [
        'SwinTransformer [28,000,000 parameters]', 'SwinTransformer [49,000,000 parameters]'
    ]  # fmt: skip


def test_equal_names_of_what_differs_get_the_count_as_well(tmp_path):
    made = [
        make_record('SGD', 'Net', architecture={'a': 1, **more}, n_parameters=n)
        for more, n in (({}, 10), ({}, 20))
    ]
    assert len(set(columns_of(tmp_path, *made))) == 2


def test_somebodys_swin_is_not_the_papers(tmp_path):
    made = [make_record('SGD', name) for name in ('Swin', 'Swin-T', 'swin_tiny')]
    made[2].optimizer = 'AdamW'
    table = tables_of(tmp_path, *made)[0]['table1_cifar100']
    assert list(table.values.columns) == ['Swin-T', 'Swin']
    load.add_reference(table)
    assert table.reference.loc['SGD'].notna().tolist() == [True, False]


def test_what_a_record_does_not_know_separates_nobody(tmp_path):
    made = [
        make_record('SGD', 'R-50', n_parameters=23_705_252),
        make_record('AdamW', 'R-50', n_parameters=None),
    ]
    assert columns_of(tmp_path, *made) == ['R-50']


def test_a_told_apart_column_still_has_the_papers_value(tmp_path):
    made = [make_record('SGD', 'R-50', n_parameters=n) for n in (23_705_252, 5)]
    table = tables_of(tmp_path, *made)[0]['table1_cifar100']
    load.add_reference(table)
    assert table.reference.loc['SGD'].tolist() == [78.76, 78.76]


# -- data --------------------------------------------------------------------------------------

DETECTION = {'task': 'detection', 'dataset': 'coco', 'pretraining': 'none'}


def test_raccoons_and_mice_are_not_coco(tmp_path):
    made = [
        make_record('SGD', best=0.3, **DETECTION, n_classes=80, n_train=117266,
                    ann_file='data/coco/annotations/instances_train2017.json'),
        make_record('SGD', best=0.6, **DETECTION, n_classes=1, n_train=160,
                    ann_file='data/raccoon/annotations/train.json'),
        make_record('SGD', best=0.9, **DETECTION, n_classes=1, n_train=90,
                    ann_file='data/mouse/annotations/train.json'),
    ]  # fmt: skip
    tables, _ = tables_of(tmp_path, *made)
    assert sorted(tables) == [
        'detection_coco-1-classes-mouse', 'detection_coco-1-classes-raccoon', 'table3_coco'
    ]  # fmt: skip
    assert tables['table3_coco'].values.iat[0, 0] == pytest.approx(30)


def test_pose_of_another_number_of_key_points_is_not_coco(tmp_path):
    pose = {'task': 'pose', 'dataset': 'coco', 'pretraining': 'none', 'best': 0.5}
    made = [make_record('SGD', n_classes=n, **pose) for n in (17, 12)]
    assert sorted(tables_of(tmp_path, *made)[0]) == ['pose_coco-12-key-points', 'table3_coco']


def test_data_known_in_part_are_not_torn_apart(tmp_path):
    known = {'task': 'detection', 'dataset': 'bccd', 'best': 0.5}
    made = [
        make_record('SGD', **known, n_classes=3, n_train=205),
        make_record('Adam', **known, n_train=205),
    ]
    assert list(tables_of(tmp_path, *made)[0]) == ['detection_bccd']


def test_paths_of_two_machines_are_one_data_set(tmp_path):
    known = {'task': 'detection', 'dataset': 'bccd', 'best': 0.5, 'n_classes': 3, 'n_train': 205}
    made = [make_record(o, **known, ann_file=f'/{o}/bccd/train.json') for o in ('SGD', 'Adam')]
    assert list(tables_of(tmp_path, *made)[0]) == ['detection_bccd']


def test_one_own_data_set_keeps_its_name(tmp_path):
    made = [
        make_record('SGD', dataset='bccd', task='detection', n_classes=3, n_train=205, best=0.5)
    ]
    assert list(tables_of(tmp_path, *made)[0]) == ['detection_bccd']


def test_old_records_of_coco_stay_with_coco(tmp_path):
    assert list(tables_of(tmp_path, make_record('SGD', best=0.3, **DETECTION))[0]) == [
        'table3_coco'
    ]


# -- metrics, pre-trainings, schedules ---------------------------------------------------------


def test_metrics_are_columns_and_groups_of_their_own(tmp_path):
    made = [make_record(o, best=0.3 + i / 10, **DETECTION) for i, o in enumerate(('SGD', 'Adam'))]
    made[1].metric = 'coco/bbox_mAP_50'
    made[1].evaluations = [{'epoch': 1, 'iteration': 1, 'coco/bbox_mAP_50': 0.5}]
    table = tables_of(tmp_path, *made)[0]['table3_coco']
    assert list(table.values.columns) == [
        'det R-50 (none) [coco/bbox_mAP]', 'det R-50 (none) [coco/bbox_mAP_50]'
    ]  # fmt: skip
    assert list(table.groups()) == ['detection, coco/bbox_mAP', 'detection, coco/bbox_mAP_50']


def test_a_pre_trained_classifier_is_another_column(tmp_path):
    made = [make_record('SGD', pretraining=p) for p in ('', 'imagenet')]
    assert columns_of(tmp_path, *made) == ['R-50', 'R-50 [from imagenet]']


def test_mixed_schedules_are_said(tmp_path):
    made = [
        make_record('SGD', epochs=200, batch_size=100, image_size=[32, 32]),
        make_record('AdamW', epochs=100, batch_size=100, image_size=[224, 224]),
        make_record('AdamW', 'CNX-T', epochs=200, batch_size=100, image_size=[32, 32]),
    ]
    table = tables_of(tmp_path, *made)[0]['table1_cifar100']
    assert table.notes == [
        'R-50 mixes runs of 100 and 200 epochs; of 224 x 224 and 32 x 32 pixels: its cells compare '
        'unequals.'
    ]


def test_old_records_of_other_data_or_batches_are_said(tmp_path):
    made = [make_record(o) for o in ('SGD', 'AdamW')]
    made[1].iterations *= 3
    table = tables_of(tmp_path, *made)[0]['table1_cifar100']
    assert 'of 100 and 300 iterations an epoch' in table.notes[0]


def test_runs_that_did_not_finish_mix_nothing(tmp_path):
    made = [make_record('SGD'), make_record('LION', status='diverged', epochs=1)]
    assert tables_of(tmp_path, *made)[0]['table1_cifar100'].notes == []


def test_details_do_not_change_what_a_column_is():
    head = names.with_detail('det R-50 (A2)', 'a=1')
    assert names.split_column(head) == ('det', 'R-50', 'A2')
    assert identity.places([]) == []
