"""Bootstrap intervals over seeds."""

import math

import numpy as np
import pandas as pd

from bocb_mm.report import intervals, stats
from tests.report.test_coupling import additive


def test_bootstrap_interval():
    low, high = intervals.bootstrap_interval([70.0, 71, 72, 73, 74])
    assert 70 <= low < 72 < high <= 74
    assert intervals.bootstrap_interval([74.0, 70, 73, 71, 72]) == (low, high)
    assert all(map(math.isnan, intervals.bootstrap_interval([])))


def test_stability_intervals_hold_the_estimate():
    values = additive(5, 3, noise=0.5)
    single = {(o, b): [values.at[o, b] + d for d in (-0.2, 0, 0.2)] for o in values for b in []}
    assert intervals.stability_intervals(values, single).empty
    single = {
        (o, b): [values.at[o, b] + d for d in (-0.2, 0, 0.2)] for b in values for o in values.index
    }
    found = intervals.stability_intervals(values, single)
    mean = stats.stability(values)['mean']
    assert (found['mean_low'] < mean).all() and (mean < found['mean_high']).all()


def test_seeds_that_agree_give_the_statistics_themselves():
    rng = np.random.default_rng(3)
    values = pd.DataFrame(rng.normal(80, 3, (6, 4)), list('uvwxyz'), list('abcd'))
    values.iat[0, 0], values.iat[1, 1], values.iat[2, 1] = np.nan, stats.DIVERGED, stats.DIVERGED
    single = {(o, c): [values.at[o, c]] * 2 for o in values.index for c in values if o in 'uxy'}
    found, expected = intervals.stability_intervals(values, single), stats.stability(values)
    for name in ('mean', 'std', 'range'):
        for end in ('low', 'high'):
            np.testing.assert_allclose(
                found[f'{name}_{end}'], expected[name].astype(float), atol=1e-9
            )
