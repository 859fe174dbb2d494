"""Whatever happens to drivers, Ray and trials: at the end the table is that of a quiet study.

All processes are real. The trials count instead of computing: a step left out or done twice shows
in the result.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from tests.search.conftest import alive, descendants, owner

RATES = (1, 2, 3, 4)
AGENTS = ('DashboardA', 'RuntimeEnv')  # names have fifteen characters


def first_trials(study, wait_for, driver, n=2):
    """Processes of n trials that are held at their tenth step."""

    def training():
        assert driver.poll() is None, (study.directory.parent / 'driver.log').read_text()[-3000:]
        found = [
            owner(study, cell) for cell in study.plan.cells if '"step": 10,' in saved(study, cell)
        ]
        found = [pid for pid in found if pid]
        return found if len(found) >= n else None

    return wait_for(training)


def saved(study, cell):
    try:
        return (study.directory_of(cell) / 'count.json').read_text()
    except OSError:
        return ''


def named(driver, word):
    """Processes below a driver whose name or command has a word in it."""
    return [pid for pid, told in descendants(driver.pid).items() if any(word in t for t in told)]


def finish(driver, study, status=0, seconds=240):
    assert driver.wait(seconds) == status, (study.directory.parent / 'driver.log').read_text()[
        -3000:
    ]


def test_trial_server_and_worker_killed(drive, make_study, hold, diary, wait_for, undisturbed):
    study = make_study(RATES, retries=5)
    driver = drive(study)
    trial, other = first_trials(study, wait_for, driver)
    os.kill(trial, signal.SIGKILL)
    server = wait_for(lambda: named(driver, 'multiprocessing.forkserver'))[0]
    wait_for(lambda: not alive(trial))
    os.kill(server, signal.SIGKILL)
    wait_for(lambda: not alive(server))
    worker = wait_for(lambda: named(driver, 'ray::_placed'))[0]
    under = [pid for pid in descendants(worker)]
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: not alive(worker))
    hold.release()
    finish(driver, study)
    undisturbed(study, diary)
    assert sum(diary.count('starts').values()) > len(RATES)
    assert sum(diary.count('interrupted').values()) >= 1, 'a trial without its server saved'
    wait_for(lambda: not any(alive(pid) for pid in [trial, other, server, worker, *under]))


@pytest.mark.parametrize('victim', ['raylet', 'gcs_server'])
def test_a_part_of_ray_killed(victim, drive, make_study, hold, diary, wait_for, undisturbed):
    study = make_study(RATES)
    driver = drive(study)
    trials = first_trials(study, wait_for, driver)
    (pid,) = named(driver, victim)[:1]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(alive(p) for p in trials))
    assert set(diary.count('interrupted').values()) == {1}, 'they saved before they ended'
    hold.release()
    finish(driver, study)
    undisturbed(study, diary)
    assert (
        f'{victim} is gone: starting Ray anew'
        in (study.directory.parent / 'driver.log').read_text()
    )


def test_the_driver_killed(drive, make_study, hold, diary, wait_for, undisturbed, own_tmp):
    study = make_study(RATES)
    driver = drive(study)
    trials = first_trials(study, wait_for, driver)
    # Ray's own agents take half a minute to notice.
    below = {p for p, told in descendants(driver.pid).items() if not told[0].endswith(AGENTS)}
    driver.kill()
    driver.wait()
    wait_for(lambda: not any(alive(pid) for pid in [*below, *trials]), why=lambda: str(below))
    assert set(diary.count('interrupted').values()) == {1}, 'they saved before they ended'
    assert len(os.listdir(own_tmp)) == 1, 'nobody was left to remove it'
    hold.release()
    finish(drive(study), study)
    undisturbed(study, diary)
    starts = [line.split()[-1] for line in diary() if ' starts ' in line]
    assert sum(start != '0' for start in starts) == 2, 'they went on from where they had saved'
    assert os.listdir(own_tmp) == [], 'the next driver clears up after it'


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_driver(number, drive, make_study, hold, diary, wait_for, undisturbed):
    study = make_study(RATES, retries=0)
    driver = drive(study)
    trials = first_trials(study, wait_for, driver)
    driver.send_signal(number)
    finish(driver, study, status=75)
    assert not any(alive(pid) for pid in trials), 'it waits until they have saved'
    assert {row.column for row in study.rows()} == {'waiting'}
    assert set(diary.count('interrupted').values()) == {1}
    if number == signal.SIGINT:  # and once more while it ends
        for file in study.directory.rglob('count.json'):
            file.unlink()  # so that they come to the tenth step again
        driver = drive(study)
        first_trials(study, wait_for, driver)
        driver.send_signal(number)
        with suppress(ProcessLookupError):
            time.sleep(0.3)
            driver.send_signal(number)
        finish(driver, study, status=75)
    hold.release()
    finish(drive(study), study)
    undisturbed(study, diary)


def test_two_drivers_at_once(drive, make_study, diary, undisturbed):
    study = make_study(range(1, 9))
    both = [drive(study) for _ in range(2)]
    for driver in both:
        finish(driver, study)
    undisturbed(study, diary)
    assert set(diary.count('starts').values()) == {1}


def test_records_and_plan_damaged(drive, make_study, diary, wait_for, undisturbed):
    study = make_study(RATES)
    finish(drive(study, 'counting'), study)
    rows = study.rows()
    for k, cell in enumerate(study.plan.cells[:2]):
        file = study.directory_of(cell) / 'run.json'
        file.write_bytes(file.read_bytes()[:100] if k else b'')
    assert [row.column for row in study.rows()] == ['waiting', 'waiting', 'done', 'done']
    plan = study.directory / 'plan.json'
    whole = plan.read_bytes()
    plan.write_bytes(whole[: len(whole) // 2])
    driver = drive(study)
    assert driver.wait(120) != 0
    log = (study.directory.parent / 'driver.log').read_text()
    assert 'cannot be read' in log and 'put the file back' in log
    plan.write_bytes(whole)
    finish(drive(study), study)
    assert study.rows() == rows or [r.value for r in study.rows()] == [r.value for r in rows]


def small_disk(folder):
    """A file system of one megabyte, or a skip with the reason."""
    folder.mkdir()
    done = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'none', str(folder)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f'no file system can be mounted here: {done.stderr.strip()}')


def test_a_full_disk(drive, make_study, wait_for, undisturbed, tmp_path):
    small_disk(tmp_path / 'study')
    try:
        study = make_study(RATES, retries=100)
        (study.directory / 'hold').touch()
        driver = drive(study)
        first_trials(study, wait_for, driver)
        filler = study.directory / 'filler'
        with suppress(OSError), filler.open('wb', buffering=0) as file:
            while True:
                file.write(bytes(4096))
        (study.directory / 'hold').unlink()
        log = study.directory.parent / 'driver.log'
        wait_for(lambda: "outcome='machine'" in log.read_text())
        assert driver.poll() is None
        filler.unlink()
        finish(driver, study)
        undisturbed(study)
    finally:
        subprocess.run(['umount', '-l', str(tmp_path / 'study')], check=True)


class Node:
    """A Ray node of its own, in a network namespace where that is permitted."""

    def __init__(self, folder, *argv):
        self.log = (folder / 'node.log').open('a')
        # Ray 2.60 with grpcio 1.85 forks a client's server, which hangs now and then otherwise.
        environment = {**os.environ, 'RAY_DISABLE_IMPORT_WARNING': '1'}
        environment['GRPC_ENABLE_FORK_SUPPORT'] = '0'
        ray = [sys.executable, '-m', 'ray.scripts.scripts', 'start', '--block', *argv]
        self.process = subprocess.Popen(
            [*ray, '--num-cpus=1', '--object-store-memory=80000000', '--disable-usage-stats'],
            stdout=self.log, stderr=self.log, env=environment, start_new_session=True,
        )  # fmt: skip

    def raylet(self):
        return [p for p, told in descendants(self.process.pid).items() if told[0] == 'raylet']

    def stop(self):
        below = [self.process.pid, *descendants(self.process.pid)]
        for pid in below:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def test_a_node_lost(drive, make_study, hold, diary, wait_for, undisturbed, tmp_path, monkeypatch):
    port = free_port()
    for name, value in {
        'RAY_health_check_period_ms': '500',
        'RAY_health_check_failure_threshold': '6',
        'RAY_AUTH_MODE': 'token',
        'RAY_AUTH_TOKEN': 'a' * 64,
    }.items():
        monkeypatch.setenv(name, value)
    nodes = []
    try:
        address = f'127.0.0.1:{port}'
        host = '--node-ip-address=127.0.0.1'
        nodes.append(Node(tmp_path, '--head', host, f'--port={port}', '--include-dashboard=false'))
        wait_for(nodes[0].raylet)
        nodes.append(Node(tmp_path, f'--address={address}', '--node-ip-address=127.0.0.2'))
        wait_for(nodes[1].raylet)
        study = make_study(RATES)
        driver = drive(study, address=address)
        first_trials(study, wait_for, driver)
        below = descendants(nodes[1].process.pid)
        assert any('ray::_placed' in word for told in below.values() for word in told)
        nodes[1].stop()
        hold.release()
        finish(driver, study)
        undisturbed(study, diary)
        outcomes = (study.directory.parent / 'driver.log').read_text()
        assert "outcome='lost'" in outcomes
    finally:
        for node in reversed(nodes):
            node.stop()


def test_a_client_of_a_ray_with_a_token(
    drive, make_study, hold, diary, wait_for, undisturbed, tmp_path, monkeypatch
):
    """As after any start of Ray by this user: the token is there, and nothing else is set."""
    monkeypatch.delenv('RAY_AUTH_MODE', raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / '.ray').mkdir()
    (tmp_path / '.ray' / 'auth_token').write_text('a' * 64)
    port, door = free_port(), free_port()
    options = [f'--port={port}', f'--ray-client-server-port={door}', '--include-dashboard=false']
    node = Node(tmp_path, '--head', '--node-ip-address=127.0.0.1', *options)
    try:
        wait_for(node.raylet)
        study = make_study(RATES, retries=0)
        driver = drive(study, address=f'ray://127.0.0.1:{door}')
        trials = first_trials(study, wait_for, driver, n=1)
        driver.send_signal(signal.SIGTERM)
        finish(driver, study, status=75)
        assert not any(alive(pid) for pid in trials), 'it waits until they have saved'
        hold.release()
        finish(drive(study, address=f'ray://127.0.0.1:{door}'), study)
        undisturbed(study, diary)
    finally:
        node.stop()
