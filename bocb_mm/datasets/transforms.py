"""Augmentations of the quickstart's own images."""

from __future__ import annotations

from typing import Any

import numpy as np

from bocb_mm.datasets.backgrounds import background, contrasting
from bocb_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class OnTexture:
    """Put white ink on black, as the digits have it, in a random colour on a random ground.

    The scenes of the quickstart show digits in this manner; a network that saw them so in
    pre-training starts ahead there.

    Args:
        prob: Share of the images that are changed.
        distance: Least distance of the luminances of ink and ground, see
            :func:`~bocb_mm.datasets.backgrounds.contrasting`.

    Example:
        >>> image = np.zeros((32, 32, 3), np.uint8)
        >>> bool(OnTexture(prob=1.0)({'img': image})['img'].any())
        True
    """

    def __init__(self, prob: float = 0.5, distance: float = 80.0) -> None:
        self.prob, self.distance = prob, distance

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Change ``results['img']`` (uint8, shape (H, W, 3)) with the given probability."""
        if np.random.rand() >= self.prob:
            return results
        rng = np.random.default_rng(np.random.randint(2**31))  # follows the run's seed
        ink = results['img'][..., :1].astype(np.float32) / 255
        ground = background(rng, ink.shape[1], ink.shape[0])
        colour = contrasting(rng, ground, self.distance)
        results['img'] = np.rint(ground + ink * (colour - ground)).astype(np.uint8)
        return results
