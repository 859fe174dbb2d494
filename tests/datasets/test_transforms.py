"""OnTexture: ink stays where it was, seeds decide, the registry knows it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bocb_mm.datasets.backgrounds import LUMINANCE
from bocb_mm.datasets.transforms import OnTexture


def square():
    image = np.zeros((32, 32, 3), np.uint8)
    image[8:24, 8:24] = 255
    return image


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_full_ink_has_one_colour_and_stands_out(seed):
    np.random.seed(seed)
    image = OnTexture(prob=1.0, distance=80.0)({'img': square()})['img']
    assert image.dtype == np.uint8 and image.shape == (32, 32, 3)
    inside = image[8:24, 8:24].reshape(-1, 3)
    assert np.ptp(inside, axis=0).max() == 0
    outside = image[square()[..., 0] == 0]
    # The distance is to the mean of the whole ground, of which 3/4 lie outside the ink.
    assert abs((inside[0] - outside.mean(axis=0)) @ LUMINANCE) > 40


def test_probability_zero_changes_nothing():
    assert np.array_equal(OnTexture(prob=0.0)({'img': square()})['img'], square())


def test_the_runs_seed_decides():
    def once(seed):
        np.random.seed(seed)
        return OnTexture(prob=1.0)({'img': square()})['img']

    assert np.array_equal(once(1), once(1))
    assert not np.array_equal(once(1), once(2))


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet', 'mmpose'])
def test_any_toolbox_finds_it_by_its_scope(scope):
    from mmengine.registry import TRANSFORMS, DefaultScope

    with DefaultScope.overwrite_default_scope(scope):
        assert isinstance(TRANSFORMS.build(dict(type='bocb_mm.OnTexture', prob=0.3)), OnTexture)
