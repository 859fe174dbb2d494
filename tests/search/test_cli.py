"""bocb sweep as users call it, once with real trainings; the Slurm script; the Kubernetes job."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import plain
import pytest
import yaml

from bocb_mm.cli import sweep as cli
from bocb_mm.runs.record import RunRecord
from bocb_mm.search.study import Study
from tests.search.conftest import owner
from tests.tools.tiny_config import write_tiny_config


@pytest.fixture
def sweep(capsys, tmp_path, monkeypatch):
    """Run the command line in an empty folder; returns (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*argv):
        capsys.readouterr()
        try:
            status = cli.main([str(a) for a in argv])
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return write_tiny_config(tmp_path_factory.mktemp('tiny'))


def test_a_plan_made_where_the_data_are_not_says_so(sweep, config):
    """As on a login node: a note, no mistake."""
    arguments = ('--config', config, '--optimizers', 'sgd', '--grid', '1x1')
    status, _, err = sweep('create', 'here', *arguments)
    assert status == 0 and 'note' not in err
    status, out, err = sweep(
        'create', 'there', *arguments,
        '--cfg-options', 'train_dataloader.dataset.data_root=no/such',
    )  # fmt: skip
    assert status == 0 and '1 trial' in out
    (note,) = err.splitlines()
    assert note.startswith('note: on this machine train_dataloader: no data at no/such')


def test_real_trials_from_create_to_report(sweep, config, root, tmp_path, wait_for):
    """One of them is killed on the way, and goes on from its checkpoint."""
    status, out, err = sweep(
        'create', 's', '--config', config, '--optimizers', 'sgd', 'LAMB', '--lr', '0.05', '1e30',
        '--weight-decay', '1e-4', '--cfg-options', 'train_cfg.max_epochs=3',
        'default_hooks.divergence.interval=1',
    )  # fmt: skip
    assert status == 0, err
    assert '4 trials (2 pairs, 1 seed)' in out
    environment = {**os.environ, 'CUDA_VISIBLE_DEVICES': '-1'}
    log = tmp_path / 'work.log'
    with log.open('w') as file:
        driver = subprocess.Popen(
            [sys.executable, root / 'tools' / 'sweep.py', 'work', 's', '--jobs', '2', '--threads', '1'],
            stdout=file, stderr=file, env=environment,
        )  # fmt: skip
    study = Study.open('s')
    first = study.plan.cells[0]

    def trains():
        assert driver.poll() is None, log.read_text()[-2000:]
        return owner(study, first) or study.row(first).column == 'done'

    trial = wait_for(trains)
    if trial is not True:
        os.kill(trial, signal.SIGKILL)
    assert driver.wait(300) == 0, log.read_text()[-2000:]
    rows = {(r.cell.optimizer, r.cell.lr): r for r in study.rows()}
    assert rows['SGD', 0.05].column == rows['LAMB', 0.05].column == 'done', rows
    assert rows['SGD', 1e30].column == 'diverged'  # LAMB's trust ratio may survive any rate
    folder = tmp_path / 's' / 'tiny' / 'SGD' / 'lr0.05_wd0.0001_seed0'
    record = json.loads((folder / 'run.json').read_text())
    row = rows['SGD', 0.05]
    assert row.value == record['best'] and len(record['evaluations']) == 3

    status, out, _ = sweep('status', 's')
    assert status == 0 and '4/4 (100 %), finished' in out
    status, out, _ = sweep('best', 's', '--csv', 'best.csv')
    assert status == 0 and 'bocb report s' in out
    table = pd.read_csv('best.csv').set_index('optimizer')
    assert table.loc['SGD', 'value'] == row.value and table.loc['SGD', 'lr'] == 0.05
    from bocb_mm.report import cli as report

    assert report.main(['s', '--out', 'report', '--quiet', '--no-figures']) == 0
    (csv,) = (p for p in Path('report').glob('classification_*.csv') if '_' not in p.stem[15:])
    shown = pd.read_csv(csv).set_index('optimizer')
    assert shown.loc['SGD'].iloc[0] == pytest.approx(row.value)


