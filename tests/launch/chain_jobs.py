"""What the trainings of a chain do in tests; processes import it."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from bocb_mm.errors import UserError
from bocb_mm.runs import exit_codes
from bocb_mm.runs.record import RunRecord


def leave_a_run(job: Any, folder: Path, pretrained: str) -> int:
    """Write what a training leaves, or fail if the job's name says so."""
    (folder / 'told.txt').write_text(pretrained)
    if job.name.startswith('bad'):
        print('first line')
        raise ValueError('no luck')
    if job.name == 'typo':
        raise UserError('config c.py: no such file')
    if job.name == 'wild':
        RunRecord('pose', 'figures', 'R-18-XS', 'SGD', status='diverged').save(folder)
        return exit_codes.DIVERGED
    record = RunRecord('classification', 'digits', 'R-18-XS', job.optimizer, status='completed')
    record.metric = 'accuracy/top1'
    record.add_evaluation(1, 10, {'accuracy/top1': 91.25})
    record.save(folder)
    (folder / 'last_checkpoint').write_text(f'{folder}/epoch_1.pth\n')
    return exit_codes.COMPLETED


def meet(job: Any, folder: Path, pretrained: str) -> int:
    """Say when it starts and ends; the first two wait for one another."""
    (folder / 'start').write_text(str(time.time()))
    partner = {'j0': 'j1', 'j1': 'j0'}.get(job.name, job.name)
    while not (folder.parent / partner / 'start').exists():  # however slow the machine is
        time.sleep(0.02)
    time.sleep(0.1)
    (folder / 'end').write_text(str(time.time()))
    return exit_codes.FAILED


# -- for test_process.py ------------------------------------------------------------------------


def report(file: str) -> int:
    """Say where and how it runs."""
    torch = sys.modules.get('torch')
    told = [
        os.getcwd(), os.environ.get('CUDA_VISIBLE_DEVICES'), os.environ.get('MINE'),
        os.environ['OMP_NUM_THREADS'], os.getpgid(0) == os.getpid(), torch is not None,
        sorted(s.name for s in signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        '__mp_main__' in sys.modules and hasattr(sys.modules['__mp_main__'], '__file__'),
    ]  # fmt: skip
    Path(file).write_text(repr(told))
    return exit_codes.COMPLETED


def end(how: str) -> int:
    """End as told."""
    print('a line', flush=True)
    if how == 'raise':
        raise ZeroDivisionError('a fault')
    if how == 'mistake':
        raise UserError('no such\n thing')
    if how == 'kill':
        os.kill(os.getpid(), signal.SIGKILL)
    if how == 'busy':
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass
    return int(how) if how.isdecimal() else exit_codes.COMPLETED


def stay(folder: str) -> int:
    """Stay until asked to end, with a process of its own; one line a process of several."""
    rank = os.environ.get('RANK', '0')
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: asked.append(1))
    # A data worker ends when its parent has ended; here by the pipe.
    read, _ = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        parent = os.getppid()
        while os.getppid() == parent:
            time.sleep(0.05)
        os._exit(0)
    temporary = Path(folder, f'.pids{rank}')
    temporary.write_text(f'{os.getpid()} {child}')
    temporary.rename(Path(folder, f'pids{rank}'))
    while not asked:
        time.sleep(0.02)
    time.sleep(0.3)  # a second signal on the way must not keep it from saving
    Path(folder, f'saved{rank}').touch()
    os.close(read)
    return exit_codes.INTERRUPTED


def start_and_wait(folder: str, processes: int, devices: str) -> None:
    """Start a training as a driver does, in a process that is going to be killed."""
    from bocb_mm.launch.process import Setup, Training

    setup = Setup(Path(folder, 'log.txt'), devices=devices, processes=processes)
    training = Training(stay, (folder,), setup)
    Path(folder, 'training').write_text(str(training.pid))
    training.wait()


if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import chain_jobs

    chain_jobs.start_and_wait(sys.argv[1], int(sys.argv[2]), sys.argv[3])
