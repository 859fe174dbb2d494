"""Textured and noisy backgrounds for composed images."""

from __future__ import annotations

import numpy as np

LUMINANCE = np.array([0.299, 0.587, 0.114])  # of RGB, ITU-R BT.601


def background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A random background: soft patches of colour, stripes in half of the cases, fine noise.

    Args:
        rng: Source of randomness.
        width: Width in px.
        height: Height in px.

    Returns:
        float32 RGB in [0, 255], shape (height, width, 3).

    Example:
        >>> background(np.random.default_rng(0), 96, 64).shape
        (64, 96, 3)
    """
    base = rng.uniform(40, 215, size=3)
    patches = base + rng.uniform(
        -45, 45, size=(int(rng.integers(2, 7)), int(rng.integers(2, 7)), 3)
    )
    image = _stretch(patches, width, height)
    if rng.random() < 0.5:
        image += _stripes(rng, width, height)
    image += rng.normal(0, rng.uniform(2, 12), size=(height, width, 3))
    return np.clip(image, 0, 255).astype(np.float32)


def _stretch(patches: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear enlargement of a small colour grid; corners map to corners."""
    for axis, size in ((0, height), (1, width)):
        at = np.linspace(0, patches.shape[axis] - 1, size)
        low = np.minimum(at.astype(int), patches.shape[axis] - 2)
        share = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        patches = patches.take(low, axis) * (1 - share) + patches.take(low + 1, axis) * share
    return patches


def _stripes(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A plane wave of random direction and period, shape (height, width, 1)."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(6, 40)
    y, x = np.mgrid[:height, :width]
    phase = (x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period
    return (np.sin(phase) * rng.uniform(5, 25))[..., None]


def contrasting(rng: np.random.Generator, under: np.ndarray, distance: float) -> np.ndarray:
    """A random colour that is lighter or darker than the mean of ``under``.

    Args:
        rng: Source of randomness.
        under: RGB pixels the colour will lie on, shape (..., 3), in [0, 255].
        distance: Least distance of the luminances; at most 100, so that such colours are frequent
            for every mean.

    Returns:
        RGB in [0, 255], shape (3,).
    """
    mean = under.reshape(-1, 3).mean(axis=0) @ LUMINANCE
    while True:
        colour = rng.uniform(0, 255, size=3)
        if abs(colour @ LUMINANCE - mean) >= distance:
            return colour