def leave_results(study, value_of):
    """Runs of the trials that wait, as if they had been trained."""
    for row in study.rows():
        if row.column == 'waiting':
            cell = row.cell
            run = RunRecord('classification', 'd', cell.stem, cell.optimizer, metric='accuracy')
            run.status = 'completed'
            run.add_evaluation(1, 1, {'accuracy': value_of(cell)})
            study.directory_of(cell).mkdir(parents=True)
            run.save(study.directory_of(cell))


def test_extending_where_the_best_is_on_the_edge(sweep, config):
    grid = ('--optimizers', 'SGD', 'AdamW', '--grid', '3x1', '--seeds', '2')
    assert sweep('create', 's', '--config', config, *grid)[0] == 0

    def value(cell):
        return cell.lr * 100 if cell.optimizer == 'SGD' else 50 - abs(cell.lr - 1e-3) * 1000

    study = Study.open('s')
    leave_results(study, value)
    status, out, _ = sweep('best', 's', '--extend')
    assert status == 0 and 'lr+' in out and '2 trials added' in out
    assert study.reload()
    new = [r.cell for r in study.rows() if r.column == 'waiting']
    assert [(c.optimizer, c.lr, c.weight_decay, c.seed) for c in new] == [
        ('SGD', 0.4, 1e-4, 0), ('SGD', 0.4, 1e-4, 1)
    ]  # fmt: skip
    leave_results(study, lambda cell: 1.0)
    status, out, _ = sweep('best', 's', '--extend')
    assert status == 0 and 'nothing added' in out


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        (['create', 's', '--config', 'gone.py'], ['gone.py', 'no such file']),
        (['create', 's', '--config', '{c}', '--optimizers', 'adanw'], ['adanw', 'AdamW']),
        (['create', 's', '--config', '{c}', '--optimizers', 'timm.adamz'], ['adamz', 'adam']),
        (['create', 's', '--config', '{c}', '--grid', '4x4'], ['4x4', 'odd']),
        (['create', 's', '--config', '{c}', '--seeds', '0'], ['--seeds 0', 'at least 1']),
        (['create', 's', '--config', '{c}', '--lr', '-1'], ['--lr -1']),
        (['create', 's', '--config', '{c}', '--lr', 'nan'], ['--lr nan']),
        (['create', 's', '--config', '{c}', '--weight-decay', '-1'], ['--weight-decay -1', '>= 0']),
        (['create', 's', '--config', '{c}', '--gpus-per-trial', '1.5'], ['--gpus-per-trial 1.5']),
        (['create', 's', '--config', '{c}', '--recipe', 'x'], ["recipe 'x'"]),
        (['create', 's', '--config', '{c}', '--cfg-options', 'oops'], ['oops', 'key=value']),
        (['create', '/dev/null/s', '--config', '{c}', '--optimizers', 'SGD'], ['/dev/null/s', 'cannot be']),
        (['work', 's'], ['/s: no such study', 'create']),
        (['work', '{c}'], ['a study is a directory', 'import']),
        (['work', 's', '--jobs', '0'], ['--jobs 0', 'at least 1']),
        (['work', 's', '--trials', '-1'], ['--trials -1']),
        (['work', 's', '--shard', '3/2'], ["--shard '3/2'", '1/4']),
        (['status', 's'], ['no such study']),
        (['best', 's', '--csv', 'no/where.csv'], ['--csv no/where.csv', 'make it first']),
        (['import', 's', 'gone.db'], ['gone.db', 'no such file']),
        (['import', 's', '{c}'], ['tiny.py', 'is not a study']),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line_and_leaves_nothing(sweep, config, tmp_path, argv, words):
    status, _, err = sweep(*[a.format(c=config) for a in argv])
    line = err.strip().splitlines()[-1]
    assert status == 2 and line.startswith('error: ') and 'Traceback' not in err
    for word in words:
        assert word in line
    assert not (tmp_path / 's').exists()


