"""Pose images: stick figures with the 17 keypoints of COCO, all of them visible."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bocb_mm.datasets.backgrounds import background, contrasting
from bocb_mm.runs.files import atomic_write_text

SLOT = (96, 128)  # width and height of the part of a image that one figure has, in px
FIGURES = 2  # slots side by side in a image
COUNTS = {'train': 400, 'val': 100}  # images
HEIGHTS = (70, 112)  # least and largest height of a figure, before its pose bends it, in px
SMOOTH = 4  # images are drawn this much larger and reduced

# Names and order of COCO 2017 (its annotation files); left is the figure's own left, and the
# figures face the viewer, so left parts stand on the right side of the image.
KEYPOINTS = (
    'nose', 'left_eye', 'right_eye', 'left_ear', 'right_ear', 'left_shoulder', 'right_shoulder',
    'left_elbow', 'right_elbow', 'left_wrist', 'right_wrist', 'left_hip', 'right_hip',
    'left_knee', 'right_knee', 'left_ankle', 'right_ankle',
)  # fmt: skip
_AT = {name: k for k, name in enumerate(KEYPOINTS)}
# Numbered from 1, as COCO's `skeleton` is.
SKELETON = tuple(
    (_AT[a] + 1, _AT[b] + 1)
    for a, b in (
        ('left_ankle', 'left_knee'), ('left_knee', 'left_hip'), ('right_ankle', 'right_knee'),
        ('right_knee', 'right_hip'), ('left_hip', 'right_hip'), ('left_shoulder', 'left_hip'),
        ('right_shoulder', 'right_hip'), ('left_shoulder', 'right_shoulder'),
        ('left_shoulder', 'left_elbow'), ('right_shoulder', 'right_elbow'),
        ('left_elbow', 'left_wrist'), ('right_elbow', 'right_wrist'), ('left_eye', 'right_eye'),
        ('nose', 'left_eye'), ('nose', 'right_eye'), ('left_eye', 'left_ear'),
        ('right_eye', 'right_ear'), ('left_ear', 'left_shoulder'), ('right_ear', 'right_shoulder'),
    )
)  # fmt: skip

# Lengths as a share of the figure's height; rough proportions of a grown person.
HEAD, TORSO, UPPER_ARM, FOREARM, THIGH, SHIN = 0.075, 0.30, 0.17, 0.15, 0.21, 0.21
SHOULDER, HIP, NECK = 0.11, 0.075, 0.12
LIMB = 0.045  # width of a limb


@dataclass(frozen=True)
class Figure:
    """One drawn figure.

    Attributes:
        keypoints: x, y in px of the image, in the order of :data:`KEYPOINTS`, shape (17, 2).
        box: Tight box of what was drawn, ``(x, y, w, h)`` in px.
        area: Number of drawn pixels.
    """

    keypoints: np.ndarray
    box: tuple[int, int, int, int]
    area: int


def random_pose(rng: np.random.Generator) -> np.ndarray:
    """Keypoints of a figure of height 1 around its hips: x to the right, y down.

    Args:
        rng: Source of randomness.

    Returns:
        Shape (17, 2). Arms swing through most of a circle, legs stay below the hips.

    Example:
        >>> random_pose(np.random.default_rng(0)).shape
        (17, 2)
    """
    points = np.zeros((17, 2))
    lean = rng.normal(0, 0.12)
    up, right = _direction(np.pi + lean), _direction(np.pi / 2 + lean)
    neck = TORSO * up
    for side, sign in (('left', 1.0), ('right', -1.0)):
        shoulder = points[_AT[f'{side}_shoulder']] = neck + sign * SHOULDER * right
        arm = rng.uniform(0.15, 2.6)
        elbow = points[_AT[f'{side}_elbow']] = shoulder + UPPER_ARM * _direction(sign * arm)
        bend = arm + rng.uniform(-0.9, 1.2)
        points[_AT[f'{side}_wrist']] = elbow + FOREARM * _direction(sign * bend)
        hip = points[_AT[f'{side}_hip']] = sign * HIP * right
        leg = rng.uniform(0.0, 0.7)
        knee = points[_AT[f'{side}_knee']] = hip + THIGH * _direction(sign * leg)
        bend = leg + rng.uniform(-0.25, 0.3)  # shins never cross
        points[_AT[f'{side}_ankle']] = knee + SHIN * _direction(sign * bend)
    tilt = lean + rng.normal(0, 0.15)
    up, right = _direction(np.pi + tilt), _direction(np.pi / 2 + tilt)
    centre = neck + NECK * up
    points[_AT['nose']] = centre - 0.2 * HEAD * up
    for side, sign in (('left', 1.0), ('right', -1.0)):
        points[_AT[f'{side}_eye']] = centre + HEAD * (0.3 * up + sign * 0.45 * right)
        points[_AT[f'{side}_ear']] = centre + HEAD * (0.1 * up + sign * right)
    return points


def _direction(angle: float) -> np.ndarray:
    """Unit vector; 0 hangs down, positive angles turn to the right of the image."""
    return np.array([np.sin(angle), np.cos(angle)])


def draw_figure(rng: np.random.Generator, image: np.ndarray, slot_x: int) -> Figure:
    """Draw a random figure into a slot of ``image``, in place, wholly inside the slot.

    Args:
        rng: Source of randomness.
        image: float32 RGB in [0, 255], shape (H, W, 3); changed.
        slot_x: Left side of the slot in px.

    Returns:
        The figure's keypoints, box and area.
    """
    pose = random_pose(rng)
    margin = 3 + LIMB * HEIGHTS[1]
    room = np.array(SLOT) - 2 * margin
    head_and_all = np.concatenate([pose, pose[:5] - np.array([0, HEAD])])  # the skull rises
    low, high = head_and_all.min(axis=0), head_and_all.max(axis=0)
    scale = min(rng.uniform(*HEIGHTS), *(room / (high - low)))
    offset = margin + rng.uniform(0, 1, size=2) * (room - scale * (high - low)) - scale * low
    local = pose * scale + offset
    colours, alpha = _paint(rng, local, scale, image[: SLOT[1], slot_x : slot_x + SLOT[0]])
    under = image[: SLOT[1], slot_x : slot_x + SLOT[0]]
    under += alpha[..., None] * (colours - under)
    drawn = alpha > 0.25
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    box = (slot_x + x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y)
    return Figure(local + np.array([slot_x, 0]), box, int(drawn.sum()))


def _paint(
    rng: np.random.Generator, points: np.ndarray, scale: float, under: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Colour (H, W, 3) and coverage (H, W) of a figure, drawn large and reduced."""
    from PIL import Image, ImageDraw

    def colour(distance: float) -> tuple[int, ...]:
        return tuple(int(c) for c in contrasting(rng, under, distance))

    shirt, trousers, skin = colour(60), colour(60), colour(60)
    width, height = SLOT
    large = (width * SMOOTH, height * SMOOTH)
    layers = Image.new('RGB', large, skin), Image.new('L', large, 0)
    in_colour, in_grey = (ImageDraw.Draw(layer) for layer in layers)
    at = {name: tuple(points[k] * SMOOTH) for name, k in _AT.items()}
    limb = LIMB * scale * SMOOTH

    def line(a: str, b: str, fill: tuple[int, ...]) -> None:
        in_colour.line([at[a], at[b]], fill=fill, width=round(limb))
        in_grey.line([at[a], at[b]], fill=255, width=round(limb))
        for end in (a, b):
            disc(at[end], limb / 2, fill)

    def disc(centre: tuple[float, ...], radius: float, fill: tuple[int, ...]) -> None:
        x, y = centre
        in_colour.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill)
        in_grey.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)

    for side in ('left', 'right'):
        line(f'{side}_hip', f'{side}_knee', trousers)
        line(f'{side}_knee', f'{side}_ankle', trousers)
    trunk = [at[k] for k in ('left_shoulder', 'right_shoulder', 'right_hip', 'left_hip')]
    in_colour.polygon(trunk, fill=shirt)
    in_grey.polygon(trunk, fill=255)
    line('left_shoulder', 'right_shoulder', shirt)
    for side in ('left', 'right'):
        line(f'{side}_shoulder', f'{side}_elbow', shirt)
        line(f'{side}_elbow', f'{side}_wrist', skin)
    _paint_head(at, HEAD * scale * SMOOTH, skin, disc)
    small = [layer.resize(SLOT, Image.Resampling.BOX) for layer in layers]
    return np.asarray(small[0], dtype=np.float32), np.asarray(small[1], dtype=np.float32) / 255


