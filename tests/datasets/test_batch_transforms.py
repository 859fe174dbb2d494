"""Augmentations of a batch give what mmpretrain's workers give: the same values, the same chances."""

import inspect

import mmcv
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, ks_2samp

from bocb_mm.datasets import BatchRandomErasing, BatchRandomResizedCrop
from bocb_mm.errors import UserError

CUBIC = dict(backend='pillow', interpolation='bicubic')
ERASE = dict(
    mode='rand', min_area_ratio=0.02, max_area_ratio=1 / 3,
    fill_color=[129.304, 124.070, 112.434], fill_std=[68.170, 65.392, 70.418],
)  # fmt: skip
SURE = 1e-4  # of a p-value; seeds are fixed, so that a test that passes once passes always


@pytest.fixture(scope='module')
def theirs():
    from mmpretrain.datasets import transforms

    return transforms


class FixedBoxes(BatchRandomResizedCrop):
    """Crops the box (top, left, height, width) from every image."""

    def __init__(self, box, **kwargs):
        super().__init__(**kwargs)
        self.box = box

    def boxes(self, n, height, width, rng):
        return np.tile(np.array(self.box)[:, None], n)


def images(seed, n=2, height=32, width=32):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def batch(shown):
    return torch.from_numpy(shown).permute(0, 3, 1, 2)


def levels_apart(seed, h, w, top, left, scale):
    """How far the crops of two images lie from Pillow's, in grey levels."""
    shown = images(seed, height=48, width=48)
    found = FixedBoxes((top, left, h, w), scale=scale)(batch(shown), None)
    for one, image in zip(found, shown):
        cut = mmcv.imcrop(image, np.array([left, top, left + w - 1, top + h - 1]))
        told = mmcv.imresize(cut, scale[::-1], **CUBIC).astype(float)
        yield np.abs(one.permute(1, 2, 0).numpy() - told)


SCALES = [(64, 64), (224, 224), (40, 60), (16, 20)]


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.integers(0, 8),
    st.integers(0, 8), st.sampled_from(SCALES),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_box_is_enlarged_as_pillow_does(seed, h, w, top, left, scale):
    shorter, narrower = h - scale[0], w - scale[1]
    assume(not (shorter > 0 and shorter > 2 * narrower))  # there Pillow does the columns first
    # Pillow's weights are whole multiples of 2^-22: a value halfway between two levels may go to
    # the other one after the rows, and what is made of it after the columns.
    assert max(apart.max() for apart in levels_apart(seed, h, w, top, left, scale)) <= 2


def test_few_values_of_a_box_are_not_pillows():
    rng = np.random.default_rng(0)
    apart = [
        found.ravel()
        for scale in SCALES[:3]  # the box is at most 40 pixels wide and high: none is shrunk
        for seed in range(10)
        for found in levels_apart(seed, *rng.integers(1, 41, 2), *rng.integers(0, 9, 2), scale)
    ]
    assert (np.concatenate(apart) > 0).mean() < 0.01


def test_autocast_does_not_coarsen_grey_levels():
    shown, crop = batch(images(0)), FixedBoxes((3, 5, 20, 24), scale=64)
    plain = crop(shown, None)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(crop(shown, None), plain)


@pytest.mark.parametrize('height, width', [(32, 32), (16, 64), (64, 16)])
def test_boxes_are_drawn_as_the_workers_draw_them(height, width, theirs):
    n = 4000
    worker = theirs.RandomResizedCrop(scale=224, **CUBIC)
    np.random.seed(0)
    image = np.zeros((height, width, 3), np.uint8)
    drawn = np.array([worker.rand_crop_params(image) for _ in range(n)]).T
    ours = BatchRandomResizedCrop(224).boxes(n, height, width, np.random.default_rng(1))
    _same_boxes(ours, drawn)


@pytest.mark.parametrize('height, width', [(32, 32), (24, 60)])
def test_rectangles_are_drawn_as_the_workers_draw_them(height, width, theirs):
    n = 4000
    worker = theirs.RandomErasing(erase_prob=1.0, **ERASE)
    np.random.seed(0)
    drawn = np.array([worker.random_patch(height, width) for _ in range(n)]).T
    ours = BatchRandomErasing(1.0, **ERASE).boxes(n, height, width, np.random.default_rng(1))
    _same_boxes(ours, drawn)


def _same_boxes(ours, theirs):
    """Rows and what they make together (corner, area, shape) have the same distributions."""
    told = [(*b, b[0] + b[2], b[1] + b[3], b[2] * b[3], b[2] / b[3]) for b in (ours, theirs)]
    for mine, his in zip(*told):
        assert set(np.unique(mine)) & set(np.unique(his))
        assert ks_2samp(mine, his).pvalue > SURE


def test_a_wrong_distribution_of_boxes_is_noticed(theirs):
    worker = theirs.RandomErasing(erase_prob=1.0, **ERASE)
    drawn = np.array([worker.random_patch(32, 32) for _ in range(4000)]).T
    other = BatchRandomErasing(1.0, **ERASE | {'max_area_ratio': 0.4})
    with pytest.raises(AssertionError):
        _same_boxes(other.boxes(4000, 32, 32, np.random.default_rng(1)), drawn)


@pytest.mark.parametrize(
    'change', [{}, {'fill_std': None}, {'mode': 'const'}], ids=['normal', 'uniform', 'const']
)
def test_rectangles_are_filled_as_the_workers_fill_them(change, theirs):
    arguments = ERASE | change
    worker = theirs.RandomErasing(erase_prob=1.0, **arguments)
    np.random.seed(0)
    blank = np.zeros((64, 64, 3), np.uint8)
    theirs_fill = worker._fill_pixels(blank, 0, 0, 64, 64).reshape(-1, 3)
    ours = BatchRandomErasing(1.0, **arguments)
    ours.boxes = lambda n, *_: np.tile([[0], [0], [64], [64]], n)
    found = ours(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), np.random.default_rng(1))
    assert found.dtype == torch.uint8
    for mine, his in zip(found[0].flatten(1).numpy(), theirs_fill.T):
        assert ks_2samp(mine, his).pvalue > SURE


def test_the_share_of_erased_images_is_erase_prob():
    n = 4000
    whole = BatchRandomErasing(0.25, mode='const', fill_color=7)
    found = whole(torch.zeros(n, 1, 16, 16, dtype=torch.uint8), np.random.default_rng(0))
    erased = int(found.flatten(1).any(1).sum())
    assert chisquare([erased, n - erased], [0.25 * n, 0.75 * n]).pvalue > SURE


def test_the_arguments_are_those_of_the_workers(theirs):
    def arguments(kind):
        return {k: p.default for k, p in inspect.signature(kind).parameters.items()}

    erase = arguments(theirs.RandomErasing)
    assert arguments(BatchRandomErasing) == erase
    crop = arguments(theirs.RandomResizedCrop)
    ours = arguments(BatchRandomResizedCrop)
    assert list(ours) and set(ours) == set(crop)
    cubic = {'interpolation': 'bicubic', 'backend': 'pillow'}  # nothing else is built
    assert ours == crop | cubic


def test_what_the_device_cannot_do_is_refused():
    with pytest.raises(UserError, match="interpolation='bilinear', backend='cv2'"):
        BatchRandomResizedCrop(224, interpolation='bilinear', backend='cv2')
    with pytest.raises(UserError, match="mode='noise'"):
        BatchRandomErasing(mode='noise')
