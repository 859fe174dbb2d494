"""Augmentations of a whole batch, on whatever device it lies: what workers would do image by image.

Each takes the arguments of mmpretrain's transform of the same name (without ``Batch``) and gives
images of the same distribution; ``tests/datasets/test_batch_transforms.py`` compares them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bocb_mm.errors import UserError
from bocb_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class BatchRandomResizedCrop:
    """Crop a box of random area and aspect ratio from each image and resize it by cubics.

    Pillow's filter (a = -1/2, widened where it shrinks) as one matrix a side and image, with
    Pillow's rounding to whole grey levels after each side, rows first. (Pillow 13 takes the columns
    first where it shrinks the height, and by more than twice as many pixels as the width; 17 of 255
    levels apart was the most seen on noise.)

    Args:
        scale: Height and width of the output in pixels, or one number for both.
        crop_ratio_range: Least and greatest share of the image's area.
        aspect_ratio_range: Least and greatest width / height, uniform in the logarithm.
        max_attempts: Draws before the whole image, cut to the allowed aspect ratio, is taken.
        interpolation: ``'bicubic'``.
        backend: ``'pillow'``.

    Raises:
        UserError: Another interpolation or backend.

    Example:
        >>> crop = BatchRandomResizedCrop(scale=64)
        >>> images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
        >>> tuple(crop(images, np.random.default_rng(0)).shape)
        (4, 3, 64, 64)
    """

    def __init__(
        self,
        scale: int | Sequence[int],
        crop_ratio_range: tuple[float, float] = (0.08, 1.0),
        aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
        max_attempts: int = 10,
        interpolation: str = 'bicubic',
        backend: str = 'pillow',
    ) -> None:
        if (interpolation, backend) != ('bicubic', 'pillow'):
            raise UserError(
                f'BatchRandomResizedCrop(interpolation={interpolation!r}, backend={backend!r}): '
                "only 'bicubic' of 'pillow' runs on the device; leave the transform to the workers"
            )
        self.scale = (scale, scale) if isinstance(scale, int) else (scale[0], scale[1])
        self.crop_ratio_range, self.aspect_ratio_range = crop_ratio_range, aspect_ratio_range
        self.max_attempts = max_attempts

    def boxes(self, n: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """Draw ``n`` boxes: int array of shape (4, n), rows top, left, height, width."""
        shape = (n, self.max_attempts)
        area = rng.uniform(*self.crop_ratio_range, size=shape) * height * width
        aspect = _log_uniform(rng, self.aspect_ratio_range, shape)
        heights = np.rint(np.sqrt(area / aspect)).astype(int)
        widths = np.rint(np.sqrt(area * aspect)).astype(int)
        fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
        first, found = (np.arange(n), fits.argmax(1)), fits.any(1)
        lowest, highest = self.aspect_ratio_range
        whole = min(height, round(width / lowest)), min(width, round(height * highest))
        h = np.where(found, heights[first], whole[0])
        w = np.where(found, widths[first], whole[1])
        top = np.where(found, rng.integers(0, height - h + 1), (height - h) // 2)
        left = np.where(found, rng.integers(0, width - w + 1), (width - w) // 2)
        return np.stack([top, left, h, w])

    def __call__(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Images of shape (N, C, H, W), grey levels 0 to 255, as float32 (N, C, *scale)."""
        n, _, height, width = images.shape
        boxes = torch.as_tensor(self.boxes(n, height, width, rng), device=images.device)
        top, left, h, w = boxes.float()
        columns = _cubic_weights(left, w, width, self.scale[1])
        rows = _cubic_weights(top, h, height, self.scale[0])
        # Inside train_step autocast is on: bfloat16 has 8 bits, no whole grey levels above 256.
        with torch.autocast(images.device.type, enabled=False):
            wide = _whole_levels(images.float() @ columns.mT.unsqueeze(1))
            return _whole_levels(rows.unsqueeze(1) @ wide)


def _log_uniform(
    rng: np.random.Generator, bounds: Sequence[float], shape: tuple[int, ...]
) -> np.ndarray:
    return np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]), shape))


