"""How cells were searched: ease, single settings, edges."""

import math

import pandas as pd

from bocb_mm.report import stats, tuning


def test_tuning_ease():
    tried = pd.DataFrame(
        {
            'optimizer': ['SGD'] * 4 + ['Adam'],
            'column': 'R-50',
            'value': [80.0, 79.2, 79.1, stats.DIVERGED, 70.0],
        }
    )
    ease = tuning.tuning_ease(tried, 0.01)  # within 0.8 points of 80
    assert ease.at['SGD', 'R-50'] == 0.5 and math.isnan(ease.at['Adam', 'R-50'])
    assert tuning.tuning_ease(tried.iloc[:0]).empty
