"""Tiny data sets in their native formats, written into a directory in a second; no network.

The images can be learnt: a class is a colour, a box is a filled rectangle in its class's colour,
a keypoint is a coloured dot. Every function is deterministic in ``seed`` and returns ``root``.

=========================  =================================================================
:func:`write_cifar100`     ``cifar-100-python/{train,test,meta}`` pickles
:func:`write_imagenet`     ``{train,val}/<class>/*.png`` and ``meta/{train,val}.txt`` (name, label);
                           mmpretrain's ImageNet wants ``ann_file='meta/train.txt'``, or it
                           insists on 1000 folders
:func:`write_coco`         ``{train2017,val2017}/*.jpg``, ``annotations/{instances,person_keypoints}_*``
                           and ``person_detection_results/COCO_val2017_detections_AP_H_56_person.json``
=========================  =================================================================

mmpretrain's CIFAR classes check the MD5 sums of the real files; :func:`trust_tiny_cifar` switches
that off in this process, which is all a test in one process needs.
"""

from __future__ import annotations

import colorsys
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

#: mmdet's and mmpose's CocoDataset look their classes up by name, so the JSON needs the real ones.
COCO_CATEGORIES = {1: 'person', 3: 'car', 18: 'dog'}
# fmt: off
KEYPOINTS = [
    'nose', 'left_eye', 'right_eye', 'left_ear', 'right_ear', 'left_shoulder', 'right_shoulder',
    'left_elbow', 'right_elbow', 'left_wrist', 'right_wrist', 'left_hip', 'right_hip',
    'left_knee', 'right_knee', 'left_ankle', 'right_ankle',
]
#: Where a standing person's 17 keypoints are, in per cent of the box (x, y).
_POSE = np.array([
    (50, 8), (54, 6), (46, 6), (58, 8), (42, 8), (65, 22), (35, 22), (75, 38), (25, 38),
    (80, 52), (20, 52), (60, 52), (40, 52), (62, 74), (38, 74), (64, 95), (36, 95),
])
# fmt: on


def _colour(i: int, n: int) -> np.ndarray:
    """Colour ``i`` of ``n`` well apart, as uint8 RGB."""
    return (np.array(colorsys.hsv_to_rgb(i / n, 1.0, 0.9)) * 255).astype(np.uint8)


def _noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return rng.integers(90, 160, (height, width, 3), dtype=np.uint8)


def _class_image(rng: np.random.Generator, label: int, n: int, size: int) -> np.ndarray:
    """A noisy image whose middle has the class's colour."""
    image = _noise(rng, size, size)
    edge = size // 5
    image[edge:-edge, edge:-edge] = _colour(label, n)
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


def write_cifar100(
    root: str | Path, n_train: int = 64, n_test: int = 32, n_classes: int = 4, seed: int = 0
) -> Path:
    """Write ``root/cifar-100-python`` with ``n_train`` + ``n_test`` images of 32 x 32.

    Labels run through the first ``n_classes`` of the 100 fine classes.
    """
    root = Path(root)
    folder = root / 'cifar-100-python'
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for split, n in (('train', n_train), ('test', n_test)):
        labels = [i % n_classes for i in range(n)]
        images = [_class_image(rng, label, n_classes, 32) for label in labels]
        entry = {
            'data': np.stack(images).transpose(0, 3, 1, 2).reshape(n, -1),
            'fine_labels': labels,
            'coarse_labels': [0] * n,
            'filenames': [f'{split}_{i}.png' for i in range(n)],
            'batch_label': f'{split} 1 of 1',
        }
        (folder / split).write_bytes(pickle.dumps(entry, protocol=2))
    names = [f'class_{i:02d}' for i in range(100)]
    meta = {'fine_label_names': names, 'coarse_label_names': [f'super_{i:02d}' for i in range(20)]}
    (folder / 'meta').write_bytes(pickle.dumps(meta, protocol=2))
    return root


def trust_tiny_cifar(monkeypatch: Any) -> None:
    """Let mmpretrain's CIFAR100 read files that are not the original ones (MD5 check off)."""
    from mmpretrain.datasets import CIFAR100

    for name in ('train_list', 'test_list'):
        monkeypatch.setattr(CIFAR100, name, [[f[0], None] for f in getattr(CIFAR100, name)])
    monkeypatch.setattr(CIFAR100, 'meta', {**CIFAR100.meta, 'md5': None})


