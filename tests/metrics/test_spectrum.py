"""Spectra against numpy's singular values of the matrix and of the centred matrix."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bocb_mm.metrics import spectrum

SHAPES = [(1, 64, 32), (3, 32, 64), (2, 33, 33), (4, 2, 5), (4, 5, 2), (2, 1, 7), (2, 7, 1),
          (1, 1, 1), (1, 300, 130), (1, 130, 300)]  # fmt: skip


def reference(slices):
    """Squared singular values, plain and centred, of all slices."""
    plain, centred = [], []
    for w in slices.double().numpy():
        plain.append(np.linalg.svd(w, compute_uv=False) ** 2)
        centred.append(np.linalg.svd(w - w.mean(axis=0), compute_uv=False) ** 2)
    return np.sort(np.concatenate(plain)), np.sort(np.concatenate(centred))


def check(slices, k, precision, tolerance):
    found = spectrum(slices, k, precision)
    plain, centred = reference(slices)
    largest = plain.max()
    assert found.eigenvalues.shape == plain.shape
    assert np.abs(found.eigenvalues - plain).max() <= tolerance * largest
    assert np.abs(found.centred - centred[-k:]).max() <= tolerance * largest
    assert abs(found.centred_total - centred.sum()) <= len(plain) * tolerance * largest
    assert (found.eigenvalues >= 0).all() and (found.centred >= 0).all()


@pytest.mark.parametrize('shape', [(60, 40), (40, 60)])
@pytest.mark.parametrize('layout', ['padded rows', 'transposed', 'one row repeated', 'sliced'])
@pytest.mark.parametrize(('precision', 'tolerance'), [('float64', 1e-13), ('float32', 1e-6)])
def test_any_layout_in_memory(shape, layout, precision, tolerance):
    whole = torch.randn(130, 130, generator=torch.Generator().manual_seed(0))
    rows, columns = shape
    w = {
        'padded rows': whole[:rows, :columns],
        'transposed': whole[:columns, :rows].T,
        'one row repeated': whole[:1, :columns].expand(shape),
        'sliced': whole[: 2 * rows : 2, : 2 * columns : 2],
    }[layout]
    check(w[None], 5, precision, tolerance)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('mean', [0.0, 0.4])
@pytest.mark.parametrize('k', [2, 10])
@pytest.mark.parametrize(('precision', 'tolerance'), [('float64', 1e-13), ('float32', 1e-6)])
def test_equals_singular_values(shape, mean, k, precision, tolerance):
    generator = torch.Generator().manual_seed(0)
    check(torch.randn(shape, generator=generator) + mean, k, precision, tolerance)


@pytest.mark.parametrize('make', [torch.zeros, torch.ones])
@pytest.mark.parametrize('shape', [(2, 6, 4), (2, 4, 6)])
def test_constant_matrices(make, shape):
    check(make(shape), 10, 'float64', 1e-13)
    assert spectrum(make(shape)).centred_total == pytest.approx(0, abs=1e-12)


def test_large_matrices_are_summed_by_chunks(monkeypatch):
    module = __import__('bocb_mm.metrics.spectrum', fromlist=['_CHUNK'])
    monkeypatch.setattr(module, '_CHUNK', 500)
    monkeypatch.setattr(module, '_PART', 500)
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(1, 90, 40, generator=generator) + 0.1
    for slices in (w, w.transpose(1, 2).contiguous()):
        for precision, tolerance in (('float64', 1e-13), ('float32', 1e-6)):
            check(slices, 5, precision, tolerance)
    check(torch.randn(7, 30, 8, generator=generator), 5, 'float64', 1e-13)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
    rank=st.integers(1, 4),
    shift=st.floats(-2, 2),
    seed=st.integers(0, 10**6),
)
def test_any_rank_and_shift(rows, columns, rank, shift, seed):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(2, rows, rank, generator=generator, dtype=torch.float64)
    b = torch.randn(2, rank, columns, generator=generator, dtype=torch.float64)
    check(a @ b + shift, 4, 'float64', 1e-12)


def test_does_not_write_into_the_weights():
    w = torch.randn(2, 20, 30)
    before = w.clone()
    spectrum(w, precision='float32')
    assert torch.equal(w, before)
