"""The matrix update: orthogonal to what the iteration promises, batched, in any layout and type."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import bocb_mm.optimizers as optimizers
from bocb_mm.optimizers import orthogonal

from .test_modes import SHAPES, Kernels, parameters


def factor(t, split=1, steps=5):
    """The orthogonal factor of a copy of ``t``, in its layout."""
    u = orthogonal.laid_out(t.clone())
    orthogonal.orthogonalise_([u], split, steps)
    return u


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(2, 24), columns=st.integers(2, 24), size=st.sampled_from([1e-4, 1.0, 1e4]))
def test_singular_values_are_near_one_and_vectors_stay(rows, columns, size):
    """Of a matrix whose singular values are not far apart: the smallest needs more iterations."""
    torch.manual_seed(rows * 100 + columns)
    k = min(rows, columns)
    left, _, right = torch.linalg.svd(torch.randn(rows, columns).double(), full_matrices=False)
    values = torch.linspace(1.0, 3.0, k).double()
    found = factor(size * (left * values) @ right)
    core = left.mT @ found @ right.mT
    assert (core.diag() > 0.6).all() and (core.diag() < 1.3).all()
    torch.testing.assert_close(core, torch.diag(core.diag()), rtol=0, atol=1e-9)
    torch.testing.assert_close(left @ core @ right, found, rtol=0, atol=1e-9)


@pytest.mark.parametrize('layout', [torch.channels_last, torch.contiguous_format, 'slice'])
def test_a_kernel_is_the_matrix_of_its_outputs(layout):
    torch.manual_seed(0)
    kernel = torch.randn(6, 4, 3, 3).double()
    expected = factor(kernel.flatten(1)).view(6, 4, 3, 3)
    if layout == 'slice':
        wide = torch.randn(6, 4, 3, 5).double()
        wide[..., :3] = kernel
        laid = wide[..., :3]
    else:
        laid = kernel.contiguous(memory_format=layout)
    torch.testing.assert_close(factor(laid), expected, rtol=1e-9, atol=1e-12)


def test_rows_that_do_not_divide_are_one_matrix():
    torch.manual_seed(0)
    m = torch.randn(7, 5).double()
    assert torch.equal(factor(m, split=3), factor(m))
    assert not torch.equal(factor(m[:6], split=3), factor(m[:6]))


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(2, 12), wide=st.integers(1, 6), steps=st.integers(1, 6))
def test_two_iterations_at_once_are_two_iterations(rows, wide, steps):
    torch.manual_seed(rows)
    x = torch.randn(3, rows, rows * wide).double()
    expected = x / x.norm(dim=(1, 2), keepdim=True)
    for _ in range(steps):
        gram = expected @ expected.mT
        expected = 3.4445 * expected + (-4.7750 * gram + 2.0315 * gram @ gram) @ expected
    torch.testing.assert_close(orthogonal.newton_schulz(x, steps), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('copies', [1, 5])
def test_three_products_for_each_shape_and_iteration(copies):
    counts = []
    for steps in (5, 7):
        with FakeTensorMode():
            params = parameters(SHAPES * copies, device='cuda')
            optimizer = optimizers.build_optimizer('Muon', params, ns_steps=steps)
            optimizer.step()
            with Kernels() as counter:
                optimizer.step()
        counts.append(counter.count)
    flat = {tuple(sorted((s[0], torch.Size(s[1:]).numel()))) for s in SHAPES if len(s) > 1}
    assert counts[1] - counts[0] == 2 * 3 * len(flat)


@pytest.mark.parametrize('has', [True, False])
def test_single_precision_is_near_double_whatever_the_device_multiplies_in(has, monkeypatch):
    monkeypatch.setattr(orthogonal, '_multiplies_in_bfloat16', lambda device: has)
    torch.manual_seed(0)
    weights, grads = torch.randn(32, 48).double(), torch.randn(5, 32, 48).double()
    found = []
    for dtype in (torch.float64, torch.float32):
        p = nn.Parameter(weights.to(dtype, copy=True))
        optimizer = optimizers.build_optimizer('Muon', [p], lr=0.1)
        for g in grads:
            p.grad = g.to(dtype)
            optimizer.step()
        assert p.dtype == dtype
        found.append(p.detach().double() - weights)
    gap = (found[1] - found[0]).norm() / found[0].norm()
    assert gap < (0.05 if has else 1e-4) and (gap > 1e-4 or not has)