def test_a_wrong_name_is_said_before_the_toolboxes_are_imported(sweep, config, monkeypatch):
    monkeypatch.setitem(sys.modules, 'bocb_mm.config.edit', None)  # its import would fail
    status, _, err = sweep('create', 's', '--config', config, '--optimizers', 'Ada*', 'adanw')
    assert status == 2 and "unknown optimizer 'adanw'" in err


def test_a_study_is_not_created_twice(sweep, config):
    argv = ('create', 'a%20b c', '--config', config, '--optimizers', 'SGD', '--grid', '1x1')
    assert sweep(*argv)[0] == 0
    assert Path('a%20b c', 'plan.json').is_file()
    status, _, err = sweep(*argv)
    assert status == 2 and 'exists already' in err and '--extend' in err


def test_a_config_that_has_changed_is_refused_with_the_difference(sweep, config, tmp_path):
    mine = tmp_path / 'mine.py'
    shutil.copy(config, mine)
    assert sweep('create', 's', '--config', mine, '--optimizers', 'SGD', '--grid', '1x1')[0] == 0
    text = mine.read_text()
    mine.write_text('# a comment is no change\n' + text.replace('depth=18', 'depth=34'))
    status, _, err = sweep('work', 's', '--jobs', '1')
    assert status == 2, err
    assert 'mine.py: has changed' in err and 'model.backbone.depth: 18 -> 34' in err
    mine.write_text(f"{text}\nload_from = 'other.pth'\n")
    status, _, err = sweep('work', 's', '--jobs', '1')
    assert status == 2 and 'load_from: null -> "other.pth"' in err, 'a config hash has no weights'


def test_the_same_config_twice_is_one(sweep, config):
    argv = ('--optimizers', 'SGD', '--grid', '1x1')
    _, out, _ = sweep('create', 's', '--config', config, os.path.relpath(config), *argv)
    assert 's: 1 trial ' in out


def test_a_pair_of_which_all_diverged_has_no_number_in_the_table(sweep, make_study):
    study = make_study([1])
    run = RunRecord('classification', 'd', 'net', 'SGD', metric='val/loss', status='diverged')
    study.directory_of(study.plan.cells[0]).mkdir(parents=True)
    run.save(study.directory_of(study.plan.cells[0]))
    assert sweep('best', study.directory, '--csv', 'best.csv')[0] == 0
    assert list(pd.read_csv('best.csv')['value']) == ['diverged']


def test_what_ended_without_a_result_is_trained_again_on_request(make_study):
    study = make_study([8])
    run = RunRecord('classification', 'd', 'net', 'SGD', status='completed', iterations=5)
    folder = study.directory_of(study.plan.cells[0])
    folder.mkdir(parents=True)
    run.save(folder)
    (folder / 'iter_5.pth').touch()
    assert [row.column for row in study.rows()] == ['failed']
    study.try_again()
    assert [row.column for row in study.rows()] == ['waiting']
    assert sorted(p.name for p in folder.iterdir()) == ['run.json.failed']


@pytest.mark.parametrize('option', [['--gpus', '0'], ['--dashboard']])
def test_what_a_cluster_has_of_its_own_is_refused(sweep, make_study, option):
    study = make_study([1])
    status, _, err = sweep('work', study.directory, '--address', 'auto', *option)
    assert status == 2 and f'{option[0]}: not with --address' in err


def test_several_processes_as_said_to_create(sweep, config):
    argv = ('--config', config, '--optimizers', 'SGD', '--grid', '1x1', '--gpus-per-trial', '2')
    assert sweep('create', 's', *argv)[0] == 0
    assert Study.open('s').plan.processes == 2
    status, _, err = sweep('work', 's', '--jobs', '1', '--gpus-per-trial', '1')
    assert status == 2 and '--gpus-per-trial 1: the trials of this study are of 2' in err


OLD_PLAN = {
    'grids': [], 'seeds': [0], 'cfg_options': {'a.b': 1}, 'pretrained': None, 'amp': False,
    'retries': 2, 'heartbeat': 15.0, 'halving': 0, 'identity': 'x', 'version': 1,
}  # fmt: skip


