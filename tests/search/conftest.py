"""A fork server for workers, studies of stand-in trials, and a real PostgreSQL on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.fork_server import fork_server

HERE = Path(__file__).resolve().parent


class PlainWorker:
    """A worker in a process that has no torch, with the face of a multiprocessing one."""

    def __init__(self, study):
        argv = [sys.executable, str(HERE / 'plain.py'), str(study)]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        self.pid, self.kill = self.process.pid, self.process.kill

    def is_alive(self):
        return self.process.poll() is None

    def join(self, timeout=None):
        self.process.wait(timeout)

    @property
    def exitcode(self):
        return self.process.poll()


@pytest.fixture
def plain_worker():
    """Starts a worker whose trials only say that they ran."""
    started = []

    def start(study):
        started.append(PlainWorker(study))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.fixture(scope='session')
def workers():
    """Starts workers of tiny trainings, in milliseconds: ``workers(study, slots=1)``."""
    started = []
    with fork_server(HERE / 'stand_in.py', 'BOCB_WARM_STAND_IN') as (context, stand_in):

        def start(study, slots=1):
            process = context.Process(target=stand_in.work, args=(str(study), slots))
            process.start()
            started.append(process)
            return process

        yield start
        for process in started:
            process.kill()


@pytest.fixture
def make_study(tmp_path):
    """Creates a study of one pair with a row of rates; returns its STUDY argument."""

    def make(rates, seeds=(0,), study=None, **settings):
        from bocb_mm.search.place import parse
        from bocb_mm.search.plan import Grid, Plan
        from bocb_mm.search.storage import Store

        study = study or str(tmp_path / 'study.db')
        grid = Grid('net.py', 'SGD', tuple(rates), (0.0,))
        settings = {'work_dir': str(tmp_path / 'runs'), 'heartbeat': 1.0, **settings}
        plan = Plan((grid,), tuple(seeds), **settings)
        Path(plan.work_dir).mkdir(exist_ok=True)
        store = Store(parse(study), create=True)
        store.add(list(plan.cells()), plan)
        store.save_plan(plan)
        return study

    return make


@pytest.fixture
def rows_of():
    def read(study):
        from bocb_mm.search.place import parse
        from bocb_mm.search.storage import Store

        return Store(parse(study)).rows()

    return read


@pytest.fixture
def diary(tmp_path):
    """What trials said: lines ``rate seed what...``, and how often each ran."""

    def read():
        return (tmp_path / 'runs' / 'diary.txt').read_text().splitlines()

    read.runs = lambda: Counter(tuple(line.split()[:2]) for line in read() if line.endswith(' ran'))
    read.ends = lambda: sorted(line for line in read() if ' ended ' in line)
    return read


class Server:
    """A PostgreSQL server of its own, started and stopped at will."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            self.port = probe.getsockname()[1]
        self.url = f'postgresql://bocb@127.0.0.1:{self.port}/postgres'
        self.become = []
        if os.geteuid() == 0:  # initdb refuses root
            import pwd

            user = pwd.getpwnam('nobody')
            os.chown(folder, user.pw_uid, user.pw_gid)
            self.become = [
                'setpriv',
                f'--reuid={user.pw_uid}',
                f'--regid={user.pw_gid}',
                '--clear-groups',
            ]
        self._run('initdb', '-D', 'data', '-U', 'bocb', '-A', 'trust', '--no-sync', '-E', 'UTF8')

    def _run(self, program, *argv):
        done = subprocess.run(
            [*self.become, str(self.programs / program), *argv], cwd=self.folder,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f'{program}: {done.stderr[-500:]}')

    def start(self):
        options = f'-p {self.port} -c listen_addresses=127.0.0.1 -k "" -c fsync=off'
        self._run('pg_ctl', '-D', 'data', '-w', '-l', 'log', '-o', options, 'start')

    def kill(self):
        """As if the machine had lost power."""
        self._run('pg_ctl', '-D', 'data', '-m', 'immediate', '-w', 'stop')


@pytest.fixture(scope='session')
def postgres(tmp_path_factory):
    """A running server; skips with the reason where there can be none."""
    found = sorted(Path('/usr/lib/postgresql').glob('*/bin'))
    on_path = shutil.which('initdb')
    programs = found[-1] if found else Path(on_path).parent if on_path else None
    if programs is None:
        pytest.skip('no PostgreSQL server here (apt-get install postgresql)')
    # Not below pytest's own folder, which other users may not enter.
    folder = Path('/tmp') / f'bocb_pg_{os.getpid()}'
    folder.mkdir(mode=0o755)
    try:
        try:
            server = Server(programs, folder)
            server.start()
        except (RuntimeError, OSError, KeyError) as error:
            pytest.skip(f'PostgreSQL does not start here: {error}')
        yield server
        server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def wait_for():
    """Waits until something is so."""

    def wait(so, seconds=240):  # a busy machine
        until = time.monotonic() + seconds
        while not so():
            assert time.monotonic() < until, 'it never came to that'
            time.sleep(0.02)

    return wait
