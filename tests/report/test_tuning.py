"""How cells were searched: ease, single settings, edges."""

import math

import pandas as pd
import pytest

from bocb_mm.report import details, load, records, stats, summary, tables, tuning
from tests.report.synthetic_runs import make_record


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


def searched(tmp_path):
    """SGD inside its grid, AdamW on its edge and failed, LION untuned and failed."""
    made = [
        make_record('SGD', lr=lr, weight_decay=0.0, best=best)
        for lr, best in ((0.1, 70.0), (0.2, 80.0), (0.4, 79.0))
    ]
    made += [make_record('AdamW', lr=lr, best=best) for lr, best in ((1e-3, 70.0), (2e-3, 71.0))]
    made += [make_record('LION', best=40.0), make_record('Adan', best=79.9)]
    runs = [records.summary(r, tmp_path / str(i)) for i, r in enumerate(made)]
    (table,) = load.tables_from_runs(load.tidy_runs(runs)[0], runs)
    return table


def test_cells_in_doubt(tmp_path):
    table = searched(tmp_path)
    assert table.doubts == {
        ('AdamW', 'R-50'): ('‡', 'the best learning rate, 0.002, is the highest tried'),
        ('LION', 'R-50'): ('†', 'one untuned setting'),
        ('Adan', 'R-50'): ('†', 'one untuned setting'),
    }
    assert table.doubtful_failures() == {'†': 1, '‡': 1}


def test_failures_in_doubt_are_marked_wherever_failures_are_counted(tmp_path):
    table = searched(tmp_path)
    text = tables.markdown(table)
    assert '| *71.0‡* |' in text and '| *40.0†* |' in text and '| 79.9 |' in text
    assert '| Failed | 2 (1†, 1‡) |' in text
    assert r'71.0\ddag{}' in tables.latex(table)
    frame = tables.cells_frame(table).set_index('optimizer')['tuning']
    assert frame['LION'] == 'one untuned setting' and frame['SGD'] == ''
    said = summary.sentences(table, [])[0]
    assert (
        '2 failed by eq. 1 with gamma = 3, 1 with one untuned setting or learning rate and 1'
        in said
    )
    assert details.verdict(table, ('LION', 'R-50'), 40.0, 78.0) == (
        'yes: below 78.00; one untuned setting'
    )


@pytest.mark.parametrize(
    ('rates', 'decays', 'best', 'expected'),
    [
        ((0.1, 0.2, 0.4), (0.0,), (0.2, 0.0), ''),
        ((0.1, 0.2, 0.4), (0.0,), (0.1, 0.0), 'the best learning rate, 0.1, is the lowest tried'),
        ((0.1, 0.2, 0.4), (0.0, 0.1), (0.2, 0.0), ''),  # no decay below 0
        (
            (0.1, 0.2, 0.4),
            (0.0, 0.1),
            (0.2, 0.1),
            'the best weight decay, 0.1, is the highest tried',
        ),
        ((0.1,), (0.0, 0.1, 0.2), (0.1, 0.1), 'one learning rate only'),
    ],
)
def test_edges(rates, decays, best, expected):
    tried = pd.DataFrame(
        [('SGD', 'R-50', lr, wd) for lr in rates for wd in decays],
        columns=['optimizer', 'column', 'lr', 'weight_decay'],
    )
    cell = tried[(tried['lr'] == best[0]) & (tried['weight_decay'] == best[1])]
    assert tuning.doubts(cell, tried).get(('SGD', 'R-50'), ('', ''))[1] == expected


def test_nobody_knows_what_was_tried_for_a_csv():
    table = load.from_frame('t', pd.DataFrame({'R-50': [80.0, 1.0]}, index=['a', 'b']), 'csv')
    assert table.doubts == {} and table.doubtful_failures() == {'†': 0, '‡': 0}
