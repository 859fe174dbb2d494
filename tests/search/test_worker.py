"""The queue and the worker, with trials that only say that they ran."""

import json
import time

import optuna
import pytest

from bocb_mm.errors import UserError
from bocb_mm.search import directory, trial
from bocb_mm.search.outcomes import BY_NAME
from bocb_mm.search.place import parse
from bocb_mm.search.queue import Queue
from bocb_mm.search.storage import Store
from tests.search import plain


def work(study, train, **options):
    """A worker in this process; returns its exit status and what it said."""
    from bocb_mm.search.worker import Worker

    said = []
    worker = Worker(Queue(parse(study)), train=train, say=said.append, **options)
    return worker.run(), said


def test_every_way_to_end_is_recorded_and_only_the_machines_are_tried_again(
    make_study, rows_of, diary, monkeypatch
):
    monkeypatch.setattr('bocb_mm.search.worker.MOST_REST', 0.01)
    study = make_study(range(1, 10), retries=2)
    status, said = work(study, plain.ending, slots=['a', 'b'])
    assert status == 0
    ended = {r['cell'].lr: (r['outcome'], r['state'].name, r['value']) for r in rows_of(study)}
    runs = {int(lr): n for (lr, _), n in diary.runs().items()}
    assert ended == {
        1: ('completed', 'COMPLETE', 1.0),
        2: ('out of memory', 'FAIL', None),
        3: ('diverged', 'COMPLETE', float('-inf')),
        4: ('config error', 'FAIL', None),
        5: ('killed', 'FAIL', None),
        6: ('completed', 'COMPLETE', 6.0),
        7: ('error', 'FAIL', None),
        8: ('config error', 'FAIL', None),
        9: ('completed', 'COMPLETE', 9.0),
    }
    assert runs == {1: 1, 2: 1, 3: 1, 4: 1, 5: 3, 6: 3, 7: 1, 8: 1, 9: 2}
    told = {r['cell'].lr: r['message'] for r in rows_of(study)}
    assert told[4] == 'no such thing; take another' and 'a fault in the code' in told[7]
    assert any('waits again' in line for line in said)


def test_a_trial_counts_once_though_its_worker_was_given_up(make_study, rows_of):
    """Two workers with one trial: the first was silent, the second has it, the first comes back."""
    study = make_study([0.1])
    queue = Queue(parse(study))
    first = queue.take('one')
    assert queue.take('two') is None
    assert queue.give_back(first, 'one', BY_NAME['lost'], retries=3)
    second = queue.take('two')
    assert second.trial_id == first.trial_id and second.failures == 1
    assert not queue.finish(first, 'one', BY_NAME['completed'], 1.0)
    assert not queue.give_back(first, 'one', BY_NAME['killed'], retries=3)
    assert queue.finish(second, 'two', BY_NAME['completed'], 2.0, {1: 1.0, 2: 2.0})
    assert not queue.finish(second, 'two', BY_NAME['completed'], 3.0)
    (row,) = rows_of(study)
    assert (row['value'], row['outcome'], row['worker']) == (2.0, 'completed', 'two')


def test_a_silent_worker_loses_its_trial_and_one_that_beats_does_not(make_study):
    study = make_study([0.1, 0.2])
    queue = Queue(parse(study))
    quiet, loud = queue.take('quiet:1:1:elsewhere'), queue.take('loud:1:1:elsewhere')
    time.sleep(2.2)  # SQLite's clock ticks in seconds
    queue.beat([loud.trial_id])
    found = {taken.trial_id: silent for taken, _, silent in queue.silent(1.0)}
    assert found == {quiet.trial_id: True, loud.trial_id: False}


def test_a_lost_trial_is_taken_over_only_by_a_worker_that_has_been_steady(
    make_study, rows_of, diary
):
    """A worker that has just started cannot tell a lost worker from an outage that is just over."""
    study = make_study([0.1], heartbeat=0.5)
    queue = Queue(parse(study))
    queue.take('gone:1:1:elsewhere')
    time.sleep(3.2)
    started = time.monotonic()
    status, said = work(study, plain.nothing)
    assert status == 0 and rows_of(study)[0]['outcome'] == 'completed'
    assert 2.0 <= time.monotonic() - started < 15
    assert any('was silent for 2 s, waits again' in line for line in said)


def test_limits(make_study, rows_of):
    study = make_study(range(1, 8))
    assert work(study, plain.nothing, most=3)[0] == 0
    assert sum(r['outcome'] == 'completed' for r in rows_of(study)) == 3
    status, said = work(study, plain.nothing, seconds=0.0)
    assert status == 75 and 'time limit' in said[0]


def test_halving_stops_what_falls_behind_and_says_so(make_study, rows_of, monkeypatch):
    monkeypatch.setattr('bocb_mm.search.worker.LOOK_SECONDS', 0.1)
    study = make_study([2.0, 1.0, 3.0], halving=3)
    # The rates are sorted by the test's own grid as given: 2 sets the mark, 1 is below, 3 above.
    assert work(study, plain.learning)[0] == 0
    ended = {r['cell'].lr: (r['outcome'], r['state'].name) for r in rows_of(study)}
    assert ended == {
        2.0: ('completed', 'COMPLETE'),
        1.0: ('pruned', 'PRUNED'),
        3.0: ('completed', 'COMPLETE'),
    }