def _paint_head(at: dict[str, tuple[float, ...]], radius: float, skin: Any, disc: Any) -> None:
    """A face with ears, and with dark eyes and a dark nose (light ones on a dark skin)."""
    mark = (20, 20, 20) if sum(skin) > 380 else (235, 235, 235)
    ears = np.array([at['left_ear'], at['right_ear']])
    disc(tuple(ears.mean(axis=0)), radius, skin)
    for side in ('left', 'right'):
        disc(at[f'{side}_ear'], radius * 0.3, skin)
        disc(at[f'{side}_eye'], radius * 0.2, mark)
    disc(at['nose'], radius * 0.15, mark)


def compose_figures(rng: np.random.Generator) -> tuple[np.ndarray, list[Figure]]:
    """One image with :data:`FIGURES` figures side by side, none hiding another.

    Args:
        rng: Source of randomness.

    Returns:
        The image (uint8 RGB, shape (128, 192, 3)) and its figures.

    Example:
        >>> image, figures = compose_figures(np.random.default_rng(0))
        >>> image.shape, len(figures)
        ((128, 192, 3), 2)
    """
    image = background(rng, SLOT[0] * FIGURES, SLOT[1])
    figures = [draw_figure(rng, image, k * SLOT[0]) for k in range(FIGURES)]
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8), figures


