import math

import pytest

from bocb_mm.search import summary
from bocb_mm.search.plan import Cell, Plan
from bocb_mm.search.state import COLUMNS, Row

RATES, DECAYS = (0.05, 0.1, 0.2), (1e-4, 3e-4)


def row(column='done', value=None, lr=0.1, decay=1e-4, seed=0, config='net.py', **told):
    return Row(Cell(config, 'SGD', lr, decay, seed), column, value, **told)


def grid(*rows):
    """Rows of a whole grid: those that are given, and others that wait."""
    given = {r.cell for r in rows}
    waiting = [row('waiting', lr=lr, decay=wd) for lr in RATES for wd in DECAYS]
    return [*rows, *(r for r in waiting if r.cell not in given)]


@pytest.mark.parametrize('column', COLUMNS)
def test_every_state_has_its_column(column):
    counts = summary.progress([row(column, 1.0)])['net', 'SGD']
    assert counts == {**dict.fromkeys(COLUMNS, 0), column: 1}


def test_time_left_goes_by_config_and_by_how_many_run():
    done = [row(seconds=10.0), row(seconds=20.0)]
    running = [row('running', seconds=5.0), row('running', seconds=100.0)]
    waiting = [row('waiting')] * 4
    # 4 x 15 s wait, 10 s and 0 s are left of those that run, 2 at a time.
    assert summary.seconds_left([*done, *running, *waiting]) == pytest.approx(35.0)
    other = row('waiting', config='other.py')  # nothing known of it: the median of all
    assert summary.seconds_left([*done, *running, other]) == pytest.approx(15.0)
    slow = row(config='other.py', seconds=1000.0)
    assert summary.seconds_left([*done, slow, *running, other]) == pytest.approx(1000.0)
    assert summary.seconds_left(done) == 0
    assert summary.seconds_left([*done, *waiting]) is None
    assert summary.seconds_left([*done, *waiting], running=2) == pytest.approx(30.0)
    assert summary.seconds_left([*running, *waiting]) is None


def best(rows):
    (found,) = summary.best_settings(rows)
    return found


def test_the_best_setting_is_that_of_the_best_mean():
    found = best(grid(
        row(value=60.0, lr=0.05), row(value=50.0, lr=0.05, seed=1),
        row(value=56.0, lr=0.1, decay=3e-4), row(value=56.0, lr=0.1, decay=3e-4, seed=1),
    ))  # fmt: skip
    assert (found.lr, found.weight_decay, found.value, found.seeds) == (0.1, 3e-4, 56.0, 2)
    assert found.edges == ('wd+',) and found.missing == 4


def test_of_an_error_less_is_better():
    rows = [row(value=4.0, lr=0.05, larger_is_better=False), row(value=5.0, larger_is_better=False)]
    assert (best(rows).lr, best(rows).value) == (0.05, 4.0)


def test_a_setting_of_which_a_seed_diverged_loses_to_any_other():
    found = best([row(value=90.0), row('diverged', seed=1), row(value=20.0, lr=0.2)])
    assert (found.value, found.lr) == (20.0, 0.2)
    assert best([row('diverged')]).value is None
    assert row('diverged').score == -math.inf


def test_equal_settings_give_the_smaller_rate_and_decay():
    rows = [row(value=5.0, lr=lr, decay=wd) for lr in (0.2, 0.05) for wd in (3e-4, 1e-4)]
    assert (best(rows).lr, best(rows).weight_decay) == (0.05, 1e-4)


def test_no_result_no_row():
    assert summary.best_settings([row('waiting')]) == []


def test_a_decay_of_zero_is_the_end_of_decays_and_no_edge():
    assert best([row(value=5.0, decay=0.0), row('waiting', decay=1e-3)]).edges == ()
    one = best([row(value=5.0), row('waiting', decay=3e-4)])
    assert one.edges == ('wd-',), 'one rate was not searched'


def test_extending_adds_the_next_value_at_each_edge_and_nothing_else():
    cells = [Cell('net.py', 'SGD', lr, wd, s) for s in (0, 1) for lr in RATES for wd in DECAYS]
    other = [Cell('other.py', 'SGD', lr, 1e-4) for lr in RATES]
    plan = Plan((*cells, *other))
    rows = grid(row(value=5.0, lr=0.2))
    new = plan.with_cells(summary.extensions(plan, summary.best_settings(rows))).cells
    added = set(new) - set(plan.cells)
    lower = 3e-5
    assert added == {
        Cell('net.py', 'SGD', lr, wd, s)
        for s in (0, 1)
        for lr in (*RATES, 0.4)
        for wd in (lower, *DECAYS)
        if lr == 0.4 or wd == lower
    }
    inside = [row(value=5.0), row('waiting', lr=0.05), row('waiting', lr=0.2)]
    assert list(summary.extensions(plan, summary.best_settings(inside))) == []
