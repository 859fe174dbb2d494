"""Whatever happens to workers, trainings and database: at the end the table is that of a quiet study.

The trainings are real, and tiny: 18 iterations with all the hooks of a search. Their final weights
are compared, to the last bit.
"""

import os
import signal
import time

import pytest

RATES = (0.01, 0.02, 0.05)


def table(rows):
    return [(r['cell'], r['value'], r['outcome']) for r in rows]


@pytest.fixture(scope='module')
def quiet(workers, tmp_path_factory):
    """Table and final weights of a study that nobody disturbs, by what is to go wrong in it."""
    from bocb_mm.search.place import parse
    from bocb_mm.search.plan import Grid, Plan
    from bocb_mm.search.storage import Store

    folder = tmp_path_factory.mktemp('quiet')
    plan = Plan((Grid('net.py', 'SGD', RATES, (0.0,)),), work_dir=str(folder / 'runs'))
    (folder / 'runs').mkdir()
    store = Store(parse(str(folder / 'study.db')), create=True)
    store.add(list(plan.cells()), plan)
    store.save_plan(plan)
    process = workers(folder / 'study.db')
    process.join(240)
    assert process.exitcode == 0
    lines = (folder / 'runs' / 'diary.txt').read_text().splitlines()
    rows = table(store.rows())
    assert [outcome for *_, outcome in rows] == ['completed'] * 3
    return rows, sorted(line for line in lines if ' ended ' in line)


def finish(workers, study, **options):
    process = workers(study, **options)
    process.join(240)
    assert process.exitcode == 0


def training(folder):
    """Number of trials that have saved a checkpoint."""
    return len({path.parent for path in (folder / 'runs').rglob('iter_*.pth')})


def same_as(quiet, rows, diary):
    assert table(rows) == quiet[0]
    assert sorted(set(diary.ends())) == quiet[1]


def test_a_worker_killed_between_epochs(
    workers, make_study, rows_of, diary, quiet, wait_for, tmp_path
):
    study = make_study(RATES, cfg_options={'seconds': 0.1})
    worker = workers(study, slots=2)
    wait_for(lambda: training(tmp_path) == 2)
    worker.kill()
    worker.join()
    finish(workers, study)
    same_as(quiet, rows_of(study), diary)
    assert sorted(diary.runs().values()) == [1, 2, 2]  # the two under way went on, once


@pytest.mark.parametrize('fault', ['kill_in_save', 'kill_all'])
def test_worker_and_training_killed_at_once(fault, workers, make_study, rows_of, diary, quiet):
    study = make_study(RATES, cfg_options={fault: 0.02})
    worker = workers(study)
    worker.join(240)
    assert worker.exitcode == -signal.SIGKILL
    finish(workers, study)
    same_as(quiet, rows_of(study), diary)
    assert diary.runs()['0.02', '0'] == 2


def test_another_worker_takes_over_from_one_that_is_killed(
    workers, make_study, rows_of, diary, quiet, wait_for, tmp_path
):
    study = make_study(RATES, cfg_options={'seconds': 0.1})
    both = [workers(study) for _ in range(2)]
    wait_for(lambda: training(tmp_path) == 2)
    both[0].kill()
    both[1].join(240)
    assert both[1].exitcode == 0
    same_as(quiet, rows_of(study), diary)


def test_all_workers_killed(workers, make_study, rows_of, diary, quiet, wait_for, tmp_path):
    study = make_study(RATES, cfg_options={'seconds': 0.1})
    all_ = [workers(study) for _ in range(3)]
    wait_for(lambda: training(tmp_path) == 3)
    for worker in all_:
        worker.kill()
    for worker in all_:
        worker.join()
    finish(workers, study)
    same_as(quiet, rows_of(study), diary)


def test_a_truncated_checkpoint(workers, make_study, rows_of, diary, quiet, tmp_path):
    study = make_study(RATES, cfg_options={'kill_all': 0.02})
    worker = workers(study)
    worker.join(240)
    last = tmp_path / 'runs' / 'net' / 'SGD' / 'lr0.02_wd0_seed0' / 'iter_8.pth'
    last.write_bytes(last.read_bytes()[:1000])
    finish(workers, study)
    same_as(quiet, rows_of(study), diary)


def test_sigterm_inside_a_training_step(workers, make_study, rows_of, diary, quiet):
    study = make_study(RATES, cfg_options={'term': 0.02})
    finish(workers, study)
    same_as(quiet, rows_of(study), diary)
    assert diary.runs()['0.02', '0'] == 2


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_to_the_worker_leaves_its_trials_resumable(
    number, workers, make_study, rows_of, diary, quiet, wait_for, tmp_path
):
    study = make_study(RATES, cfg_options={'seconds': 0.1}, retries=0)
    worker = workers(study, slots=2)
    wait_for(lambda: training(tmp_path) == 2)
    os.kill(worker.pid, number)
    worker.join(240)
    assert worker.exitcode == 75
    assert {r['state'].name for r in rows_of(study)} == {'WAITING'}
    assert len(list((tmp_path / 'runs').rglob('iter_*.pth'))) > 2  # what the signal saved
    finish(workers, study, slots=2)
    same_as(quiet, rows_of(study), diary)


def test_nan_at_a_step_is_a_result_and_not_tried_again(workers, make_study, rows_of, diary, quiet):
    study = make_study(RATES, cfg_options={'nan': 0.02})
    finish(workers, study)
    found = table(rows_of(study))
    assert [found[0], found[2]] == [quiet[0][0], quiet[0][2]]
    assert found[1][1:] == (-float('inf'), 'diverged')
    assert diary.runs()['0.02', '0'] == 1


def test_two_workers_on_one_study(workers, make_study, rows_of, diary, quiet):
    study = make_study(RATES)
    both = [workers(study) for _ in range(2)]
    for worker in both:
        worker.join(240)
    assert [worker.exitcode for worker in both] == [0, 0]
    same_as(quiet, rows_of(study), diary)
    assert set(diary.runs().values()) == {1}


def test_the_database_server_killed_for_ten_seconds(
    postgres, workers, make_study, rows_of, diary, quiet, wait_for, tmp_path
):
    study = make_study(RATES, study=f'{postgres.url}#outage', cfg_options={'seconds': 0.1})
    both = [workers(study) for _ in range(2)]
    wait_for(lambda: training(tmp_path) == 2)
    postgres.kill()
    time.sleep(10)
    postgres.start()
    for worker in both:
        worker.join(240)
    assert [worker.exitcode for worker in both] == [0, 0]
    same_as(quiet, rows_of(study), diary)
    assert set(diary.runs().values()) == {1}  # nobody took a trial from a worker that lived
