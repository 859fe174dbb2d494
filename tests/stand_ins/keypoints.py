"""Made-up pose data sets whose average precision is compared, as mmpose works it out.

Six images of up to three persons, with everything that the evaluators may read differently: persons
without a visible keypoint, crowds, no ``num_keypoints``, annotation number 0, detections whose
keypoints all have score 0, boxes of all sizes.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIGMAS = np.array([0.026, 0.079, 0.072, 0.107, 0.087])
PARTS = ('keypoints', 'foot_kpts', 'face_kpts', 'lefthand_kpts', 'righthand_kpts')


def data_set(seed: int, crowd: bool = False) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations in COCO's format and detections in that of its results."""
    rng = np.random.default_rng(seed)
    images = [{'id': i, 'width': 640, 'height': 480} for i in range(1, 7)]
    if crowd:
        images = [image | {'crowdIndex': i / 6} for i, image in enumerate(images)]
    persons: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image in images:
        for _ in range(rng.integers(1, 4)):
            person = _person(rng, len(persons), image['id'])
            persons.append(person)
            for _ in range(rng.integers(0, 3)):
                found.append(_detection(rng, person))
    persons[2]['iscrowd'] = 1
    for part in PARTS:
        persons[4][part] = [0] * len(persons[4][part])
        found[3][part] = [*found[3][part]]
        found[3][part][2::3] = [0] * (len(found[3][part]) // 3)
    categories = [{'id': 1, 'name': 'person'}, {'id': 2, 'name': 'nobody'}]
    if crowd:  # CrowdPose's splits count a category without persons as -1
        del categories[1]
    return {'images': images, 'annotations': persons, 'categories': categories}, found


def _person(rng: np.random.Generator, number: int, image: int) -> dict[str, Any]:
    x, y, w, h = rng.uniform(0, 200), rng.uniform(0, 200), *rng.uniform(20, 240, 2)
    keypoints = {
        part: [
            float(v)
            for _ in SIGMAS
            for v in (x + rng.uniform(0, w), y + rng.uniform(0, h), rng.integers(0, 3))
        ]
        for part in PARTS
    }
    visible = sum(v == 2 for v in keypoints['keypoints'][2::3])
    return {
        'id': number,
        'image_id': image,
        'category_id': 1,
        'bbox': [x, y, w, h],
        'area': w * h * rng.uniform(0.3, 0.9),
        'iscrowd': 0,
        'num_keypoints': int(visible),
        **keypoints,
    }


def _detection(rng: np.random.Generator, person: dict[str, Any]) -> dict[str, Any]:
    spread = np.sqrt(person['area']) * rng.choice([0.01, 0.05, 0.15])
    found: dict[str, Any] = {'image_id': person['image_id'], 'category_id': 1}
    for part in PARTS:
        places = np.array(person[part]).reshape(-1, 3)
        places[:, :2] += rng.normal(scale=spread, size=(len(places), 2))
        places[:, 2] = rng.uniform(0.1, 1, len(places))
        found[part] = places.ravel().tolist()
    found['score'] = float(rng.uniform(0.1, 1))
    for key in ('face_score', 'wholebody_score'):
        found[key] = float(rng.uniform(0.1, 1))
    return found


def average_precision(
    seed: int,
    kind: str = 'keypoints',
    use_area: bool = True,
    change: Callable[[dict[str, Any], list[dict[str, Any]]], None] | None = None,
) -> list[float]:
    """The numbers that mmpose logs, by the same calls as ``mmpose.evaluation.CocoMetric``."""
    from xtcocotools.coco import COCO
    from xtcocotools.cocoeval import COCOeval

    truth, found = copy.deepcopy(data_set(seed, crowd=kind == 'keypoints_crowd'))
    if change is not None:
        change(truth, found)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        truth_file, found_file = Path(folder, 'truth.json'), Path(folder, 'found.json')
        truth_file.write_text(json.dumps(truth))
        found_file.write_text(json.dumps(found))
        annotated = COCO(str(truth_file))
        sigmas = np.tile(SIGMAS, len(PARTS)) if kind == 'keypoints_wholebody' else SIGMAS
        coco_eval = COCOeval(annotated, annotated.loadRes(str(found_file)), kind, sigmas, use_area)
        coco_eval.params.useSegm = None
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    return [float(value) for value in coco_eval.stats]


def _without_counts(truth: dict[str, Any], found: list[dict[str, Any]]) -> None:
    for person in truth['annotations']:
        del person['num_keypoints']


CASES: dict[str, Callable[[], list[float]]] = {
    'plain': lambda: average_precision(0),
    'another': lambda: average_precision(1),
    'without area': lambda: average_precision(0, use_area=False),
    'without num_keypoints': lambda: average_precision(0, change=_without_counts),
    'crowd': lambda: average_precision(2, 'keypoints_crowd', use_area=False),
    **{
        part: (lambda part=part: average_precision(3, f'keypoints_{part}'))
        for part in ('body', 'foot', 'face', 'lefthand', 'righthand', 'wholebody')
    },
}