def test_a_result_that_a_lost_worker_left_on_the_disk_is_taken(make_study, rows_of, tmp_path):
    from bocb_mm.runs.record import RunRecord

    study = make_study([0.1])
    folder = tmp_path / 'runs' / 'net' / 'SGD' / 'lr0.1_wd0_seed0'
    folder.mkdir(parents=True)
    record = RunRecord('pose', 'd', 'net', 'SGD', status='completed', metric='m')
    record.add_evaluation(1, 5, {'m': 7.0})
    record.add_evaluation(2, 10, {'m': 6.5})
    record.save(folder)
    assert work(study, trial.train_cell)[0] == 0
    assert (rows_of(study)[0]['outcome'], rows_of(study)[0]['value']) == ('completed', 7.0)
    loaded = optuna.load_study(study_name='study', storage=f'sqlite:///{study}')
    assert loaded.best_params['lr'] == 0.1 and loaded.best_value == 7.0
    (of_optuna,) = loaded.trials
    assert of_optuna.user_attrs['last'] == 6.5
    assert of_optuna.intermediate_values == {1: 7.0, 2: 6.5}


def test_the_directory_of_another_study_is_refused(make_study, tmp_path):
    study = make_study([0.1])
    assert work(study, plain.nothing)[0] == 0
    (tmp_path / 'study.db').unlink()
    study = make_study([0.1])
    with pytest.raises(UserError, match='another study of this name; delete it'):
        work(study, plain.nothing)
    directory.claim(str(tmp_path / 'new'), 'study', 'x')
    assert json.loads((tmp_path / 'new' / 'study.json').read_text())['identity'] == 'x'


def test_a_trial_waits_for_an_orphan_that_still_saves(
    plain_worker, make_study, rows_of, tmp_path, wait_for
):
    from bocb_mm.runs import lock

    study = make_study([0.1])
    folder = tmp_path / 'runs' / 'net' / 'SGD' / 'lr0.1_wd0_seed0'
    lock.acquire(folder)
    process = plain_worker(study)
    wait_for(lambda: rows_of(study)[0]['state'].name == 'RUNNING')
    time.sleep(1.0)
    assert process.is_alive() and rows_of(study)[0]['state'].name == 'RUNNING'
    lock.release(folder)
    process.join(240)
    assert process.exitcode == 0 and rows_of(study)[0]['outcome'] == 'completed'


def test_four_workers_on_sqlite_run_no_trial_twice(plain_worker, make_study, rows_of, diary):
    study = make_study(range(1, 31), seeds=(0, 1))
    four = [plain_worker(study) for _ in range(4)]
    for process in four:
        process.join(240)
    assert [process.exitcode for process in four] == [0] * 4
    assert len(diary.runs()) == 60 and set(diary.runs().values()) == {1}
    assert all(r['value'] == r['cell'].lr * 100 + r['cell'].seed for r in rows_of(study))


def test_a_thousand_trials_four_workers_postgresql_none_twice(
    postgres, plain_worker, make_study, rows_of, diary
):
    study = make_study(
        range(1, 251), seeds=range(4), study=f'{postgres.url}#thousand', heartbeat=15
    )
    four = [plain_worker(study) for _ in range(4)]
    for process in four:
        process.join(300)
    assert [process.exitcode for process in four] == [0] * 4
    assert len(diary.runs()) == 1000 and set(diary.runs().values()) == {1}
    rows = rows_of(study)
    assert {r['outcome'] for r in rows} == {'completed'}
    assert len({r['worker'] for r in rows}) == 4, 'all four took part'


def test_hooks_a_search_relies_on_are_added_where_they_are_missing():
    from mmengine.config import ConfigDict

    cfg = ConfigDict(default_hooks={'checkpoint': {'type': 'CheckpointHook', 'interval': 5}})
    trial.guard(cfg)
    assert cfg.default_hooks.checkpoint == {'type': 'bocb_mm.SafeCheckpointHook', 'interval': 5}
    types = [hook['type'] for hook in cfg.default_hooks.values()]
    assert types[1:] == ['bocb_mm.DivergenceHook', 'bocb_mm.SignalHook']
    before = cfg.to_dict()
    trial.guard(cfg)
    assert cfg.to_dict() == before
    cfg = ConfigDict(default_hooks={}, custom_hooks=[{'type': 'bocb_mm.SignalHook'}])
    trial.guard(cfg)
    assert [h['type'] for h in cfg.default_hooks.values()].count('bocb_mm.SignalHook') == 0


def test_an_outage_that_outlasts_all_patience_is_one_line(make_study, monkeypatch):
    import sqlalchemy as sa

    from bocb_mm.search import worker as module

    study = make_study([0.1])
    queue = Queue(parse(study))
    monkeypatch.setattr(module, 'PATIENCE', 0.2)

    def down(*_):
        raise sa.exc.OperationalError('select', {}, OSError('server closed the connection'))

    monkeypatch.setattr(queue, 'take', down)
    said = []
    with pytest.raises(UserError, match='no answer for 0 s; the runs are in .*runs'):
        module.Worker(queue, say=said.append).run()
    assert 'server closed the connection' in said[0]


def test_a_study_of_someone_else_is_refused(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.create_study(study_name='theirs', storage=f'sqlite:///{tmp_path}/theirs.db')
    with pytest.raises(UserError, match='did not create'):
        _ = Store(parse(f'{tmp_path}/theirs.db')).plan
    with pytest.raises(UserError, match='no such study'):
        Store(parse(f'{tmp_path}/nothing.db'))
    with pytest.raises(UserError, match='cannot be opened'):
        Store(parse('/nowhere/at/all/x.db'), create=True)
    (tmp_path / 'text.db').write_text('this is no database, it is a text of some length')
    with pytest.raises(UserError, match='cannot be opened'):
        Store(parse(f'{tmp_path}/text.db'))
