"""What the files of a run directory say of a trial."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bocb_mm.runs import lock
from bocb_mm.runs.record import RunRecord
from bocb_mm.search.plan import Cell
from bocb_mm.search.state import ATTEMPTS_FILE, CLAIM, count_failures, look, note_attempt

CELL = Cell('net.py', 'SGD', 0.1, 0.0)


def record(folder, status, value=None, metric='accuracy', **told):
    run = RunRecord('classification', 'd', 'net', 'SGD', status=status, metric=metric, **told)
    if value is not None:
        run.add_evaluation(1, 10, {metric: value})
    run.save(folder)


def test_nothing_yet(tmp_path):
    assert look(CELL, tmp_path / 'gone', 3).column == 'waiting'


def test_a_result(tmp_path):
    times = {'started': '2026-01-01T00:00:00+00:00', 'finished': '2026-01-01T00:01:30+00:00'}
    record(tmp_path, 'completed', 7.0, **times)
    row = look(CELL, tmp_path, 3)
    assert (row.column, row.value, row.outcome, row.seconds) == ('done', 7.0, 'completed', 90.0)
    record(tmp_path, 'completed', 7.0, 'NME', **times)
    assert look(CELL, tmp_path, 3).score == -7.0


def test_a_clock_that_differs_changes_nothing_but_the_time(tmp_path):
    record(tmp_path, 'completed', 7.0, started='2031-01-01T00:00:00+00:00',
           finished='2026-01-01T00:00:00+02:00')  # fmt: skip
    row = look(CELL, tmp_path, 3)
    assert (row.column, row.value, row.seconds) == ('done', 7.0, 0.0)
    record(tmp_path, 'running', started='2099-01-01T00:00:00+00:00')
    lock.acquire(tmp_path)
    assert look(CELL, tmp_path, 3).column == 'running'
    lock.release(tmp_path)
    assert look(CELL, tmp_path, 3).column == 'waiting', 'its process is gone, whatever the time'


def test_a_divergence_is_a_result_and_a_completed_run_without_one_an_error(tmp_path):
    record(tmp_path, 'diverged', 3.0)
    assert look(CELL, tmp_path, 3).column == 'diverged' and look(CELL, tmp_path, 3).value is None
    record(tmp_path, 'completed')
    row = look(CELL, tmp_path, 3)
    assert row.column == 'failed' and 'completed without a result' in row.message


def test_a_completed_run_without_a_result_says_what_was_logged(tmp_path):
    run = RunRecord('classification', 'd', 'net', 'SGD', status='completed', metric='accuracy/top2')
    run.add_evaluation(1, 10, {'accuracy/top1': 7.0})
    run.save(tmp_path)
    message = look(CELL, tmp_path, 3).message
    assert 'no number for accuracy/top2; logged were accuracy/top1' in message


def test_a_pause_between_two_attempts_is_no_time_of_the_run(tmp_path):
    note_attempt(tmp_path, 'interrupted', '', seconds=60.0)
    long_ago = '2026-01-01T00:00:00+00:00'
    record(tmp_path, 'running', started=long_ago)
    lock.acquire(tmp_path, CLAIM)
    assert 60 <= look(CELL, tmp_path, 3).seconds < 120
    lock.release(tmp_path, CLAIM)
    record(tmp_path, 'completed', 7.0, started=long_ago, finished='2026-01-02T00:00:00+00:00')
    note_attempt(tmp_path, 'completed', '', seconds=30.0)
    assert look(CELL, tmp_path, 3).seconds == 90


@pytest.mark.parametrize('name', [lock.FILE_NAME, CLAIM])
def test_a_lock_that_is_held_means_that_it_runs(name, tmp_path):
    lock.acquire(tmp_path, name)
    assert look(CELL, tmp_path, 3).column == 'running'
    lock.release(tmp_path, name)
    assert look(CELL, tmp_path, 3).column == 'waiting'


def test_failures_of_the_machine_until_it_is_given_up(tmp_path):
    for k in range(3):
        note_attempt(tmp_path, 'killed', f'no. {k}')
        row = look(CELL, tmp_path, 2)
        assert (row.failures, row.message) == (k + 1, f'no. {k}')
        assert row.column == ('failed' if k == 2 else 'waiting')


@pytest.mark.parametrize('outcome', ['config error', 'out of memory', 'error'])
def test_what_would_end_the_same_way_again_is_final(outcome, tmp_path):
    note_attempt(tmp_path, outcome, 'why')
    row = look(CELL, tmp_path, 3)
    assert (row.column, row.outcome, row.message) == ('failed', outcome, 'why')


def test_a_result_whose_record_is_lost_is_trained_again(tmp_path):
    record(tmp_path, 'completed', 7.0)
    note_attempt(tmp_path, 'completed', '')
    (tmp_path / 'run.json').write_bytes(b'{')
    assert look(CELL, tmp_path, 3).column == 'waiting'


def test_an_interruption_counts_only_without_progress():
    def told(*iterations):
        return [{'outcome': 'interrupted', 'iterations': k} for k in iterations]

    assert count_failures(told(2, 5, 9)) == 0
    assert count_failures(told(2, 2, 2)) == 2
    assert count_failures([*told(2), {'outcome': 'machine', 'iterations': 7}]) == 1


@given(
    st.binary(max_size=40)
    | st.text(max_size=20).map(str.encode)
    | st.sampled_from(
        [b'{"outcome": 1}', b'[]', b'{"outcome": "killed", "iterations": "x"}', b'1e9']
    )
)
def test_a_line_that_is_damaged_is_left_out(tmp_path, junk):
    (tmp_path / ATTEMPTS_FILE).unlink(missing_ok=True)
    note_attempt(tmp_path, 'killed', 'one')
    with (tmp_path / ATTEMPTS_FILE).open('ab') as file:
        file.write(junk)
    note_attempt(tmp_path, 'killed', 'two')
    row = look(CELL, tmp_path, 9)
    assert row.failures == 2 and row.message == 'two'
