"""The projection of SGDP and AdamP, three ways, against the paper's words in plain Python."""

import functools
import math

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


CASES = {by_row: 'row', as_whole: 'whole', zero: 'row', all_but_last: None, as_it_is: None}
CASES[not_a_number] = None


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def projects(p, g):
    cosine = abs(dot(p, g)) / (math.sqrt(dot(p, p)) + 1e-8) / (math.sqrt(dot(g, g)) + 1e-8)
    return cosine < SETTINGS['delta'] / math.sqrt(len(p))


def expected(p, g, u, kind):
    """The weights before ``step * u`` is subtracted, and how they were projected."""
    rows = [[t.tolist() for t in row] for row in zip(p.double(), g.double(), u.double())]
    flat = [t.double().flatten().tolist() for t in (p, g, u)]
    wd, along = 1.0, [0.0] * len(rows)
    if p.dim() > 1 and all(projects(w, x) for w, x, _ in rows):
        found, wd = 'row', SETTINGS['wd_ratio']
        along = [dot(w, y) / dot(w, w) for w, _, y in rows]
    elif p.dim() > 1 and projects(flat[0], flat[1]):
        found, wd = 'whole', SETTINGS['wd_ratio']
        along = [dot(flat[0], flat[2]) / dot(flat[0], flat[0])] * len(rows)
    else:
        found = None
    assert found == kind  # the case is what it says
    factors = torch.tensor([1 - C['shrink'] * wd + C['step'] * a for a in along])
    return p * factors.to(p).view(-1, *[1] * (p.dim() - 1))


def example(gradient, dtype, rows=6, width=40):
    p, g, u = torch.randn(3, rows, width, dtype=dtype)
    return p, gradient(p, g), u


@pytest.mark.parametrize('vecdot', [np.vecdot, functools.partial(np.einsum, 'ij,ij->i')])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('gradient', CASES)
def test_one_tensor(gradient, dtype, vecdot, monkeypatch):
    monkeypatch.setattr(pr, '_vecdot', vecdot)
    torch.manual_seed(1)
    p, g, u = example(gradient, dtype)
    kind = CASES[gradient]
    result = expected(p, g, u, kind)

    projected = pr.find_one(p, g, SETTINGS)
    assert (projected is None) == (kind is None)
    if projected is not None:
        assert isinstance(projected.pg, torch.Tensor) == (kind == 'row')
        found = p.clone()
        projected.scale_(found, projected.inner(p, u), C, SETTINGS)
        torch.testing.assert_close(found, result)

    found = p.clone()
    pr.project_(found, g, u, C, SETTINGS)
    torch.testing.assert_close(found, result)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('count', [1, 2, 7])
def test_many_tensors_at_once(count, dtype):
    torch.manual_seed(2)
    kinds = list(CASES.items()) * 2
    examples, results = [], []
    for k, (gradient, kind) in enumerate(kinds[:count]):
        p, g, u = example(gradient, dtype, rows=3 + k, width=20 + 5 * k)
        examples.append([t.reshape(3 + k, 5, -1) for t in (p, g, u)])
        results.append(expected(p, g, u, kind).view(3 + k, 5, -1))
    if count > 1:  # one that is left alone
        vector = torch.randn(3, 9, dtype=dtype)
        examples.insert(1, [*vector])
        results.insert(1, vector[0] * (1 - C['shrink']))
    params, grads, steps = (list(column) for column in zip(*examples))
    space = pr.ProjectionSpace(params)
    assert len(space.parts) == min(count, 2)

    def write_step(part):
        torch._foreach_copy_(part.work, part.of(steps))

    for _ in range(2):  # a space is used again
        found = [p.clone() for p in params]
        pr.project_grouped_(space, found, grads, write_step, C, SETTINGS)
        for weights, result in zip(found, results):
            torch.testing.assert_close(weights, result)


def test_vectors_are_left_alone():
    assert pr.find_one(torch.ones(3), torch.zeros(3), SETTINGS) is None
