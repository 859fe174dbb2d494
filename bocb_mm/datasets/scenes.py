"""Detection scenes: digits pasted on textured backgrounds, with boxes known exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bocb_mm.datasets.backgrounds import background, contrasting
from bocb_mm.datasets.digits import CLASSES, Digits, enlarge, load_digits
from bocb_mm.runs.files import atomic_write_text

SIZE = 128  # side of a scene, in px
COUNTS = {'train': 800, 'val': 200}  # scenes
DIGITS_A_SCENE = (3, 6)  # fewest and most
HEIGHTS = (28, 52)  # least and largest height of a digit before trimming, in px
INK_THRESHOLD = 0.2  # fainter ink is dropped, so that a box ends where a digit visibly ends
Box = tuple[int, int, int, int]


def compose_scene(
    rng: np.random.Generator, digits: Digits, size: int = SIZE
) -> tuple[np.ndarray, list[tuple[int, Box]], np.ndarray]:
    """One scene of digits that do not overlap.

    Args:
        rng: Source of randomness.
        digits: Scans to draw from.
        size: Side of the scene in px.

    Returns:
        The image (uint8 RGB, shape (size, size, 3)), the objects as ``(label, (x, y, w, h))``
        with the tight box of the ink in px, and the map of object numbers (int, 0 for background,
        k for object k - 1), shape (size, size).

    Example:
        >>> train, _ = load_digits()
        >>> image, objects, _ = compose_scene(np.random.default_rng(0), train)
        >>> image.shape, 3 <= len(objects) <= 6
        ((128, 128, 3), True)
    """
    image = background(rng, size, size)
    numbers = np.zeros((size, size), dtype=np.int64)
    taken = np.zeros((size, size), dtype=bool)  # whole boxes, so that no digit reaches into another
    objects: list[tuple[int, Box]] = []
    for _ in range(int(rng.integers(DIGITS_A_SCENE[0], DIGITS_A_SCENE[1] + 1))):
        row = int(rng.integers(len(digits)))
        ink = _random_ink(rng, digits.images[row])
        box = _free_place(rng, taken, ink.shape)
        if box is None:
            continue
        x, y, w, h = box
        objects.append((int(digits.labels[row]), box))
        numbers[y : y + h, x : x + w][ink > 0] = len(objects)
        taken[y : y + h, x : x + w] = True
        under = image[y : y + h, x : x + w]
        colour = contrasting(rng, under, distance=80)
        under += ink[..., None] * (colour - under)
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8), objects, numbers


def _random_ink(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """A scan at a random size, without faint ink, trimmed to the ink that is left."""
    height = int(rng.integers(HEIGHTS[0], HEIGHTS[1] + 1))
    width = round(height * rng.uniform(0.8, 1.2))
    ink = enlarge(image, width, height)
    ink[ink < INK_THRESHOLD] = 0
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _free_place(
    rng: np.random.Generator, taken: np.ndarray, shape: tuple[int, ...], tries: int = 50
) -> Box | None:
    """A box that is free, and two px more on each side; None if no try found one."""
    h, w = shape
    for _ in range(tries):
        x = int(rng.integers(0, taken.shape[1] - w + 1))
        y = int(rng.integers(0, taken.shape[0] - h + 1))
        if not taken[max(y - 2, 0) : y + h + 2, max(x - 2, 0) : x + w + 2].any():
            return x, y, w, h
    return None


def write_scenes(root: Path, seed: int = 0) -> dict[str, int]:
    """Write ``root/{train,val}/*.png`` and ``root/annotations/{train,val}.json`` (COCO detection).

    Validation scenes hold validation scans only.

    Args:
        root: Folder to fill.
        seed: Seed of the split and of the scenes.

    Returns:
        Number of scenes by split.
    """
    from PIL import Image

    (root / 'annotations').mkdir(parents=True, exist_ok=True)
    for number, (split, digits) in enumerate(zip(('train', 'val'), load_digits(seed))):
        rng = np.random.default_rng([seed, 1, number])
        (root / split).mkdir(parents=True, exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image_id in range(1, COUNTS[split] + 1):
            image, objects, _ = compose_scene(rng, digits)
            name = f'{image_id:06d}.png'
            Image.fromarray(image).save(root / split / name)
            images.append({'id': image_id, 'file_name': name, 'width': SIZE, 'height': SIZE})
            for label, box in objects:
                annotations.append(
                    {
                        'id': len(annotations) + 1,
                        'image_id': image_id,
                        'category_id': label + 1,
                        'bbox': list(box),
                        'area': box[2] * box[3],  # there are no masks
                        'iscrowd': 0,
                    }
                )
        categories = [{'id': k + 1, 'name': name} for k, name in enumerate(CLASSES)]
        content = {'images': images, 'annotations': annotations, 'categories': categories}
        atomic_write_text(root / 'annotations' / f'{split}.json', json.dumps(content))
    return dict(COUNTS)