def _cubic_weights(start: Tensor, length: Tensor, n_in: int, n_out: int) -> Tensor:
    """What each input pixel gives to each output pixel of a crop, shape (N, n_out, n_in)."""
    start, length = start.view(-1, 1, 1), length.view(-1, 1, 1)
    step = length / n_out
    pixel = torch.arange(n_in, device=start.device).view(1, 1, -1)
    centre = (torch.arange(n_out, device=start.device).view(1, -1, 1) + 0.5) * step + start
    x = ((pixel + 0.5 - centre) / step.clamp(min=1)).abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0))
    weights = weights * ((pixel >= start) & (pixel < start + length))
    return weights / weights.sum(-1, keepdim=True)


def _whole_levels(x: Tensor) -> Tensor:
    return (x + 0.5).floor_().clamp_(0, 255)


@TRANSFORMS.register_module()
class BatchRandomErasing:
    """Fill a random rectangle of some of the images.

    Args:
        erase_prob: Share of the images that lose a rectangle.
        min_area_ratio: Least share of the image's area.
        max_area_ratio: Greatest share of it.
        aspect_range: Least and greatest height / width, uniform in the logarithm; one number a
            stands for a and 1/a.
        mode: ``'const'`` fills with ``fill_color``, ``'rand'`` with noise.
        fill_color: Fill, or the noise's mean, of each channel as the images have them.
        fill_std: Standard deviation of normal noise; ``None`` for uniform noise.

    Example:
        >>> erase = BatchRandomErasing(erase_prob=1.0, mode='const', fill_color=(9, 9, 9))
        >>> images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
        >>> bool((erase(images, np.random.default_rng(0)) == 9).any())
        True
    """

    def __init__(
        self,
        erase_prob: float = 0.5,
        min_area_ratio: float = 0.02,
        max_area_ratio: float = 0.4,
        aspect_range: float | Sequence[float] = (3 / 10, 10 / 3),
        mode: str = 'const',
        fill_color: float | Sequence[float] = (128, 128, 128),
        fill_std: float | Sequence[float] | None = None,
    ) -> None:
        if mode not in ('const', 'rand'):
            raise UserError(f"BatchRandomErasing(mode={mode!r}): 'const' or 'rand' is expected")
        if isinstance(aspect_range, (int, float)):
            aspect_range = sorted((aspect_range, 1 / aspect_range))
        self.erase_prob, self.mode = erase_prob, mode
        self.area_range, self.aspect_range = (min_area_ratio, max_area_ratio), aspect_range
        self.fill_color, self.fill_std = fill_color, fill_std

    def boxes(self, n: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """Draw ``n`` boxes: int array of shape (4, n), rows top, left, height, width."""
        aspect = _log_uniform(rng, self.aspect_range, (n,))
        area = rng.uniform(*self.area_range, size=n) * height * width
        h = np.minimum(np.rint(np.sqrt(area * aspect)).astype(int), height)
        w = np.minimum(np.rint(np.sqrt(area / aspect)).astype(int), width)
        # As in mmpretrain 1.2.0, a smaller rectangle never reaches the image's last row or column.
        top = rng.integers(0, np.maximum(height - h, 1))
        left = rng.integers(0, np.maximum(width - w, 1))
        return np.stack([top, left, h, w])

    def __call__(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Images of shape (N, C, H, W), grey levels 0 to 255; dtype and shape stay."""
        n, _, height, width = images.shape
        boxes = self.boxes(n, height, width, rng) * (rng.random(n) <= self.erase_prob)
        top, left, h, w = torch.as_tensor(boxes, device=images.device).view(4, n, 1)
        row = torch.arange(height, device=images.device)
        column = torch.arange(width, device=images.device)
        rows, columns = (row >= top) & (row < top + h), (column >= left) & (column < left + w)
        erased = rows[:, None, :, None] & columns[:, None, None, :]
        return torch.where(erased, self._fill(images, rng).to(images.dtype), images)

    def _fill(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        mean = images.new_tensor(self.fill_color, dtype=torch.float32).view(-1, 1, 1)
        if self.mode == 'const':
            return mean.trunc()
        generator = torch.Generator(images.device).manual_seed(int(rng.integers(2**62)))
        if self.fill_std is None:
            return torch.randint(
                256, images.shape, generator=generator, device=images.device, dtype=torch.uint8
            )
        std = images.new_tensor(self.fill_std, dtype=torch.float32).view(-1, 1, 1)
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        return (noise * std + mean).trunc().clamp(0, 255)
