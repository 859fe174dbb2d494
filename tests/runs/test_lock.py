"""Who holds a directory's lock can be asked without taking it or losing it."""

import os
import subprocess
import sys

import pytest

from bocb_mm.runs import lock
from bocb_mm.runs.record import RunRecord, status_of

HOLD = 'import sys; from bocb_mm.runs import lock; lock.acquire(sys.argv[1]); print(1, flush=True); input()'


@pytest.fixture
def another(tmp_path, root):
    """Another process that holds the lock of ``tmp_path``."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, 'PYTHONPATH': str(root)},
    )  # fmt: skip
    assert process.stdout.readline() == b'1\n'
    yield process
    process.kill()
    process.wait()


def test_without_a_lock_file_nobody_can_tell(tmp_path):
    assert lock.is_held(tmp_path) is None and lock.is_held(tmp_path / 'gone') is None
    assert not list(tmp_path.iterdir())


def test_a_lock_of_ones_own_is_held_and_asking_does_not_lose_it(tmp_path):
    lock.acquire(tmp_path)
    assert lock.is_held(tmp_path) and lock.is_held(tmp_path)
    lock.release(tmp_path)
    assert lock.is_held(tmp_path) is False


def test_the_lock_of_another_process_is_seen_until_it_dies(tmp_path, another):
    assert lock.is_held(tmp_path) is True
    with pytest.raises(lock.DirectoryInUse, match=f'process {another.pid}'):
        lock.acquire(tmp_path)
    another.kill()
    another.wait()
    assert lock.is_held(tmp_path) is False
    lock.acquire(tmp_path)
    lock.release(tmp_path)


def test_that_the_owner_died_is_told_of_those_of_this_machine_only(tmp_path, another):
    assert not lock.owner_died(tmp_path), 'it lives'
    lock.acquire(tmp_path / 'own')
    assert not lock.owner_died(tmp_path / 'own') and lock.is_held(tmp_path / 'own')
    lock.release(tmp_path / 'own')
    assert not lock.owner_died(tmp_path / 'own'), 'it gave the lock back'
    another.kill()
    another.wait()
    assert lock.owner_died(tmp_path)
    file = tmp_path / lock.FILE_NAME
    for other in ('process 7 on another_machine\n', '', '\xff'):
        file.write_text(other, encoding='latin-1')
        assert not lock.owner_died(tmp_path)
    file.unlink()
    assert not lock.owner_died(tmp_path), 'somebody else made this folder'


def test_a_run_whose_process_is_gone_is_not_running(tmp_path, another):
    RunRecord('pose', 'coco', 'R-50', 'SGD').save(tmp_path)
    assert status_of(tmp_path) == 'running'
    another.kill()
    another.wait()
    assert status_of(tmp_path) == 'killed'
    RunRecord('pose', 'coco', 'R-50', 'SGD', status='completed').save(tmp_path)
    assert status_of(tmp_path) == 'completed'


def test_without_a_lock_file_the_record_is_believed(tmp_path):
    RunRecord('pose', 'coco', 'R-50', 'SGD').save(tmp_path)
    assert status_of(tmp_path) == 'running'
