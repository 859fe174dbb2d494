"""The driver with trials that only say that they ran, and Ray for real."""

import os
import signal
import threading
from types import SimpleNamespace

import plain
import pytest

from bocb_mm.errors import UserError
from bocb_mm.launch.outcomes import BY_NAME
from bocb_mm.launch.process import Setup
from bocb_mm.search import engine as engines
from bocb_mm.search import worker
from bocb_mm.search.driver import work
from bocb_mm.search.engine import Engine, EngineLost, RunningEngine
from bocb_mm.search.plan import Cell
from bocb_mm.search.worker import Job

HERE = Engine(jobs=4, threads=1, most_rest=0.01)


def test_every_way_to_end_is_recorded_and_only_the_machines_are_tried_again(
    make_study, diary, own_tmp
):
    study = make_study(range(1, 11), retries=2)
    said = []
    assert work(study, HERE, train=plain.ending, on_progress=said.append) == 0
    ended = {int(r.cell.lr): (r.outcome, r.column, r.value) for r in study.rows()}
    assert ended == {
        1: ('completed', 'done', 1.0),
        2: ('out of memory', 'failed', None),
        3: ('diverged', 'diverged', None),
        4: ('config error', 'failed', None),
        5: ('killed', 'failed', None),
        6: ('completed', 'done', 6.0),
        7: ('error', 'failed', None),
        8: ('config error', 'failed', None),
        9: ('completed', 'done', 9.0),
        10: ('interrupted', 'failed', None),
    }
    assert {line.split()[-1] for line in diary()} == {own_tmp}, 'not the one of Ray'
    runs = {int(lr): n for (lr, _), n in diary.count('ran').items()}
    assert runs == {1: 1, 2: 1, 3: 1, 4: 1, 5: 3, 6: 3, 7: 1, 8: 1, 9: 3, 10: 3}
    told = {int(r.cell.lr): r.message for r in study.rows()}
    assert told[4] == 'no such thing; take another'
    assert told[7] == 'ZeroDivisionError: a fault in the code' and told[5] == 'ended by SIGKILL'
    last = said[-1]
    assert last.counts == {'waiting': 0, 'running': 0, 'done': 3, 'diverged': 1, 'failed': 6}
    assert os.listdir(own_tmp) == [], 'nothing is left in the temporary folder'
    # Those that failed are tried again when asked for; the rest is not.
    study.try_again()
    assert work(study, HERE, train=plain.quick) == 0
    assert {int(r.cell.lr): r.column for r in study.rows() if r.column != 'done'} == {3: 'diverged'}


def test_limits_shards_and_trials_added_on_the_way(make_study, diary):
    study = make_study(range(1, 8))
    assert work(study, HERE, train=plain.quick, trials=3) == 0
    assert sum(diary.count('ran').values()) == 3
    assert work(study, HERE, train=plain.quick, minutes=0.0) == 75
    assert sum(diary.count('ran').values()) == 3
    more = Cell('net.py', 'SGD', 50.0, 0.0)

    def add(progress):
        if progress.ended is not None:
            study.add([more])

    study.change(configs={'net.py': {'toolbox': 'none at all'}})
    assert work(study, HERE, train=plain.quick, shard=(2, 2), on_progress=add) == 0
    ran = {int(row.cell.lr) for row in study.rows() if row.column == 'done'}
    assert ran >= {2, 4, 6, 50}
    assert set(diary.count('ran').values()) == {1}


def test_a_trial_waits_for_one_that_still_saves(make_study, drive, wait_for, diary):
    from bocb_mm.runs import lock

    study = make_study([1])
    directory = study.directory_of(study.plan.cells[0])
    lock.acquire(directory)
    driver = drive(study)
    assert driver.poll() is None
    log = study.directory.parent / 'driver.log'
    with pytest.raises(AssertionError):
        wait_for(lambda: diary() or driver.poll() is not None, seconds=3)
    lock.release(directory)
    assert driver.wait(120) == 0, log.read_text()
    assert diary.count('ended') == {('1', '0'): 1}


def test_another_study_in_the_same_place_is_refused(make_study, monkeypatch):
    study = make_study([1])
    study.plan = study.plan.with_cells([])  # as it was read
    other = make_study([1])
    assert other.plan.identity != study.plan.identity
    job = Job(study.plan.cells[0], str(study.directory), study.plan.identity, plain.quick)
    assert 'another study' in worker.attempt(job).refused
    job = Job(study.plan.cells[0], '/nowhere/at/all', study.plan.identity, plain.quick)
    assert 'no such study' in worker.attempt(job).refused


def test_a_study_that_a_node_does_not_see_is_one_line(make_study, monkeypatch):
    study = make_study([1])
    (study.directory / 'plan.json').unlink()
    with pytest.raises(UserError, match='no such study.*file system that all nodes share'):
        work(study, HERE, train=plain.quick)