def write_figures(root: Path, seed: int = 0) -> dict[str, int]:
    """Write ``root/{train,val}/*.png`` and ``root/annotations/{train,val}.json`` (COCO keypoints).

    Args:
        root: Folder to fill.
        seed: Seed of the figures.

    Returns:
        Number of images by split.
    """
    from PIL import Image

    (root / 'annotations').mkdir(parents=True, exist_ok=True)
    category = {
        'id': 1,
        'name': 'person',
        'supercategory': 'person',
        'keypoints': list(KEYPOINTS),
        'skeleton': [list(link) for link in SKELETON],
    }
    for number, (split, count) in enumerate(COUNTS.items()):
        rng = np.random.default_rng([seed, 2, number])
        (root / split).mkdir(parents=True, exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image_id in range(1, count + 1):
            image, figures = compose_figures(rng)
            name = f'{image_id:06d}.png'
            Image.fromarray(image).save(root / split / name)
            height, width = image.shape[:2]
            images.append({'id': image_id, 'file_name': name, 'width': width, 'height': height})
            for figure in figures:
                annotations.append(_annotation(len(annotations) + 1, image_id, figure))
        content = {'images': images, 'annotations': annotations, 'categories': [category]}
        atomic_write_text(root / 'annotations' / f'{split}.json', json.dumps(content))
    return dict(COUNTS)


def _annotation(number: int, image_id: int, figure: Figure) -> dict[str, Any]:
    """A figure as a COCO keypoints annotation; every keypoint is labelled and visible (2)."""
    triples = [value for x, y in figure.keypoints for value in (round(x, 2), round(y, 2), 2)]
    return {
        'id': number,
        'image_id': image_id,
        'category_id': 1,
        'bbox': list(figure.box),
        'area': figure.area,
        'iscrowd': 0,
        'num_keypoints': len(KEYPOINTS),
        'keypoints': triples,
    }
