"""What the page says in words of a table and of a ranking."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bocb_mm.report import summary
from bocb_mm.report.model import ResultTable


def table(values):
    tasks = dict.fromkeys(values.columns, 'classification')
    return ResultTable('mine', 'mine', 'csv', values, 3.0, tasks)


# Of calm, all but one call lie close together, which is far off; wild differs everywhere.
CALM, WILD = [70, 70, 70, 70, 40], [60, 64, 68, 72, 76]


def test_of_fewer_than_six_optimizers_the_range_says_what_moves():
    """Their s.d. without the worst call leaves the far one out: it called the wilder one calm."""
    rows = ['SGD', 'Adam', 'AdamW', 'LAMB', 'LION']
    few = table(pd.DataFrame({'a': CALM, 'b': WILD}, rows, dtype=float))
    (line,) = [t for t in summary.sentences(few, []) if 'moved by' in t]
    assert 'Least moved by the choice of the optimizer: b (range 16.00 points)' in line
    assert 'most: a (range 30.00)' in line
    more = pd.DataFrame({'a': [*CALM[:4], 70, 40], 'b': [*WILD, 80]}, [*rows, 'LARS'], dtype=float)
    (line,) = [t for t in summary.sentences(table(more), []) if 'moved by' in t]
    assert 'optimizer: a (s.d. 0.00 points)' in line and 'without its worst result' in line


@pytest.mark.parametrize(
    ('n', 'best'),
    [(2, 'o0'), (3, 'o0'), (5, 'o0 and o1'), (6, 'o0, o1 and o2'), (20, 'o0, o1 and o2')],
)
def test_the_best_overall_are_half_of_the_optimizers_at_most(n, best):
    rows = [f'o{i}' for i in range(n)]
    ranks = pd.DataFrame({'overall': np.arange(1.0, n + 1)}, rows)
    report = SimpleNamespace(rankings=ranks, rankings_source='runs')
    assert summary.ranking_sentences(report)[0].startswith(f'Best overall: {best} (')