def write_imagenet(
    root: str | Path,
    n_train: int = 16,
    n_val: int = 8,
    n_classes: int = 4,
    size: int = 64,
    seed: int = 0,
) -> Path:
    """Write ``root/{train,val}/n00000000/*.png``: an ImageNet-style folder of ``size`` x ``size``."""
    root = Path(root)
    (root / 'meta').mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for split, n in (('train', n_train), ('val', n_val)):
        lines = []
        for i in range(n):
            label = i % n_classes
            folder = root / split / f'n{label:08d}'
            folder.mkdir(parents=True, exist_ok=True)
            image = _class_image(rng, label, n_classes, size)
            Image.fromarray(image).save(folder / f'{split}_{i:04d}.png')
            lines.append(f'{folder.name}/{split}_{i:04d}.png {label}')
        (root / 'meta' / f'{split}.txt').write_text('\n'.join(lines) + '\n')
    return root


def write_coco(
    root: str | Path,
    n_train: int = 8,
    n_val: int = 4,
    size: tuple[int, int] = (96, 128),
    seed: int = 0,
) -> Path:
    """Write a COCO 2017 layout with box and keypoint annotations.

    Every image (``size`` = height, width) has one person with 17 visible keypoints and one
    other object. ``mmdet``'s ``filter_cfg`` leaves out images below 32 pixels.
    """
    root = Path(root)
    (root / 'annotations').mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for split, n in (('train2017', n_train), ('val2017', n_val)):
        (root / split).mkdir(exist_ok=True)
        images, objects = [], []
        for i in range(1, n + 1):
            image, boxes, keypoints = _scene(rng, *size)
            name = f'{i:012d}.jpg'
            Image.fromarray(image).save(root / split / name, quality=95)
            images.append({'id': i, 'file_name': name, 'height': size[0], 'width': size[1]})
            for category, box in boxes:
                objects.append(_annotation(len(objects) + 1, i, category, box, keypoints))
        _write_annotations(root, split, images, objects)
    return root


def _scene(
    rng: np.random.Generator, height: int, width: int
) -> tuple[np.ndarray, list[tuple[int, list[int]]], np.ndarray]:
    """A image, its ``(category, [x, y, w, h])`` and the person's keypoints (17, 2) in pixels."""
    image = _noise(rng, height, width)
    half = width // 2
    other = int(rng.choice([3, 18]))
    boxes: list[tuple[int, list[int]]] = []
    for category, left in ((1, 0), (other, half)):
        w = int(rng.integers(half * 2 // 3, half - 2))
        h = int(rng.integers(height * 2 // 3, height - 4))
        x, y = left + int(rng.integers(0, half - w)), int(rng.integers(0, height - h))
        image[y : y + h, x : x + w] = _colour(list(COCO_CATEGORIES).index(category), 3)
        boxes.append((category, [x, y, w, h]))
    x, y, w, h = boxes[0][1]
    keypoints = np.array([x, y]) + _POSE / 100 * np.array([w - 1, h - 1])
    for k, (kx, ky) in enumerate(keypoints.astype(int)):
        image[max(ky - 1, 0) : ky + 2, max(kx - 1, 0) : kx + 2] = _colour(k, len(KEYPOINTS))
    return image, boxes, keypoints


def _annotation(
    identifier: int, image: int, category: int, box: list[int], keypoints: np.ndarray
) -> dict[str, Any]:
    x, y, w, h = box
    annotation: dict[str, Any] = {
        'id': identifier,
        'image_id': image,
        'category_id': category,
        'bbox': [float(v) for v in box],
        'area': float(w * h),
        'iscrowd': 0,
        'segmentation': [[float(v) for v in (x, y, x + w, y, x + w, y + h, x, y + h)]],
    }
    if category == 1:
        visible = np.concatenate([keypoints.round(1), np.full((len(keypoints), 1), 2)], axis=1)
        annotation.update(keypoints=visible.ravel().tolist(), num_keypoints=len(keypoints))
    return annotation


def _write_annotations(
    root: Path, split: str, images: list[dict[str, Any]], objects: list[dict[str, Any]]
) -> None:
    categories = [{'id': i, 'name': n, 'supercategory': n} for i, n in COCO_CATEGORIES.items()]
    person = {**categories[0], 'keypoints': KEYPOINTS, 'skeleton': []}
    people = [o for o in objects if o['category_id'] == 1]
    info = {'info': {'description': 'tiny'}, 'licenses': [], 'images': images}
    folder = root / 'annotations'
    for name, kinds, anns in (
        ('instances', categories, objects),
        ('person_keypoints', [person], people),
    ):
        content = {**info, 'categories': kinds, 'annotations': anns}
        (folder / f'{name}_{split}.json').write_text(json.dumps(content))
    if split == 'val2017':
        found = [
            {k: o[k] for k in ('image_id', 'category_id', 'bbox')} | {'score': 0.9} for o in people
        ]
        (root / 'person_detection_results').mkdir(exist_ok=True)
        name = 'COCO_val2017_detections_AP_H_56_person.json'
        (root / 'person_detection_results' / name).write_text(json.dumps(found))