def old_study(file, work_dir, trials):
    """What the search of 0.1 left in a database of Optuna's, as far as it is read."""
    with sqlite3.connect(file) as database:
        database.executescript(
            'CREATE TABLE study_user_attributes (study_id INT, key TEXT, value_json TEXT);'
            'CREATE TABLE trials (trial_id INT, number INT, study_id INT, state TEXT);'
            'CREATE TABLE trial_user_attributes (trial_id INT, key TEXT, value_json TEXT);'
        )
        plan = json.dumps({**OLD_PLAN, 'work_dir': str(work_dir)})
        database.execute("INSERT INTO study_user_attributes VALUES (1, 'plan', ?)", [plan])
        for k, (state, told) in enumerate(trials):
            database.execute('INSERT INTO trials VALUES (?, ?, 1, ?)', [k, k, state])
            rows = [(k, key, json.dumps(value)) for key, value in told.items()]
            database.executemany('INSERT INTO trial_user_attributes VALUES (?, ?, ?)', rows)
    database.close()


@pytest.mark.parametrize('place', ['runs', 'elsewhere'])
def test_an_old_study_becomes_a_directory(place, sweep, config, tmp_path):
    def cell(lr):
        return json.dumps([str(config), 'SGD', lr, 0.0, 0])

    old_study(tmp_path / 'old.db', tmp_path / 'runs', [
        ('COMPLETE', {'cell': cell(0.1)}),
        ('FAIL', {'cell': cell(0.2), 'outcome': 'config error', 'message': 'no luck'}),
        ('FAIL', {'cell': cell(0.3), 'outcome': 'killed', 'message': 'thrice'}),
        ('WAITING', {'cell': cell(0.4)}),
    ])  # fmt: skip
    run = RunRecord('classification', 'd', 'tiny', 'SGD', status='completed', metric='accuracy')
    run.add_evaluation(1, 1, {'accuracy': 66.0})
    folder = tmp_path / 'runs' / 'tiny' / 'SGD' / 'lr0.1_wd0_seed0'
    folder.mkdir(parents=True)
    run.save(folder)
    status, out, err = sweep('import', place, 'old.db')
    assert status == 0 and '4 trials, their runs in' in out, err
    study = Study.open(place)
    assert [(r.column, r.value) for r in study.rows()] == [
        ('done', 66.0), ('failed', None), ('failed', None), ('waiting', None)
    ]  # fmt: skip
    assert study.plan.options == {'a.b': 1} and study.plan.retries == 2
    assert [r.message for r in study.rows()][1:3] == ['no luck', 'thrice']


def slurm(root, *argv, **env):
    return subprocess.run(
        ['bash', str(root / 'tools' / 'slurm_sweep.sh'), *argv],
        capture_output=True, text=True, timeout=60, env={**os.environ, **env},
    )  # fmt: skip


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        (['part', '2'], 'usage:'),
        (['part', 'two', 's'], 'whole number'),
        (['part', '2', 's'], 'no such study'),
        (['part', '1', '{s}'], 'no sbatch'),
    ],
)
def test_the_slurm_script_refuses_in_one_line(root, make_study, argv, words):
    study = make_study([1])
    argv = [a.format(s=study.directory) for a in argv]
    done = slurm(root, *argv, PATH='/usr/bin:/bin')
    assert done.returncode == 2 and words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_slurm_job_passes_the_signal_on_and_queues_again(root, tmp_path, make_study):
    """sbatch, scontrol and Python are stand-ins; the job script is run as Slurm would."""
    programs = tmp_path / 'bin'
    programs.mkdir()
    for name, text in {
        'sbatch': f'echo "$@" > {tmp_path}/asked; cat > {tmp_path}/job',
        'scontrol': f'echo "$@" > {tmp_path}/again',
        'python': f'trap "sleep 0.3; exit 75" USR1; echo "$@" > {tmp_path}/called; '
        'while :; do sleep 0.05; done',
    }.items():
        (programs / name).write_text(f'#!/bin/bash\n{text}\n')
        (programs / name).chmod(0o755)
    env = {'PATH': f'{programs}:{os.environ["PATH"]}', 'PYTHON': str(programs / 'python')}
    study = str(make_study([1], folder='a study').directory)
    done = slurm(root, 'part', '4', study, '--minutes', '5', SBATCH_ARGS='--time=1:00:00', **env)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / 'asked').read_text()
    for word in ('-p part', '--array=1-4', '--signal=B:USR1@120', '--gres=gpu:1', '--time=1:00:00'):
        assert word in asked
    env.update(SLURM_ARRAY_JOB_ID='7', SLURM_ARRAY_TASK_ID='3')
    job = subprocess.Popen(['bash', tmp_path / 'job'], env={**os.environ, **env})
    until = time.monotonic() + 60
    while not (tmp_path / 'called').exists() or not (tmp_path / 'called').read_text():
        assert time.monotonic() < until
        time.sleep(0.02)
    time.sleep(0.2)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(60) == 75
    assert (tmp_path / 'again').read_text() == 'requeue 7_3\n'
    called = (tmp_path / 'called').read_text()
    assert called.endswith(f'sweep.py work {study} --no-wait --minutes 5\n')