class NoMachine:
    """Stands for a node whose GPU is broken: every training on it fails at once."""

    def __init__(self, body, args, setup, toolboxes=()):
        self.exit_status, self.message = (
            BY_NAME['machine'].exit_status,
            'No CUDA GPUs are available',
        )
        self.seconds, self.cpu_seconds = 0.1, 0.0

    def wait(self, seconds=None):
        return True


def test_a_node_with_a_broken_gpu_rests_longer_each_time(make_study, monkeypatch):
    slept = []
    monkeypatch.setattr(worker, 'Training', NoMachine)
    monkeypatch.setattr(worker.time, 'sleep', slept.append)
    monkeypatch.setattr(worker, '_failures', 0)
    study = make_study(range(1, 8), retries=5)
    for cell in study.plan.cells:
        job = Job(cell, str(study.directory), study.plan.identity, plain.quick, most_rest=20)
        ended = worker.attempt(job, 'bad')
        assert (ended.row.column, ended.row.outcome) == ('waiting', 'machine')
    assert slept == [1, 2, 4, 8, 16, 20, 20], 'it takes a trial less and less often'
    assert all(row.failures == 1 for row in study.rows()), 'no trial has used up its retries'


def test_a_trial_that_a_machine_has_failed_goes_elsewhere_if_there_is_an_elsewhere():
    submitted = []

    class Task:
        def options(self, **options):
            submitted.append(options)
            return SimpleNamespace(remote=lambda job: job)

    def node(name):
        return {'NodeID': name, 'Alive': True, 'Resources': {'CPU': 4.0, 'GPU': 2.0}}

    running = RunningEngine.__new__(RunningEngine)
    running.engine, running._task = Engine(gpus=('0', '1'), gpus_per_trial=0.5), Task()
    running.ray = SimpleNamespace(nodes=lambda: [node('good'), node('bad')])
    running.submit('job', frozenset({'bad', 'gone'}))
    assert submitted[-1]['label_selector'] == {'ray.io/node-id': '!in(bad)'}
    assert submitted[-1]['num_gpus'] == 0.5 and submitted[-1]['max_retries'] == 0
    running.submit('job')
    assert 'label_selector' not in submitted[-1]
    running.ray = SimpleNamespace(nodes=lambda: [node('bad')])
    running.submit('job', frozenset({'bad'}))
    assert 'label_selector' not in submitted[-1], 'better there than nowhere'
    assert running.places() == 4


@pytest.mark.parametrize(
    ('engine', 'words'),
    [
        (Engine(gpus_per_trial=4, address='x', threads=1), 'takes 4 GPUs .*most GPUs of a node: 2'),
        (Engine(gpus_per_trial=1, address='x', threads=16), 'and 16 cores'),
    ],
)
def test_more_than_any_node_has_is_refused(engine, words):
    running = RunningEngine.__new__(RunningEngine)
    running.engine = engine
    nodes = [{'NodeID': k, 'Alive': True, 'Resources': {'CPU': 8.0, 'GPU': 2.0}} for k in 'ab']
    running.ray = SimpleNamespace(nodes=lambda: nodes)
    with pytest.raises(UserError, match=words):
        running._check_nodes()


def test_without_ray_the_command_that_installs_it_is_named(make_study, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(UserError, match=r'pip install "ray>=2.60,<3"'):
        work(make_study([1]), HERE, train=plain.quick)


def test_an_address_where_nobody_answers_is_one_line(make_study, drive):
    study, address = make_study([1]), '127.0.0.1:9'
    assert drive(study, address=address).wait(120) == 1
    log = (study.directory.parent / 'driver.log').read_text().splitlines()
    assert log[-1].startswith(
        f'bocb_mm.errors.UserError: --address {address}: no Ray answers there'
    )


def test_a_ray_that_does_not_start_is_one_line():
    def slow(**_):
        raise Exception('The current node timed out during startup.')  # as Ray 2.60 raises it

    running = RunningEngine.__new__(RunningEngine)
    running.engine, running.temporary, running._vital = HERE, None, {}
    running.ray = SimpleNamespace(init=slow, shutdown=lambda: None, is_initialized=lambda: False)
    try:
        with pytest.raises(UserError, match='Ray does not start here: .*timed out'):
            running._start()
    finally:
        running.stop()


def test_a_vital_process_that_is_gone_is_noticed(monkeypatch):
    running = RunningEngine.__new__(RunningEngine)
    running._vital = {7: 'raylet'}
    monkeypatch.setattr(engines, 'children', lambda: {7: 'raylet'})
    running._check_vital()
    monkeypatch.setattr(engines, 'children', lambda: {7: 'another'})
    with pytest.raises(EngineLost, match='raylet is gone'):
        running._check_vital()


def test_handlers_of_signals_are_put_back(make_study):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    study = make_study([1])
    assert work(study, HERE, train=plain.quick) == 0
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before
    assert threading.current_thread() is threading.main_thread()
    assert Setup.__dataclass_fields__['processes'].default == 1
