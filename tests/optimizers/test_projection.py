"""The projection of one tensor on a CPU, which stops early, against the one that looks at it all."""

import functools

import numpy as np
import pytest
import torch

from bocb_mm.optimizers import projection as pr

SETTINGS = {'delta': 0.1, 'wd_ratio': 0.1, 'eps': 1e-8}
C = {'step': 0.3, 'shrink': 0.01}


def by_row(p, g):
    """Rows orthogonal to those of the weights: each is projected by itself."""
    return g - (g * p).sum(1, keepdim=True) / p.square().sum(1, keepdim=True) * p


def as_whole(p, g):
    """Orthogonal in the sum over the rows alone."""
    return g - (g * p).sum() / p.square().sum() * p


def all_but_last(p, g):
    """The first rows do not say that the last one is not orthogonal."""
    return torch.cat([by_row(p, g)[:-1], g[-1:] + p[-1:]])


def as_it_is(p, g):
    return g + p


def not_a_number(p, g):
    return torch.where(torch.arange(p.shape[1]) == 3, torch.nan, by_row(p, g))


def zero(p, g):
    return torch.zeros_like(g)


@pytest.mark.parametrize('vecdot', [np.vecdot, functools.partial(np.einsum, 'ij,ij->i')])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ('gradient', 'kind'),
    [(by_row, 'row'), (as_whole, 'whole'), (zero, 'row')]
    + [(case, None) for case in (all_but_last, as_it_is, not_a_number)],
)
def test_one_tensor_is_projected_as_all_together_are(gradient, kind, dtype, vecdot, monkeypatch):
    monkeypatch.setattr(pr, '_vecdot', vecdot)
    torch.manual_seed(1)
    p, g, u = torch.randn(3, 6, 40, dtype=dtype)
    g = gradient(p, g)
    found, layout = pr.examine_one(p, g, SETTINGS)
    projected = pr.find_one(p, g, SETTINGS)
    assert found.any() == (projected is not None)
    assert bool(found.by_row) == (kind == 'row')
    if projected is None:
        assert kind is None
        return
    assert isinstance(projected.pg, torch.Tensor) == (kind == 'row')
    expected = p * pr.row_factors(pr.row_dot(p, u), found, layout, C, SETTINGS)[:, None]
    projected.scale_(p, projected.inner(p, u), C, SETTINGS)
    torch.testing.assert_close(p, expected)


def test_vectors_are_left_alone():
    assert pr.find_one(torch.ones(3), torch.zeros(3), SETTINGS) is None
