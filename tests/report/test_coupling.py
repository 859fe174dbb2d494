"""Coupling, intervals, profiles and tuning ease: known answers and calibration."""

import math

import numpy as np
import pandas as pd
import pytest

from bocb_mm.report import coupling, paper, stats


def additive(rows=8, columns=6, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    grid = rng.normal(size=(rows, 1)) + rng.normal(size=columns) * 3
    values = grid + noise * rng.normal(size=(rows, columns))
    return pd.DataFrame(values, [f'o{i}' for i in range(rows)], [f'b{j}' for j in range(columns)])


def test_no_interaction_is_share_zero():
    found = coupling.coupling(additive())
    assert found.share == pytest.approx(0, abs=1e-12)
    assert found.columns['share'].max() == pytest.approx(0, abs=1e-9)


def test_share_by_hand():
    # The additive fit leaves +-1 everywhere and no effect of rows: all is interaction.
    values = pd.DataFrame({'a': [1.0, -1, 1, -1], 'b': [-1.0, 1, -1, 1], 'c': [0.0, 0, 0, 0]})
    assert coupling.coupling(values).share == pytest.approx(1)


def test_a_coupled_backbone_is_found():
    values = additive(12, 8, noise=0.1)
    values.loc[['o1', 'o4', 'o7'], 'b3'] -= 5
    columns = coupling.coupling(values).columns
    assert columns['p_holm'].idxmin() == 'b3' and columns.at['b3', 'p_holm'] < 0.05
    assert columns['share'].idxmax() == 'b3'
    assert coupling.coupling(values).p_value < 0.01


@pytest.mark.parametrize('seeds', [1, 3])
def test_p_values_are_calibrated(seeds):
    """Without coupling, the table's p is below 0.1 in about a tenth of the tables."""
    low, n = 0, 80
    for seed in range(n):
        rng = np.random.default_rng(1000 + seed)
        truth = additive(6, 5, seed=seed)
        runs = truth.to_numpy()[..., None] + rng.normal(size=(*truth.shape, seeds))
        values = pd.DataFrame(runs.mean(-1), truth.index, truth.columns)
        single = {
            (o, b): runs[i, j].tolist()
            for i, o in enumerate(truth.index)
            for j, b in enumerate(truth.columns)
        }
        low += coupling.coupling(values, single, n_permutations=99).p_value <= 0.1
    assert 1 <= low <= 17  # binomial(80, 0.1): outside with probability 0.002


def test_order_changes_no_p_value():
    values = paper.read('table3_coco')
    mixed = values.sample(frac=1, random_state=1).sample(frac=1, random_state=2, axis=1)
    first, second = (coupling.coupling(v, n_permutations=199) for v in (values, mixed))
    assert first.share == pytest.approx(second.share) and first.p_value == second.p_value
    pd.testing.assert_frame_equal(first.columns, second.columns.loc[first.columns.index])


@pytest.mark.parametrize(
    'values',
    [
        pd.DataFrame({'a': [1.0, 2, 3]}),
        pd.DataFrame({'a': [1.0, 2], 'b': [1.0, 3], 'c': [1.0, 4]}),
        pd.DataFrame(np.nan, range(4), list('abc')),
        pd.DataFrame(75.0, range(4), list('abc')),
    ],
    ids=['one column', 'two optimizers', 'all missing', 'all equal'],
)
def test_too_little_gives_nan_not_an_error(values):
    found = coupling.coupling(values, n_permutations=9)
    assert math.isnan(found.share) and math.isnan(found.p_value)
    assert list(found.columns.index) == list(values.columns)


def test_missing_and_diverged_cells_are_allowed():
    values = additive(6, 5, noise=0.3)
    values.iat[0, 0], values.iat[1, 1] = np.nan, stats.DIVERGED
    found = coupling.coupling(values, n_permutations=99)
    assert 0 < found.share < 1 and 0 < found.p_value <= 1
