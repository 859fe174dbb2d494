"""Units and directions of metrics, against what the toolboxes' own code logs."""

import math

import pytest

from bocb_mm.facts import scales

# metric, evaluator, a logged value and what a report shows of it
SHOWN = {
    ('accuracy/top1', ''): (75.5, 75.5),
    ('single-label/f1-score', ''): (75.5, 75.5),
    ('multi-label/mAP', ''): (0.5, 0.5),  # half a percent
    ('coco/bbox_mAP', ''): (0.375, 37.5),
    ('coco/AP (M)', ''): (0.7, 70),
    ('coco/occluded_recall', ''): (55.5, 55.5),
    ('coco_panoptic/PQ', ''): (40.1, 40.1),
    ('pascal_voc/mAP', ''): (0.755, 75.5),
    ('PCK', 'MpiiPCKAccuracy'): (88.1, 88.1),
    ('PCK', 'mmpose.MpiiPCKAccuracy'): (0.9, 0.9),
    ('PCK', 'PCKAccuracy'): (0.881, 88.1),
    ('tPCK', 'JhmdbPCKAccuracy'): (0.5, 50),
    ('PCK', ''): (88.1, 88.1),
    ('NME', ''): (0.0345, 3.45),
    ('EPE', ''): (0.8, 0.8),  # pixels
    ('MPJPE', ''): (43.4, 43.4),
    ('mIoU', ''): (41.0, 41.0),
    ('acc/top1', ''): (0.7, 70),
    ('my/score', ''): (0.7, 70),
    ('my/score2', ''): (12.0, 12.0),
}


@pytest.mark.parametrize('case', SHOWN, ids='|'.join)
def test_what_is_shown(case):
    logged, shown = SHOWN[case]
    metric, evaluator = case
    assert logged * scales.factor(metric, [logged], evaluator) == pytest.approx(shown)


@pytest.mark.parametrize(
    'metric', ['NME', 'EPE', 'MPJPE', 'P-MPJPE', 'val_loss', 'crowd_human/mMR']
)
def test_smaller_is_better(metric):
    assert not scales.scale(metric).larger_is_better
    assert scales.best(metric, [3.0, 1.0, math.nan, None, 2.0]) == 1.0


def test_minus_one_of_coco_is_missing_and_of_others_a_number():
    assert scales.best('coco/bbox_mAP_s', [-1.0, -1.0]) is None
    assert scales.best('my/score', [-1.0, -2.0]) == -1.0


def test_every_row_is_reached():
    """A row behind one that fits all of its names would never be asked."""
    for row in scales.rows():
        metric = row['metric'].replace('*', 'x')
        found = scales.scale(metric, row['evaluator'].replace('*', 'x'))
        assert (found.unit, found.larger_is_better) == (row['unit'], row['better'] == 'larger')
        assert row['unit'] in scales.UNITS and row['source']
