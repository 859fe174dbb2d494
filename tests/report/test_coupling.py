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


def test_bootstrap_interval():
    low, high = coupling.bootstrap_interval([70.0, 71, 72, 73, 74])
    assert 70 <= low < 72 < high <= 74
    assert coupling.bootstrap_interval([74.0, 70, 73, 71, 72]) == (low, high)
    assert all(map(math.isnan, coupling.bootstrap_interval([])))


def test_stability_intervals_hold_the_estimate():
    values = additive(5, 3, noise=0.5)
    single = {(o, b): [values.at[o, b] + d for d in (-0.2, 0, 0.2)] for o in values for b in []}
    assert coupling.stability_intervals(values, single).empty
    single = {
        (o, b): [values.at[o, b] + d for d in (-0.2, 0, 0.2)] for b in values for o in values.index
    }
    found = coupling.stability_intervals(values, single)
    mean = stats.stability(values)['mean']
    assert (found['mean_low'] < mean).all() and (mean < found['mean_high']).all()


def test_many_tables_at_once_as_one_by_one():
    rng = np.random.default_rng(3)
    cells = rng.normal(80, 3, (20, 6, 4))
    cells[rng.random(cells.shape) < 0.1] = np.nan
    cells[rng.random(cells.shape) < 0.1] = stats.DIVERGED
    together = coupling._stability_of_each(cells)
    for i, one in enumerate(cells):
        found = stats.stability(pd.DataFrame(one))
        for name, values in together.items():
            np.testing.assert_allclose(values[i], found[name].astype(float), atol=1e-9)


def test_profiles_and_diverged():
    values = pd.DataFrame({'a': [80.0, 79, stats.DIVERGED], 'b': [70.0, 75, np.nan]})
    profile = coupling.performance_profiles(values, [0, 1, 5])
    assert profile.to_numpy().tolist() == [[0.5, 0.5, 1], [0.5, 1, 1], [0, 0, 0]]


def test_tuning_ease():
    tried = pd.DataFrame(
        {
            'optimizer': ['SGD'] * 4 + ['Adam'],
            'column': 'R-50',
            'value': [80.0, 79.2, 79.1, stats.DIVERGED, 70.0],
        }
    )
    ease = coupling.tuning_ease(tried, 0.01)  # within 0.8 points of 80
    assert ease.at['SGD', 'R-50'] == 0.5 and math.isnan(ease.at['Adam', 'R-50'])
    assert coupling.tuning_ease(tried.iloc[:0]).empty
