"""Studies of trials without torch, drivers as processes, and what the trials said."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # where trainings find their functions: processes import `plain`
import plain  # noqa: E402


@pytest.fixture
def make_study(tmp_path):
    """Creates a study of one pair with a row of rates."""

    def make(rates, seeds=(0,), folder='study', **settings):
        from bocb_mm.search.plan import Cell, Plan
        from bocb_mm.search.study import Study

        cells = tuple(Cell('net.py', 'SGD', float(lr), 0.0, s) for s in seeds for lr in rates)
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        plan = Plan(cells, **settings)
        plan.save(place)
        return Study(place, plan)

    return make


@pytest.fixture
def own_tmp(monkeypatch):
    """A temporary folder with a name as short as Ray needs it."""
    folder = tempfile.mkdtemp(prefix='t', dir='/tmp')
    monkeypatch.setattr(tempfile, 'tempdir', folder)
    monkeypatch.setenv('TMPDIR', folder)  # for processes
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # processes of a killed Ray may still write


@pytest.fixture
def drive():
    """Starts a driver's process: ``drive(study, 'counting', jobs=2)``."""
    started = []

    def start(study, train='counting', jobs=2, address=''):
        # pytest may have been started in the background, where SIGINT is ignored.
        argv = [sys.executable, str(HERE / 'plain.py'), str(study.directory), train, str(jobs)]
        log = (study.directory.parent / 'driver.log').open('a')
        process = subprocess.Popen(
            [*argv, *([address] if address else [])], stdout=log, stderr=log,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture
def hold(tmp_path):
    """Keeps trials at their tenth step until it is released."""
    file = tmp_path / 'study' / 'hold'

    def take():
        file.parent.mkdir(exist_ok=True)
        file.touch()

    take()
    take.release = file.unlink
    take.again = take
    return take


@pytest.fixture
def diary(tmp_path):
    """What trials said: lines ``rate seed what...``, and how often each did it."""

    def read(folder='study'):
        file = tmp_path / folder / 'diary.txt'
        return file.read_text().splitlines() if file.exists() else []

    def count(word, folder='study'):
        return Counter(tuple(line.split()[:2]) for line in read(folder) if line.split()[2] == word)

    read.count = count
    return read


@pytest.fixture
def wait_for():
    """Waits until something is so, and returns it."""

    def wait(so, seconds=400, why=lambda: ''):  # a busy machine
        until = time.monotonic() + seconds
        while not (found := so()):
            assert time.monotonic() < until, f'it never came to that: {why()}'
            time.sleep(0.02)
        return found

    return wait


def owner(study, cell):
    """Process of a trial that trains, by the lock of its directory; 0 where there is none."""
    from bocb_mm.runs import lock

    directory = study.directory_of(cell)
    try:
        words = (directory / lock.FILE_NAME).read_text().split()
    except OSError:
        return 0
    return int(words[1]) if len(words) > 1 and lock.is_held(directory) else 0


def descendants(pid):
    """Processes below one, each with its name and command."""
    found, todo = {}, [pid]
    while todo:
        for task in Path(f'/proc/{todo.pop()}/task').glob('*/children'):
            try:
                children = task.read_text().split()
            except OSError:
                continue
            for child in children:
                try:
                    command = (
                        Path(f'/proc/{child}/cmdline').read_bytes().replace(b'\0', b' ').decode()
                    )
                    name = Path(f'/proc/{child}/comm').read_text().strip()
                except OSError:
                    continue
                found[int(child)] = (name, command)
                todo.append(int(child))
    return found


@pytest.fixture
def undisturbed():
    """Asserts that a study's table is that of a study that nobody disturbed."""

    def check(study, diary=None):
        rows = study.rows()
        assert {row.cell: (row.column, row.value) for row in rows} == {
            row.cell: ('done', plain.result(row.cell.lr)) for row in rows
        }, [row for row in rows if row.column != 'done']
        if diary is not None:
            lines = diary()
            for row in rows:
                mine = [
                    w.split() for w in lines if w.startswith(f'{row.cell.lr:g} {row.cell.seed} ')
                ]
                # Each attempt goes on where one before it has saved, and one of them ends.
                assert [w[2] for w in mine].count('ended') == 1, mine

    return check


def alive(pid):
    """Whether a process lives."""
    try:
        state = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    except OSError:
        return False
    return state not in 'ZX'


@pytest.fixture(scope='session', autouse=True)
def no_usage_statistics():
    os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
