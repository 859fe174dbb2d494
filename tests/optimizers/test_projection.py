"""The projection of SGDP and AdamP against the paper's words in plain Python."""

import math

import pytest
import torch

from bocb_mm.optimizers.projection import row_factors

S = {'delta': 0.1, 'wd_ratio': 0.1, 'eps': 1e-8}
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
    return cosine < S['delta'] / math.sqrt(len(p))


def expected(p, g, u, kind):
    """The factor of each row; checks that the case is what it says."""
    rows = [[t.tolist() for t in row] for row in zip(p.double(), g.double(), u.double())]
    flat = [t.double().flatten().tolist() for t in (p, g, u)]
    decay, along = S['wd_ratio'], [0.0] * len(rows)
    if all(projects(w, x) for w, x, _ in rows):
        found = 'row'
        along = [dot(w, y) / dot(w, w) for w, _, y in rows]
    elif projects(flat[0], flat[1]):
        found = 'whole'
        along = [dot(flat[0], flat[2]) / dot(flat[0], flat[0])] * len(rows)
    else:
        found, decay = None, 1.0
    assert found == kind
    return torch.tensor([1 - C['shrink'] * decay + C['step'] * a for a in along])


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('count', [1, 2, 12])
def test_row_factors_of_many_tensors(count, dtype):
    """Tensors with other numbers of rows, as they are and as kernels in both layouts."""
    torch.manual_seed(2)
    columns, results = [], []
    for k, (gradient, kind) in enumerate((list(CASES.items()) * 2)[:count]):
        p, u, g = torch.randn(3, 3 + k, 60, dtype=dtype)
        g = gradient(p, g)
        results.append(expected(p, g, u, kind))
        form = torch.channels_last if k % 2 else torch.contiguous_format
        kernels = [t.reshape(3 + k, 5, 4, 3).contiguous(memory_format=form) for t in (p, g, u)]
        columns.append(kernels)
    factors = row_factors(*(list(column) for column in zip(*columns)), C, S)
    for found, result, (p, _, _) in zip(factors, results, columns):
        torch.testing.assert_close(found.flatten(), result.to(dtype))
        assert (p * found).shape == p.shape


def test_a_row_of_zeros_without_eps_is_not_projected():
    p, g, u = torch.randn(3, 2, 4, dtype=torch.float64)
    p[0] = 0
    (factors,) = row_factors([p], [g], [u], C, S | {'eps': 0.0})
    assert factors.flatten().tolist() == [1 - C['shrink']] * 2
