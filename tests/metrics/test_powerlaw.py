"""The power-law fit: known exponents, and WeightWatcher's own fit on the same numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bocb_mm.errors import UserError
from bocb_mm.metrics import fit_power_law
from bocb_mm.metrics.powerlaw import SMALL_N


def pareto(alpha, n, seed=0):
    return (1 - np.random.default_rng(seed).random(n)) ** (-1 / (alpha - 1))


@pytest.fixture(scope='module')
def ww():
    """WeightWatcher's power-law module, without what importing it does to logging."""
    from bocb_mm.metrics.weightwatcher import contained

    with contained():
        from weightwatcher import RMT_Util, WW_powerlaw
    return RMT_Util, WW_powerlaw


@pytest.mark.parametrize('alpha', [1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0])
@pytest.mark.parametrize('fit', ['ks', 'median'])
def test_recovers_a_known_exponent(alpha, fit):
    # Over 40 samples the mean misses by at most 4 of its own standard errors, and sigma, the
    # standard error claimed, is the scatter seen. Searching for xmin adds scatter of its own
    # (Clauset et al. 2009, section 3.4), so there the claim is only a lower bound.
    fits = [fit_power_law(pareto(alpha, 2000, seed), fit) for seed in range(40)]
    misses = np.array([(f.alpha - alpha) / f.sigma for f in fits])
    assert abs(misses.mean()) < 4 * misses.std() / np.sqrt(len(fits)) + 0.1
    assert 0.7 < misses.std() < (3.0 if fit == 'ks' else 1.4)


def test_known_exponent_above_a_cut_is_found():
    # A body that is no power law below 2, a power law of alpha 3 from there on.
    body = np.random.default_rng(1).uniform(0.1, 2, 2000)
    found = fit_power_law(np.concatenate([body, 2 * pareto(3, 2000)]))
    assert found.alpha == pytest.approx(3, abs=3 * found.sigma)
    assert 1.8 < found.xmin < 3


SPECTRA = {
    'pareto': lambda n, rng: rng.pareto(2.0, n) + 1,
    'lognormal': lambda n, rng: rng.lognormal(size=n),
    'uniform': lambda n, rng: rng.random(n) + 1e-4,
    'wishart': lambda n, rng: np.linalg.svd(rng.normal(size=(300, min(n, 300))))[1] ** 2,
    'spiked': lambda n, rng: np.append(rng.random(n - 1) + 0.1, 1e4),
    'repeated': lambda n, rng: np.repeat(rng.pareto(2.0, (n + 1) // 2) + 1, 2)[:n],
}


@pytest.mark.parametrize('n', [2, 5, 7, 8, 9, 19, 20, 21, 64, 300, 1500])
@pytest.mark.parametrize('name', SPECTRA)
def test_equals_weightwatcher_on_the_same_eigenvalues(ww, name, n):
    values = SPECTRA[name](n, np.random.default_rng(n))
    theirs = ww[1].WWFit(values)
    ours = fit_power_law(values)
    if not (np.isfinite(theirs.alpha) and theirs.alpha > 1):  # all values alike
        assert not ours.alpha < 1e6
        return
    assert ours.alpha == pytest.approx(theirs.alpha, rel=1e-6)
    assert ours.ks == pytest.approx(theirs.D, rel=1e-6)
    assert ours.xmin == theirs.xmin
    if n >= 8:  # below, WeightWatcher takes the error of an alpha it has not set yet: negative
        assert ours.sigma == pytest.approx(theirs.sigma, rel=1e-6)


@pytest.mark.parametrize('name', ['pareto', 'lognormal', 'spiked', 'wishart'])
@pytest.mark.parametrize('n', [40, 400])
def test_clipped_fit_equals_weightwatcher(ww, name, n):
    import logging

    values = np.sort(SPECTRA[name](n, np.random.default_rng(n)))
    quiet = logging.getLogger('quiet')
    quiet.setLevel(logging.ERROR)
    theirs, _, _ = ww[0].fit_clipped_powerlaw(values, logger=quiet)
    ours = fit_power_law(values, 'clip_xmax')
    assert ours.alpha == pytest.approx(theirs.alpha, rel=1e-6)
    assert ours.xmax == theirs.xmax


def brute_force(values):
    """Every candidate's distance over its whole tail: the definition, without the bound."""
    x = np.sort(values)
    distances, alphas = [], []
    for i in range(len(x) - 1):
        tail = x[i:]
        alpha = 1 + len(tail) / np.sum(np.log(tail / tail[0]))
        law = 1 - (tail / tail[0]) ** (1 - alpha)
        distances.append(np.abs(law - np.arange(len(tail)) / len(tail)).max())
        alphas.append(alpha)
    return min(distances), alphas[int(np.argmin(distances))]


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(SMALL_N, 900),
    power=st.floats(0.1, 5),
    bump=st.floats(0, 3),
    seed=st.integers(0, 10**6),
)
def test_search_is_exact(n, power, bump, seed):
    rng = np.random.default_rng(seed)
    values = np.exp(power * rng.normal(size=n)) + bump * rng.random(n)
    least, alpha = brute_force(values)
    found = fit_power_law(values)
    assert found.ks == pytest.approx(least, rel=1e-9)
    assert found.alpha == pytest.approx(alpha, rel=1e-6)


@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_alpha_does_not_depend_on_the_unit(scale, seed):
    values = pareto(2.5, 200, seed)
    a, b = fit_power_law(values), fit_power_law(values * scale)
    assert b.alpha == pytest.approx(a.alpha, rel=1e-6)
    assert b.xmin == pytest.approx(a.xmin * scale, rel=1e-6)


@pytest.mark.parametrize('values', [[], [1.0], [2.0, 2.0, 2.0]])
@pytest.mark.parametrize('fit', ['ks', 'median', 'clip_xmax'])
def test_nothing_to_fit_gives_nan(values, fit):
    assert np.isnan(fit_power_law(np.array(values), fit).alpha)


def test_an_unknown_fit_is_refused():
    with pytest.raises(UserError, match='did you mean median'):
        fit_power_law(np.ones(3), 'medain')
