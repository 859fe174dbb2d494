"""Entropy, norm and PCA energy: golden numbers by hand, and rules that hold for all inputs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bocb_mm.metrics import l2_norm, pca_energy, spectral_entropy, weight_entropy


def histogram_entropy(w, bins):
    counts, _ = np.histogram(w, bins=bins)
    p = counts[counts > 0] / counts.sum()
    return -(p * np.log(p)).sum()


@pytest.mark.parametrize('bins', [2, 10, 256, 1000])
def test_entropy_equals_numpys_histogram(bins):
    w = torch.randn(64, 70, 3, generator=torch.Generator().manual_seed(0))
    expected = histogram_entropy(w.double().numpy().ravel(), bins)
    assert weight_entropy(w, bins) == pytest.approx(expected, rel=1e-4)


def test_entropy_by_hand():
    # 1/2 in the first of two bins, 1/2 in the last: ln 2. One bin of four: 1/4 and 3/4.
    assert weight_entropy(torch.tensor([0.0, 0.0, 1.0, 1.0]), 2) == pytest.approx(math.log(2))
    expected = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert weight_entropy(torch.tensor([0.0, 1.0, 1.0, 1.0]), 7) == pytest.approx(expected)
    assert weight_entropy(torch.full((5, 5), 3.0)) == 0


def test_norm_by_hand():
    assert l2_norm(torch.tensor([[2.0, 3.0], [6.0, 0.0]])) == 7.0
    assert l2_norm(torch.full((1 << 20,), 0.1)) == pytest.approx(0.1 * 1024, rel=1e-7)


def test_spectral_entropy_by_hand():
    # p = 1/2, 1/4, 1/4: 1.5 ln 2.
    assert spectral_entropy(np.array([2.0, 1.0, 1.0, 0.0])) == pytest.approx(1.5 * math.log(2))
    assert spectral_entropy(np.array([5.0])) == 0
    assert math.isnan(spectral_entropy(np.zeros(3)))


def test_spectral_entropy_is_weightwatchers_before_it_divides_by_the_log_rank():
    from bocb_mm.metrics.weightwatcher import contained

    values = np.random.default_rng(0).pareto(2, 100) + 1
    with contained():
        from weightwatcher.RMT_Util import matrix_entropy
    theirs = matrix_entropy(np.sqrt(values), 200)
    assert spectral_entropy(values) / math.log(100) == pytest.approx(theirs, rel=1e-6)


def test_pca_energy_equals_scikit_learn():
    from sklearn.decomposition import PCA

    from bocb_mm.metrics import spectrum

    w = torch.randn(60, 40, generator=torch.Generator().manual_seed(0)) + 0.5
    expected = PCA(svd_solver='full').fit(w.double().numpy()).explained_variance_ratio_
    found = spectrum(w[None], k=5)
    for k in (1, 3, 5):
        ratio = pca_energy(found.centred, k, found.centred_total)
        assert ratio == pytest.approx(expected[:k].sum(), rel=1e-9)


values = st.lists(st.floats(0, 1e6), min_size=1, max_size=30).map(np.array)


@settings(deadline=None)
@given(values=values, k=st.integers(1, 40))
def test_ranges(values, k):
    energy, entropy = pca_energy(values, k), spectral_entropy(values)
    if not values.sum() > 0:
        assert math.isnan(energy) and math.isnan(entropy)
        return
    assert min(k, len(values)) / len(values) - 1e-9 <= energy <= 1
    assert -1e-9 <= entropy <= math.log(len(values)) + 1e-9


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('exponent', [-140, -120, -100, 0, 100])
def test_entropy_does_not_depend_on_the_scale(exponent):
    steps = torch.arange(256.0)
    entropy = weight_entropy(torch.ldexp(steps, torch.tensor(exponent)))
    assert entropy == pytest.approx(math.log(256), rel=1e-6)


@pytest.mark.filterwarnings('error')
@settings(deadline=None, max_examples=50)
@given(
    w=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=50),
    bins=st.integers(2, 300),
)
def test_entropy_range_for_any_weights(w, bins):
    entropy = weight_entropy(torch.tensor(w), bins)
    assert 0 <= entropy <= math.log(min(bins, len(w))) + 1e-9
    assert l2_norm(torch.tensor(w)) == pytest.approx(np.linalg.norm(w), rel=1e-6, abs=1e-12)
