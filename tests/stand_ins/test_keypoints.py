"""Average precision of poses by the stand-in for xtcocotools: golden numbers of the real one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.stand_ins.keypoints import CASES, average_precision

GOLDEN = Path(__file__).with_name('golden') / 'keypoints.json'


@pytest.fixture(scope='module')
def golden():
    return json.loads(GOLDEN.read_text())


@pytest.fixture
def ours(monkeypatch):
    """``xtcocotools`` is the stand-in, also where the real one is installed."""
    pytest.importorskip('faster_coco_eval')
    import bocb_mm.stand_ins.xtcocotools.coco as coco
    import bocb_mm.stand_ins.xtcocotools.cocoeval as cocoeval

    monkeypatch.setitem(sys.modules, 'xtcocotools', sys.modules['bocb_mm.stand_ins.xtcocotools'])
    monkeypatch.setitem(sys.modules, 'xtcocotools.coco', coco)
    monkeypatch.setitem(sys.modules, 'xtcocotools.cocoeval', cocoeval)
    return cocoeval


@pytest.mark.parametrize('name', CASES)
def test_equals_the_golden_numbers_of_xtcocotools(name, golden, ours):
    """By xtcocotools 1.14.3: make_golden.py. Every case sets ``params.useSegm`` as mmpose does."""
    np.testing.assert_allclose(CASES[name](), golden[name], atol=1e-9)


@pytest.mark.parametrize('name', CASES)
def test_the_evaluator_at_hand_equals_the_golden_numbers(name, golden):
    np.testing.assert_allclose(CASES[name](), golden[name], atol=1e-9)


def test_the_evaluation_of_mmpose_stays_one_of_keypoints(ours):
    """faster-coco-eval's own setter would switch to boxes, where these detections are perfect."""

    def far_off(truth, found):
        for detection in found:
            detection['keypoints'] = [0.0, 0.0, 1.0] * 5

    assert average_precision(0, change=far_off)[0] == 0


def test_an_unknown_type_is_named(ours):
    with pytest.raises(ValueError, match='keypoints_tail.*expected one of keypoints,'):
        average_precision(0, 'keypoints_tail')


def test_masks_are_decoded(ours):
    import bocb_mm.stand_ins.xtcocotools.mask as mask

    square = [[2, 2, 6, 2, 6, 6, 2, 6]]
    assert mask.decode(mask.merge(mask.frPyObjects(square, 8, 8))).sum() == 16