def test_the_kubernetes_job_has_what_a_study_needs(root):
    job = yaml.safe_load((root / 'docs' / 'rayjob.yaml').read_text())
    assert (job['apiVersion'], job['kind']) == ('ray.io/v1', 'RayJob')
    assert set(job['metadata']) == {'name'}
    spec = job['spec']
    words = spec['entrypoint'].split()
    assert words[:2] == ['bocb', 'sweep']
    args = cli.parser().parse_args(words[2:])  # the command line knows every argument
    assert args.address == 'auto'
    cluster = spec['rayClusterSpec']
    assert cluster['headGroupSpec']['rayStartParams']['num-cpus'] == '0'
    groups = [cluster['headGroupSpec'], *cluster['workerGroupSpecs']]
    for group in groups:
        pod = group['template']['spec']
        volumes = {volume['name'] for volume in pod['volumes']}
        for container in pod['containers']:
            mounts = {mount['name']: mount['mountPath'] for mount in container['volumeMounts']}
            assert mounts['study'] == args.study, 'every pod sees the study under the same path'
            assert set(mounts) <= volumes
        claims = [
            v['persistentVolumeClaim']['claimName'] for v in pod['volumes'] if v['name'] == 'study'
        ]
        assert claims == ['study']
    worker = cluster['workerGroupSpecs'][0]
    limits = worker['template']['spec']['containers'][0]['resources']['limits']
    assert int(limits['nvidia.com/gpu']) >= args.gpus_per_trial
    assert worker['template']['spec']['terminationGracePeriodSeconds'] > 30
    assert worker['minReplicas'] <= worker['replicas'] <= worker['maxReplicas']


def test_what_work_shows(make_study, capsys):
    from io import StringIO

    from rich.console import Console

    from bocb_mm.cli.sweep_view import View
    from bocb_mm.search.driver import Progress
    from bocb_mm.search.engine import Engine
    from bocb_mm.search.worker import Ended

    study = make_study([1, 2, 3])
    plain_rows = {row.cell: row for row in study.rows()}
    leave_results(study, lambda cell: 40.0 + cell.lr)
    rows = {row.cell: row for row in study.rows()[:2]} | {
        c: r for c, r in plain_rows.items() if c.lr == 3
    }
    counts = {'waiting': 0, 'running': 1, 'done': 2, 'diverged': 0, 'failed': 0}
    ended = Ended(next(iter(rows.values())), seconds=12.0, cpu_seconds=3.0)
    progress = Progress(rows, counts, ended)
    for terminal in (False, True):
        out = StringIO()
        console = Console(file=out, force_terminal=terminal, width=120)
        with View(study, Engine(jobs=2), console) as view:
            view.show(progress)
            view.show(Progress(rows, counts, None, 'raylet is gone: starting Ray anew'))
        text = out.getvalue()
        assert '2/3 net SGD lr 1 wd 0 seed 0: 41 (12 s, processor 3 s)' in text
        assert 'raylet is gone' in text and 'on the CPU, 2 at a time' in text
        if terminal:
            assert '1 running, 2 done' in text and '42' in text
    assert plain.STEPS
