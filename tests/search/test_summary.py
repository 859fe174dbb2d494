import math

import pytest
from optuna.trial import TrialState

from bocb_mm.search import summary
from bocb_mm.search.plan import Cell, Grid, Plan

STATES = {
    'waiting': TrialState.WAITING,
    'running': TrialState.RUNNING,
    'done': TrialState.COMPLETE,
    'diverged': TrialState.COMPLETE,
    'pruned': TrialState.PRUNED,
    'failed': TrialState.FAIL,
}
GRID = Grid('net.py', 'SGD', (0.05, 0.1, 0.2), (1e-4, 3e-4))


def row(column='done', value=None, lr=0.1, decay=1e-4, seed=0, config='net.py', seconds=None):
    outcome = 'diverged' if column == 'diverged' else 'completed' if column == 'done' else ''
    return {
        'cell': Cell(config, 'SGD', lr, decay, seed), 'state': STATES[column], 'outcome': outcome,
        'value': -math.inf if column == 'diverged' else value, 'seconds': seconds,
    }  # fmt: skip


@pytest.mark.parametrize('column', summary.COLUMNS)
def test_every_state_has_its_column(column):
    counts = summary.progress([row(column, 1.0)])['net', 'SGD']
    assert counts == {**dict.fromkeys(summary.COLUMNS, 0), column: 1}


def test_time_left_goes_by_config_and_by_how_many_run():
    done = [row('done', 1.0, seconds=10.0), row('done', 1.0, seconds=20.0)]
    running = [row('running', seconds=5.0), row('running', seconds=100.0)]
    waiting = [row('waiting')] * 4
    # 4 x 15 s wait, 10 s and 0 s are left of those that run, 2 at a time.
    assert summary.seconds_left([*done, *running, *waiting]) == pytest.approx(35.0)
    other = row('waiting', config='other.py')  # nothing known of it: the mean of all
    assert summary.seconds_left([*done, *running, other]) == pytest.approx(15.0)
    slow = row('done', 1.0, config='other.py', seconds=1000.0)
    assert summary.seconds_left([*done, slow, *running, other]) == pytest.approx(1000.0)
    assert summary.seconds_left(done) == 0
    assert summary.seconds_left([*done, *waiting]) is None
    assert summary.seconds_left([*running, *waiting]) is None


def best(rows, grid=GRID):
    (found,) = summary.best_settings(rows, [grid])
    return found


def test_the_best_setting_is_that_of_the_best_mean():
    found = best([
        row(value=60.0, lr=0.05), row(value=50.0, lr=0.05, seed=1),
        row(value=56.0, lr=0.1, decay=3e-4), row(value=56.0, lr=0.1, decay=3e-4, seed=1),
        row('waiting', lr=0.2),
    ])  # fmt: skip
    assert (found.lr, found.weight_decay, found.value, found.seeds) == (0.1, 3e-4, 56.0, 2)
    assert found.edges == ('wd+',) and found.missing == 1


def test_a_setting_of_which_a_seed_diverged_loses_to_any_other():
    found = best([row(value=90.0), row('diverged', seed=1), row(value=20.0, lr=0.2)])
    assert (found.value, found.lr) == (20.0, 0.2)
    assert best([row('diverged')]).value == -math.inf


def test_equal_settings_give_the_smaller_rate_and_decay():
    rows = [row(value=5.0, lr=lr, decay=wd) for lr in (0.2, 0.05) for wd in (3e-4, 1e-4)]
    assert (best(rows).lr, best(rows).weight_decay) == (0.05, 1e-4)


def test_no_result_no_row():
    assert summary.best_settings([row('waiting')], [GRID]) == []


def test_a_decay_of_zero_is_the_end_of_decays_and_no_edge():
    grid = Grid('net.py', 'SGD', (0.05, 0.1, 0.2), (0.0, 1e-3))
    assert best([row(value=5.0, decay=0.0)], grid).edges == ()
    one = Grid('net.py', 'SGD', (0.1,), (1e-4, 3e-4))
    assert best([row(value=5.0)], one).edges == ('wd-',), 'one rate was not searched'


def test_extending_adds_the_next_value_at_each_edge_and_nothing_else():
    grid = Grid('net.py', 'SGD', (0.05, 0.1, 0.2), (3e-5, 1e-4, 3e-4))
    other = Grid('other.py', 'SGD', (0.05, 0.1, 0.2), (1e-4,))
    plan = Plan((grid, other))
    on_edge = best([row(value=5.0, lr=0.2, decay=3e-5)], grid)
    new = summary.extended(plan, [on_edge])
    assert new.grids[0].lr == (0.05, 0.1, 0.2, 0.4)
    assert new.grids[0].weight_decay == (1e-5, 3e-5, 1e-4, 3e-4)
    assert new.grids[1] == other and new.identity == plan.identity
    inside = best([row(value=5.0)], grid)
    assert summary.extended(plan, [inside]) == plan
