"""A folder of images in class folders: what is in it, split into training and validation."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bocb_mm.errors import UserError
from bocb_mm.runs.files import atomic_write_text

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')
VALIDATION = ('val', 'valid', 'validation', 'test')
VAL_SHARE = 0.2
LARGEST = 224  # side, in px, that images are shrunk to

Samples = list[tuple[str, int]]
"""Path below the folder and class of each image."""


@dataclass(frozen=True)
class Images:
    """Images of classes.

    Attributes:
        folder: Where they are.
        classes: Names of the classes, in alphabetical order.
        train: Training images.
        val: Validation images.
        side: Side of the square they are brought to, in px, a multiple of 32.
        split: Where the split comes from, in words.
    """

    folder: Path
    classes: tuple[str, ...]
    train: Samples
    val: Samples
    side: int
    split: str

    @property
    def identity(self) -> str:
        """Hash of the names and classes of all images: the same folder anywhere."""
        return hashlib.sha256(repr((self.train, self.val, self.side)).encode()).hexdigest()[:16]

    def write_lists(self, where: Path) -> tuple[str, str]:
        """Write mmpretrain's lists of training and validation images; returns their paths."""
        where.mkdir(parents=True, exist_ok=True)
        paths = []
        for name, samples in (('train', self.train), ('val', self.val)):
            lines = ''.join(f'{path} {label}\n' for path, label in samples)
            atomic_write_text(where / f'{name}.txt', lines)
            paths.append(str((where / f'{name}.txt').resolve()))
        return paths[0], paths[1]


def find_images(folder: str | os.PathLike[str], side: int | None = None) -> Images:
    """Look at a folder: ``train/CLASS/*.jpg`` and ``val/CLASS/*.jpg``, or ``CLASS/*.jpg`` alone.

    Without a folder for validation, a fifth of each class is set aside, always the same images.

    Args:
        folder: The folder.
        side: Side of the square that images are brought to; by default the multiple of 32 that
            holds the shorter side of half of the images, at most 224.

    Raises:
        UserError: No such folder, fewer than two classes, a class without images, or different
            classes in the two halves.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f'--data {folder}: no such folder; a folder of class folders is expected')
    train = root / 'train'
    # A flat `test` of images without labels, as competitions have it, is none.
    val = next((root / name for name in VALIDATION if _class_folders(root / name)), None)
    if train.is_dir() and val is not None:
        classes, samples = _of_classes(root, train)
        other, held_out = _of_classes(root, val)
        if classes != other:
            differ = ', '.join(sorted(set(classes) ^ set(other))[:5])
            raise UserError(
                f'--data {folder}: {train.name} and {val.name} hold different classes ({differ})'
            )
        split = f'{train.name} and {val.name} as they are'
    else:
        where = train if train.is_dir() else root
        classes, found = _of_classes(root, where)
        samples, held_out = _split(found)
        split = f'a fifth of each class of {where.name} set aside'
    return Images(root, classes, samples, held_out, side or _side(root, samples), split)


def _of_classes(root: Path, folder: Path) -> tuple[tuple[str, ...], Samples]:
    """Classes of a folder and its images, as paths below ``root``."""
    folders = _class_folders(folder)
    samples: Samples = []
    for label, one in enumerate(folders):
        names = sorted(p for p in one.rglob('*') if _is_image(p.relative_to(one), p))
        if not names:
            raise UserError(
                f'--data {folder}: {one.name} holds no image ({", ".join(EXTENSIONS)}); remove it, '
                'or name the folder that holds the class folders'
            )
        samples += [(p.relative_to(root).as_posix(), label) for p in names]
    if len(folders) < 2:
        found = f'only one class ({folders[0].name})' if folders else 'no class folder'
        raise UserError(
            f'--data {folder}: {found} is there; at least two folders, one a class, are expected'
        )
    return tuple(p.name for p in folders), samples


def _class_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not _is_hidden(p.name))


def _is_hidden(name: str) -> bool:
    """What a Mac, a notebook or a version control leaves behind."""
    return name.startswith('.') or name == '__MACOSX'


def _is_image(below: Path, path: Path) -> bool:
    shown = not any(map(_is_hidden, below.parts))
    return shown and path.suffix.lower() in EXTENSIONS and path.is_file()


def _split(samples: Samples) -> tuple[Samples, Samples]:
    """Set aside a fifth of each class, at least one image."""
    by_class: dict[int, Samples] = {}
    for sample in samples:
        by_class.setdefault(sample[1], []).append(sample)
    train: Samples = []
    val: Samples = []
    for label, members in by_class.items():
        if len(members) < 2:
            raise UserError(
                f'--data: class {Path(members[0][0]).parent.name} has one image; at least two are '
                'expected, one to train and one to validate'
            )
        drawn = random.Random(label).sample(members, max(1, round(VAL_SHARE * len(members))))
        val += sorted(drawn)
        train += sorted(set(members) - set(drawn))
    return train, val


def _side(root: Path, samples: Iterable[tuple[str, int]]) -> int:
    """The multiple of 32 that holds the shorter side of half of the images, at most 224."""
    from PIL import Image

    every = list(samples)
    sides = []
    for path, _ in every[:: max(1, len(every) // 50)]:
        try:
            with Image.open(root / path) as image:
                sides.append(min(image.size))
        except OSError as error:
            raise UserError(
                f'--data: {root / path} cannot be read as an image ({error}); remove it'
            ) from None
    return min(LARGEST, 32 * max(1, -(-int(median(sides)) // 32)))
