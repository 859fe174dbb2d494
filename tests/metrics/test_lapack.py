"""SciPy's routines by address: the same numbers as its wrappers, and Python runs on meanwhile."""

import threading
import time

import numpy as np
import pytest
from scipy.linalg import blas, eigvalsh_tridiagonal
from scipy.linalg import lapack as wrappers

from bocb_mm.metrics import lapack

TOLERANCE = {'float32': 1e-5, 'float64': 1e-13}


@pytest.fixture(params=['float32', 'float64'])
def gram(request):
    w = np.random.default_rng(0).standard_normal((70, 40)).astype(request.param)
    return np.asfortranarray(w.T @ w)


@pytest.mark.parametrize('wide', [False, True])
@pytest.mark.parametrize('dtype', TOLERANCE)
def test_gram_is_added_to_the_lower_triangle(wide, dtype):
    block = np.random.default_rng(1).standard_normal((5, 8)).astype(dtype)
    expected = block @ block.T if wide else block.T @ block
    found = np.ones(expected.shape, dtype, order='F')
    lapack.add_gram(found, block, wide)
    assert np.allclose(np.tril(found), np.tril(expected + 1), rtol=TOLERANCE[dtype])
    assert (np.triu(found, 1) == np.triu(np.ones_like(found), 1)).all()


def test_reflection_turns_the_direction_into_the_first_basis_vector(gram):
    unit = np.arange(1, len(gram) + 1, dtype=gram.dtype)
    unit /= np.linalg.norm(unit)
    expected = float(unit @ gram @ unit)
    lapack.reflect(gram, unit)
    assert gram[0, 0] == pytest.approx(expected, rel=TOLERANCE[gram.dtype.name])


def test_tridiagonal_form_and_its_eigenvalues_equal_scipys(gram):
    routine = wrappers.ssytrd if gram.dtype == np.float32 else wrappers.dsytrd
    _, d, e, _, info = routine(gram, lower=1, lwork=64 * len(gram))
    found = lapack.tridiagonal(gram.copy(order='F'))
    assert info == 0
    for ours, theirs in zip(found, (d, e)):
        assert np.allclose(ours, theirs, rtol=0, atol=TOLERANCE[gram.dtype.name] * abs(d).max())
    values = eigvalsh_tridiagonal(*found)
    for k in (1, 5, 39, 40):  # by bisection, and by the QL iteration
        assert np.allclose(lapack.largest(*found, k), values[-k:], rtol=1e-11)


def test_a_routine_that_fails_says_so():
    with pytest.raises(ArithmeticError, match='sterf returned'):
        lapack.largest(np.array([1.0, np.nan, 1.0]), np.array([np.nan, 1.0]), 3)


def test_python_runs_on_while_a_matrix_is_reduced():
    w = np.random.default_rng(2).standard_normal((1500, 1500))
    gram = np.asfortranarray(blas.dsyrk(1.0, w, lower=1))
    worker = threading.Thread(target=lapack.tridiagonal, args=(gram,))
    start = last = time.perf_counter()
    worker.start()
    longest, alive = 0.0, True
    while alive:
        alive = worker.is_alive()
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    assert longest < (last - start) / 2
