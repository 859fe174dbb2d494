"""tools/sweep.py as users call it, once with real trainings; the dashboard; the Slurm script."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pandas as pd
import pytest

from bocb_mm.errors import UserError
from bocb_mm.search import cli
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


def test_real_trials_from_create_to_report(sweep, config, rows_of, root, tmp_path):
    status, out, err = sweep(
        'create', 's.db', '--config', config, '--optimizers', 'sgd', 'LAMB', '--lr', '0.05', '1e30',
        '--weight-decay', '1e-4', '--cfg-options', 'train_cfg.max_epochs=2',
        'default_hooks.divergence.interval=1',
    )  # fmt: skip
    assert status == 0, err
    assert '4 trials (2 pairs, 1 seeds)' in out
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '-1'}
    done = subprocess.run(
        [sys.executable, root / 'tools' / 'sweep.py', 'work', 's.db', '--jobs', '2', '--threads', '1'],
        capture_output=True, text=True, timeout=600, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = rows_of('s.db')
    outcomes = {(r['cell'].optimizer, r['cell'].lr): r['outcome'] for r in rows}
    assert outcomes['SGD', 0.05] == outcomes['LAMB', 0.05] == 'completed', rows
    assert outcomes['SGD', 1e30] == 'diverged'  # LAMB's trust ratio may survive any rate
    folder = tmp_path / 'work_dirs' / 's' / 'tiny' / 'SGD' / 'lr0.05_wd0.0001_seed0'
    record = json.loads((folder / 'run.json').read_text())
    (row,) = (r for r in rows if (r['cell'].optimizer, r['cell'].lr) == ('SGD', 0.05))
    assert row['value'] == record['best'] and len(record['evaluations']) == 2

    status, out, _ = sweep('status', 's.db')
    assert status == 0 and '4/4 (100 %), finished' in out
    status, out, _ = sweep('best', 's.db', '--csv', 'best.csv')
    assert status == 0 and 'tools/bocb_report.py work_dirs/s' in out
    table = pd.read_csv('best.csv').set_index('optimizer')
    assert table.loc['SGD', 'value'] == row['value'] and table.loc['SGD', 'lr'] == 0.05
    from bocb_mm.report import cli as report

    assert report.main(['work_dirs/s', '--out', 'report', '--quiet', '--no-figures']) == 0
    (csv,) = (p for p in Path('report').glob('classification_*.csv') if '_' not in p.stem[15:])
    shown = pd.read_csv(csv).set_index('optimizer')
    assert shown.loc['SGD'].iloc[0] == pytest.approx(row['value'])


def test_extending_where_the_best_is_on_the_edge(sweep, config, rows_of):
    from bocb_mm.search.outcomes import BY_NAME
    from bocb_mm.search.place import parse
    from bocb_mm.search.queue import Queue

    grid = ('--optimizers', 'SGD', 'AdamW', '--grid', '3x1', '--seeds', '2')
    assert sweep('create', 's.db', '--config', config, *grid)[0] == 0
    queue = Queue(parse('s.db'))
    while taken := queue.take('me'):
        value = taken.cell.lr * (100 if taken.cell.optimizer == 'SGD' else 1)
        if taken.cell.optimizer == 'AdamW':
            value = 50 - abs(taken.cell.lr - 1e-3) * 1000
        queue.finish(taken, 'me', BY_NAME['completed'], value)
    status, out, _ = sweep('best', 's.db', '--extend')
    assert status == 0 and 'lr+' in out and 'trials added' in out
    waiting = [r['cell'] for r in rows_of('s.db') if r['state'].name == 'WAITING']
    new = [(c.optimizer, c.lr, c.weight_decay, c.seed) for c in waiting]
    assert new == [('SGD', 0.4, 1e-4, 0), ('SGD', 0.4, 1e-4, 1)]
    while taken := queue.take('me'):
        queue.finish(taken, 'me', BY_NAME['completed'], 1.0)
    status, out, _ = sweep('best', 's.db', '--extend')
    assert status == 0 and 'nothing added' in out


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        (['create', 's.db', '--config', 'gone.py'], ['gone.py', 'no such file']),
        (['create', 's.db', '--config', '{c}', '--optimizers', 'adanw'], ['adanw', 'AdamW']),
        (['create', 's.db', '--config', '{c}', '--grid', '4x4'], ['4x4', 'odd']),
        (['create', 's.db', '--config', '{c}', '--seeds', '0'], ['--seeds 0', 'at least 1']),
        (['create', 's.db', '--config', '{c}', '--lr', '-1'], ['--lr -1']),
        (['create', 's.db', '--config', '{c}', '--halving', '1'], ['--halving 1', 'at least 2']),
        (['create', 's.db', '--config', '{c}', '--recipe', 'x'], ["recipe 'x'"]),
        (['create', 's.db', '--config', '{c}', '--cfg-options', 'oops'], ['oops', 'key=value']),
        (['create', 'study', '--config', '{c}'], ["'study'", 'NAME.db']),
        (['create', 'no/where/s.db', '--config', '{c}'], ['no/where/s.db', 'cannot be opened']),
        (['work', 's.db'], ['s.db', 'no such study', 'create']),
        (['work', 's.db', '--gpus', 'all'], ["--gpus 'all'", '0,1']),
        (['work', 's.db', '--jobs', '0'], ['--jobs 0', 'at least 1']),
        (['work', 's.db', '--trials', '-1'], ['--trials -1']),
        (['status', 's.db'], ['no such study']),
        (['best', 's.db', '--csv', 'no/where.csv'], ['--csv no/where.csv', 'make it first']),
        (['best', 'postgresql://me:secret@127.0.0.1:9/db'], ['127.0.0.1', 'cannot be opened']),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line_and_leaves_nothing(sweep, config, tmp_path, argv, words):
    status, _, err = sweep(*[a.format(c=config) for a in argv])
    line = err.strip().splitlines()[-1]
    assert status == 2 and line.startswith('error: ') and 'Traceback' not in err
    for word in words:
        assert word in line
    assert 'secret' not in err
    assert not (tmp_path / 's.db').exists()


def test_gpus_are_counted_among_those_that_are_visible(monkeypatch):
    monkeypatch.setattr('bocb_mm.search.cli._number_of_gpus', lambda: 4)

    def slots(*argv):
        return cli._slots(cli.parser().parse_args(['work', 's.db', *argv]))

    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    assert slots('--gpus', '0,3') == (['0', '3'], True)
    assert slots('--jobs', '2') == (['cpu0', 'cpu1'], False)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,GPU-8f2e')
    assert slots('--gpus', '1') == (['GPU-8f2e'], True)
    assert slots() == (['4', 'GPU-8f2e'], True)
    with pytest.raises(UserError, match='2 GPUs are visible'):
        slots('--gpus', '2')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '-1')
    assert slots() == (['cpu'], False)


def test_a_study_is_not_created_twice(sweep, config):
    argv = ('create', 's.db', '--config', config, '--optimizers', 'SGD', '--grid', '1x1')
    assert sweep(*argv)[0] == 0
    status, _, err = sweep(*argv)
    assert status == 2 and 'exists already' in err and '--extend' in err


def test_the_dashboard_lists_the_study(make_study, tmp_path):
    study = make_study([0.1, 0.2])
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name('optuna-dashboard')
    argv = [program, f'sqlite:///{study}', '--host', '127.0.0.1', '--port', str(port)]
    server = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f'http://127.0.0.1:{port}/api/studies'
        until = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(address, timeout=10) as answer:
                    listed = json.load(answer)
                break
            except OSError:
                assert time.monotonic() < until and server.poll() is None
                time.sleep(0.2)
        (summary,) = listed['study_summaries']
        assert summary['study_name'] == 'study'
        with urllib.request.urlopen(f'{address}/{summary["study_id"]}', timeout=30) as answer:
            detail = json.load(answer)
        shown = [{p['name'] for p in trial['params']} for trial in detail['trials']]
        assert shown == [{'config', 'optimizer', 'lr', 'weight_decay', 'seed'}] * 2
    finally:
        server.terminate()
        server.wait()


def slurm(root, *argv, **env):
    return subprocess.run(
        ['bash', str(root / 'tools' / 'slurm_sweep.sh'), *argv],
        capture_output=True, text=True, timeout=60, env={**os.environ, **env},
    )  # fmt: skip


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        (['part', '2'], 'usage:'),
        (['part', 'two', 's.db'], 'whole number'),
        (['part', '2', 's.db'], 'postgresql://'),
        (['part', '1', 's.db'], 'no sbatch'),
    ],
)
def test_the_slurm_script_refuses_in_one_line(root, argv, words):
    done = slurm(root, *argv, PATH='/usr/bin:/bin')
    assert done.returncode == 2 and words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_slurm_job_passes_the_signal_on_and_queues_again(root, tmp_path):
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
    study = 'postgresql://me@host/db#a b'
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
