"""``xtcocotools.cocoeval``: average precision of keypoints, on faster-coco-eval."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core.cocoeval import Params

_BODY, _FOOT, _FACE = 'keypoints', 'foot_kpts', 'face_kpts'
_HANDS = ('lefthand_kpts', 'righthand_kpts')
#: Type of evaluation -> keys of the annotation whose keypoints it looks at, key of the score.
_TYPES: dict[str, tuple[tuple[str, ...], str]] = {
    'keypoints': ((_BODY,), 'score'),
    'keypoints_crowd': ((_BODY,), 'score'),
    'keypoints_body': ((_BODY,), 'score'),
    'keypoints_foot': ((_FOOT,), 'foot_score'),
    'keypoints_face': ((_FACE,), 'face_score'),
    'keypoints_lefthand': (_HANDS[:1], 'lefthand_score'),
    'keypoints_righthand': (_HANDS[1:], 'righthand_score'),
    'keypoints_wholebody': ((_BODY, _FOOT, _FACE, *_HANDS), 'wholebody_score'),
}


class _Params(Params):
    """Settings that mmpose may write to.

    mmpose 1.3.2 sets ``params.useSegm = None``; in faster-coco-eval 1.8.0 that name is a property
    which then switches to *boxes*: a pose AP of 1.000 for .528, without a word.
    """

    useSegm = None


class COCOeval(COCOeval_faster):
    """Average precision of keypoints as xtcocotools works it out.

    Before the evaluation the annotations are copied, with what xtcocotools reads differently: a
    person without a visible keypoint is ignored whatever its ``num_keypoints`` says, a detection
    whose keypoints all have score 0 does not count, and with ``use_area=False`` the size of a
    person is 0.53 times its box everywhere, in the splits by size too.

    Args:
        cocoGt: Annotations.
        cocoDt: Detections, from ``cocoGt.loadRes``.
        iouType: ``keypoints``, ``keypoints_crowd`` or a part of COCO-WholeBody,
            e.g. ``keypoints_face``.
        sigmas: Standard deviation of each keypoint, relative to the person's size.
        use_area: Whether the annotations have the person's ``area``.
    """

    def __init__(
        self,
        cocoGt: COCO,
        cocoDt: COCO,
        iouType: str = 'keypoints',
        sigmas: Any = None,
        use_area: bool = True,
    ) -> None:
        if iouType not in _TYPES:
            raise ValueError(f'iouType {iouType!r}: expected one of {", ".join(_TYPES)}')
        keys, score = _TYPES[iouType]
        crowd = iouType == 'keypoints_crowd'
        persons = [_person(a, keys, use_area, crowd) for a in cocoGt.anns.values()]
        found = [_detection(a, keys, score) for a in cocoDt.anns.values()]
        kind: Any = 'keypoints_crowd' if crowd else 'keypoints'
        super().__init__(
            _with(cocoGt, persons),
            _with(cocoDt, [a for a in found if any(a['keypoints'][2::3])]),
            kind,
            print_function=print,
            kpt_oks_sigmas=sigmas,
        )
        self.params, made = _Params(kind, sigmas), self.params
        self.params.imgIds, self.params.catIds = made.imgIds, made.catIds


def _with(coco: COCO, annotations: list[dict[str, Any]]) -> COCO:
    """The data set with other annotations; ``annotation_file`` still names its file.

    They are numbered from 1: faster-coco-eval takes a match with number 0 for none.
    """
    numbered = [{**annotation, 'id': i} for i, annotation in enumerate(annotations, 1)]
    changed = COCO({**coco.dataset, 'annotations': numbered})
    changed.annotation_file = coco.annotation_file
    return changed


def _keypoints(annotation: dict[str, Any], keys: tuple[str, ...]) -> list[float]:
    return [number for key in keys for number in annotation[key]]


def _person(
    annotation: dict[str, Any], keys: tuple[str, ...], use_area: bool, crowd: bool
) -> dict[str, Any]:
    """An annotated person as the evaluation shall see it."""
    person = copy.copy(annotation)
    person['keypoints'] = _keypoints(annotation, keys)
    if not crowd:  # CrowdPose's own count leaves hidden keypoints out
        person['num_keypoints'] = int(np.count_nonzero(np.array(person['keypoints'][2::3]) > 0))
    if not use_area:
        person['area'] = annotation['bbox'][2] * annotation['bbox'][3] * 0.53
    return person


def _detection(annotation: dict[str, Any], keys: tuple[str, ...], score: str) -> dict[str, Any]:
    """A detected person as the evaluation shall see it."""
    found = copy.copy(annotation)
    found['keypoints'] = _keypoints(annotation, keys)
    found['score'] = annotation.get(score, annotation['score'])
    return found
