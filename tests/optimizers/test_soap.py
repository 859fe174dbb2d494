"""The bases of SOAP."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bocb_mm.optimizers.soap import SOAP, eigenvectors, power_step

SIZES = st.integers(1, 9)


def factor(n, rank, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(2, n, rank, dtype=torch.float64, generator=generator)
    return rows @ rows.mT


def is_orthogonal(q):
    identity = torch.eye(q.shape[-1], dtype=q.dtype).expand_as(q)
    torch.testing.assert_close(q.mT @ q, identity, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(n=SIZES, rank=SIZES)
def test_eigenvectors_make_a_factor_diagonal_and_falling(n, rank):
    f = factor(n, rank)
    q = eigenvectors(f)
    is_orthogonal(q)
    inside = q.mT @ f @ q
    values = inside.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(inside, torch.diag_embed(values), rtol=0, atol=1e-10)
    assert (values.diff(dim=-1) < 1e-10).all()


@pytest.mark.parametrize('rank', [1, 3, 7])
def test_rounding_does_not_choose_the_basis_of_a_null_space(rank):
    f = factor(7, rank)
    noise = 1e-17 * factor(7, 7, seed=1)
    torch.testing.assert_close(eigenvectors(f).abs(), eigenvectors(f + noise).abs())
    old = eigenvectors(factor(7, 7, seed=2))
    for start in (old, eigenvectors(f)):
        (q, order), (p, _) = power_step(f, start), power_step(f + noise, start)
        is_orthogonal(q)
        assert sorted(order[0].tolist()) == list(range(7))
        if start is not old or rank == 7:  # of a null space that the old basis cuts, nobody knows
            torch.testing.assert_close(q.abs(), p.abs())


def test_power_steps_go_to_the_eigenvectors():
    f = factor(5, 12)
    q = torch.eye(5, dtype=f.dtype).expand_as(f)
    for _ in range(300):
        q, _ = power_step(f, q)
    torch.testing.assert_close(q.abs(), eigenvectors(f).abs())


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_a_first_gradient_that_is_not_finite_shows_in_the_second_step(bad):
    p = nn.Parameter(torch.ones(3, 4))
    optimizer = SOAP([p], lr=0.1)
    for value in (bad, 1.0):
        p.grad = torch.ones(3, 4)
        p.grad[0, 1] = value
        optimizer.step()
    assert p.isnan().any()


def test_a_dimension_that_is_too_large_has_no_basis():
    p = nn.Parameter(torch.randn(4, 12, 1, 3))
    optimizer = SOAP([p], max_precondition_dim=10)
    p.grad = torch.randn_like(p)
    optimizer.step()
    state = optimizer.state[p]
    shapes = {name: tuple(t.shape) for name, t in state.items() if name.startswith('basis')}
    assert shapes == {'basis_0': (4, 4), 'basis_3': (3, 3)}


def test_bases_turn_in_their_steps_only():
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(4, 3))
    optimizer = SOAP([p], precondition_frequency=3)
    turned = []
    for step in range(1, 9):
        before = optimizer.state[p].get('basis_0', torch.eye(4)).clone()
        p.grad = torch.randn(4, 3)
        optimizer.step()
        if not torch.equal(before, optimizer.state[p]['basis_0']):
            turned.append(step)
    assert turned == [1, 4, 7]
