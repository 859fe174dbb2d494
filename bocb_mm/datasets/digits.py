"""The handwritten digits bundled with scikit-learn, as a folder of images per class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bocb_mm.errors import UserError

CLASSES = tuple(str(d) for d in range(10))
VAL_SHARE = 0.2
SIZE = 32  # side of a written image, in px
SCALE = 3  # 8 px scans become 24 px, in the middle of SIZE


@dataclass(frozen=True)
class Digits:
    """Scans of handwritten digits.

    Attributes:
        images: Ink from 0 (paper) to 1, float32, shape (n, 8, 8).
        labels: The digit that was written, int64, shape (n,).
        indices: Row of each scan in scikit-learn's bundle, shape (n,).
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def load_digits(seed: int = 0) -> tuple[Digits, Digits]:
    """The 1,797 scans, split into training and validation scans that share none.

    The split is drawn within each class, so both halves hold the classes in the same proportion.

    Args:
        seed: Seed of the split.

    Returns:
        Training scans (about 80 %) and validation scans.

    Raises:
        UserError: scikit-learn is not installed.

    Example:
        >>> train, val = load_digits()
        >>> len(train), len(val), train.images.shape[1:]
        (1442, 355, (8, 8))

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), the
    test part, as scikit-learn ships it.
    """
    try:
        from sklearn.datasets import load_digits as bundled
    except ImportError:
        raise UserError(
            'scikit-learn, which carries the digits, is not installed: pip install scikit-learn'
        ) from None
    bunch = bundled()
    images = (bunch.images / 16.0).astype(np.float32)
    labels = bunch.target.astype(np.int64)
    rng = np.random.default_rng([seed, 0])
    val = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        rows = rng.permutation(np.flatnonzero(labels == digit))
        val[rows[: int(len(rows) * VAL_SHARE)]] = True

    def part(mask: np.ndarray) -> Digits:
        return Digits(images[mask], labels[mask], np.flatnonzero(mask))

    return part(~val), part(val)


def enlarge(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Ink of a scan at another size, bicubic, clipped to [0, 1].

    Args:
        image: Ink, shape (8, 8), in [0, 1].
        width: New width in px.
        height: New height in px.

    Returns:
        float32, shape (height, width).
    """
    from PIL import Image

    scan = Image.fromarray(image.astype(np.float32))
    resized = scan.resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(resized, dtype=np.float32), 0.0, 1.0)


def write_digits(root: Path, seed: int = 0) -> dict[str, int]:
    """Write ``root/{train,val}/<digit>/<row>.png``: 32x32 RGB, white ink on black.

    Args:
        root: Folder to fill.
        seed: Seed of the split, see :func:`load_digits`.

    Returns:
        Number of images by split.
    """
    from PIL import Image

    inner = 8 * SCALE
    margin = (SIZE - inner) // 2
    counts = {}
    for split, digits in zip(('train', 'val'), load_digits(seed)):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True, exist_ok=True)
        for image, label, index in zip(digits.images, digits.labels, digits.indices):
            ink = np.pad(enlarge(image, inner, inner), margin)
            grey = np.rint(ink * 255).astype(np.uint8)
            file = root / split / CLASSES[label] / f'{index:04d}.png'
            Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(file)
        counts[split] = len(digits)
    return counts
