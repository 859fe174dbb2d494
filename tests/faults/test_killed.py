"""Death at any moment, and two processes in one directory."""

import os
import random
import signal
import socket
import time
from pathlib import Path

import pytest
import torch

from bocb_mm.checkpoints.read import load_checkpoint
from bocb_mm.errors import UserError
from bocb_mm.resume.find import find_resumable
from bocb_mm.runs import lock
from tests.fork_server import fork_server

HERE = Path(__file__).resolve().parent
KILLS, EPOCHS = 20, 30  # 180 iterations, a checkpoint every second one


@pytest.fixture(scope='module')
def forks():
    """Processes that start in milliseconds, mmengine loaded."""
    with fork_server(HERE / 'victim.py', 'BOCB_WARM_VICTIM') as found:
        yield found


def start(forks, *args, **kwargs):
    context, victim = forks
    process = context.Process(target=victim.train, args=args, kwargs=kwargs)
    process.start()
    return process


def iteration_of(work_dir) -> int:
    """How far the directory has come; what ``last_checkpoint`` names must be whole."""
    pointer = Path(work_dir, 'last_checkpoint')
    if pointer.exists():
        load_checkpoint(pointer.read_text())
    path = find_resumable(work_dir)
    return 0 if path is None else load_checkpoint(path)['meta']['iter']


@pytest.fixture(scope='module')
def whole(forks, tmp_path_factory):
    """Final weights of runs that nobody interrupts, by number of epochs."""
    done = {}

    def train(epochs):
        if epochs not in done:
            directory = tmp_path_factory.mktemp('whole')
            process = start(forks, str(directory), epochs, 1)
            process.join()
            assert process.exitcode == 0
            done[epochs] = torch.load(directory / 'final')
        return done[epochs]

    return train


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.timeout(900)
def test_killed_at_20_random_moments_it_always_resumes_and_ends_the_same(forks, whole, tmp_path):
    moments = random.Random(8)
    context, _ = forks
    kills = runs = 0
    while kills < KILLS:
        directory, done = tmp_path / str(runs), 0
        while not (directory / 'final').exists():
            started = context.Event()
            process = start(forks, str(directory), EPOCHS, 2, started=started)
            if kills < KILLS:
                while process.is_alive() and not started.wait(0.05):
                    pass
                time.sleep(moments.uniform(0, 0.4))
                process.kill()
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL)
            kills += process.exitcode != 0
            before, done = done, iteration_of(directory)
            assert done >= before, 'a checkpoint was lost'
        assert same(torch.load(directory / 'final'), whole(EPOCHS))
        assert len(list(directory.glob('*.pth'))) == 2
        assert not list(directory.glob('.*.tmp')), 'leftovers of killed saves'
        runs += 1


# One save with max_keep_ckpts=1: flush and rename the file, flush the directory; the same three
# for last_checkpoint; delete the old file. The calls 8 to 14 are those of the second save.
@pytest.mark.parametrize('call', range(8, 15))
def test_killed_between_any_two_steps_of_a_save(call, forks, whole, tmp_path):
    process = start(forks, str(tmp_path), 2, 1, die_before=call)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert iteration_of(tmp_path) in (2, 4), 'at most the save under way is lost'
    process = start(forks, str(tmp_path), 2, 1)
    process.join()
    assert process.exitcode == 0
    assert same(torch.load(tmp_path / 'final'), whole(2))
    assert [p.name for p in tmp_path.glob('*.pth')] == ['iter_12.pth']


def test_a_second_run_is_refused_and_a_dead_one_does_not_hold_the_lock(forks, tmp_path):
    context, victim = forks
    held = context.Event()
    process = context.Process(target=victim.hold_lock, args=(str(tmp_path), held))
    process.start()
    assert held.wait(60)
    with pytest.raises(UserError, match=f'process {process.pid} on .* is training here'):
        lock.acquire(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    lock.acquire(tmp_path)  # its child still lives
    lock.acquire(tmp_path)  # a process has it once
    lock.release(tmp_path)


def test_two_trainings_started_together_leave_one(forks, whole, tmp_path):
    context, _ = forks
    started = context.Event()
    first = start(forks, str(tmp_path), EPOCHS, 1, started=started)
    assert started.wait(60)
    second = start(forks, str(tmp_path), EPOCHS, 1)
    second.join()
    assert second.exitcode == 1
    first.join()
    assert first.exitcode == 0
    assert same(torch.load(tmp_path / 'final'), whole(EPOCHS))


def test_a_signal_to_one_of_two_processes_stops_both_and_they_go_on_bit_equal(forks, tmp_path):
    context, victim = forks

    def together(directory, send_at=0):
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = probe.getsockname()[1]
        both = [
            context.Process(
                target=victim.train_together,
                args=(rank, port, str(directory), send_at if rank == 1 else 0),
            )
            for rank in (0, 1)
        ]
        for process in both:
            process.start()
        for process in both:
            process.join(240)
        return [process.exitcode for process in both]

    assert together(tmp_path / 'whole') == [0, 0]
    assert together(tmp_path / 'cut', send_at=5) == [75, 75]
    assert find_resumable(tmp_path / 'cut').name == 'iter_6.pth'
    assert together(tmp_path / 'cut') == [0, 0]
    assert same(torch.load(tmp_path / 'cut' / 'final'), torch.load(tmp_path / 'whole' / 'final'))


@pytest.fixture
def nobody():
    """Permissions bind root only when it is not root."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        yield
        os.seteuid(0)
    else:
        yield


def test_a_read_only_work_directory_is_one_clear_line(tmp_path_factory, nobody):
    directory = Path('/')  # nobody may write there
    with pytest.raises(UserError, match='cannot be written .*; give another --work-dir'):
        lock.acquire(directory / 'runs')
    assert not (directory / 'runs').exists()
