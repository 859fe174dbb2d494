"""A training in a clean process: how it runs, how it ends, and that nothing is left behind."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import chain_jobs
import pytest

from bocb_mm.launch.process import Setup, Training, start_method


def ended(body, argument, tmp_path, **settings):
    training = Training(body, (argument,), Setup(tmp_path / 'log' / 'log.txt', **settings))
    assert training.wait(120)
    return training


def test_where_and_how_it_runs(tmp_path, monkeypatch):
    monkeypatch.delenv('MINE', raising=False)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # as Ray does
    try:
        ended(
            chain_jobs.report, str(tmp_path / 'told'), tmp_path, folder=str(tmp_path), threads=3,
            devices='5,7', environment={'MINE': 'yes'},
        )  # fmt: skip
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    told = ast.literal_eval((tmp_path / 'told').read_text())
    folder, devices, mine, threads, own_group, _, blocked, has_main = told
    assert (folder, devices, mine, threads) == (str(tmp_path), '5,7', 'yes', '3')
    assert own_group and blocked == [] and not has_main
    assert 'MINE' not in os.environ


WITHOUT_TOOLBOXES = """
import sys
from pathlib import Path
import chain_jobs
from bocb_mm.launch.process import Setup, Training
training = Training(chain_jobs.report, (sys.argv[1],), Setup(Path(sys.argv[1] + '.log')))
assert training.wait(120) and training.exit_status == 0
"""


def test_without_toolboxes_the_server_imports_nothing(tmp_path, root):
    """In a process of its own: the server of this one keeps what its first training asked for."""
    path = os.pathsep.join([str(root), str(Path(chain_jobs.__file__).parent)])
    told = tmp_path / 'told'
    subprocess.run(
        [sys.executable, '-c', WITHOUT_TOOLBOXES, str(told)],
        env={**os.environ, 'PYTHONPATH': path}, check=True, timeout=150,
    )  # fmt: skip
    assert ast.literal_eval(told.read_text())[5] is False


@pytest.mark.parametrize(
    ('how', 'status', 'message', 'last'),
    [
        ('0', 0, '', 'a line'),
        ('3', 3, '', 'a line'),
        ('raise', 1, 'ZeroDivisionError: a fault', 'ZeroDivisionError: a fault'),
        ('mistake', 2, 'no such thing', 'error: no such thing'),
        ('kill', -9, '', 'a line'),
    ],
)
def test_how_it_ends(how, status, message, last, tmp_path):
    training = ended(chain_jobs.end, how, tmp_path)
    assert (training.exit_status, training.message) == (status, message)
    assert (tmp_path / 'log' / 'log.txt').read_text().splitlines()[-1] == last
    assert training.seconds > 0


def test_its_processor_time_is_told(tmp_path):
    assert ended(chain_jobs.end, 'busy', tmp_path).cpu_seconds > 0.25


def test_on_a_mig_slice_it_is_no_fork(tmp_path):
    """To look for the slice initialises CUDA, in the server too: no fork could use it."""
    assert start_method('MIG-3c0f') == start_method('0,MIG-3c0f') == 'spawn'
    assert start_method('GPU-3c0f') == start_method(None) == start_method('-1') == 'forkserver'
    training = ended(chain_jobs.report, str(tmp_path / 'told'), tmp_path, devices='MIG-3c0f')
    assert training.exit_status == 0
    assert ast.literal_eval((tmp_path / 'told').read_text())[1] == 'MIG-3c0f'


def alive(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] not in 'ZX'
    except OSError:
        return False


def wait_for(so, seconds=120):
    until = time.monotonic() + seconds
    while not (found := so()):
        assert time.monotonic() < until, 'it never came to that'
        time.sleep(0.02)
    return found


def processes(folder, n):
    """Processes of n trainings that stay, and of their data workers."""
    files = list(folder.glob('pids*'))
    return [int(p) for file in files for p in file.read_text().split()] if len(files) == n else None


@pytest.mark.parametrize(
    ('victim', 'n', 'devices'),
    [
        ('starter', 1, '-1'),
        ('starter', 1, 'MIG-0'),  # no fork: it has no server
        ('starter', 2, '-1'),
        ('server', 1, '-1'),
        ('server', 2, '-1'),
    ],
)
def test_who_loses_its_starter_saves_and_ends(victim, n, devices, tmp_path, root):
    environment = {**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'}
    script = Path(chain_jobs.__file__)
    argv = [sys.executable, str(script), str(tmp_path), str(n), devices]
    starter = subprocess.Popen(argv, env=environment)
    try:
        pids = wait_for(lambda: processes(tmp_path, n))
        training = int((tmp_path / 'training').read_text())
        fields = Path(f'/proc/{training}/stat').read_text().rpartition(')')[2].split()
        os.kill(starter.pid if victim == 'starter' else int(fields[1]), signal.SIGKILL)
        wait_for(lambda: not any(alive(pid) for pid in [*pids, training]))
        assert len(list(tmp_path.glob('saved*'))) == n, 'each has saved before it ended'
    finally:
        starter.kill()
        starter.wait()


def test_a_training_that_is_killed_leaves_no_process(tmp_path):
    training = Training(chain_jobs.stay, (str(tmp_path),), Setup(tmp_path / 'log.txt'))
    pids = wait_for(lambda: processes(tmp_path, 1))
    training.kill()
    assert training.wait(60) and training.exit_status == -9
    wait_for(lambda: not any(alive(pid) for pid in pids))
