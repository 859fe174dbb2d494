"""A training in a clean process of its own: the search and the chain both train so.

The process is forked by a server that has imported the toolboxes and never computes
(:mod:`bocb_mm.launch.preload`), so it starts in no time, nothing it does harms the next one, and
its memory is free when it ends. A training of several processes is torchrun in such a process.
Nothing is left behind: who starts a training may die in any way, the training saves and ends.
"""

from __future__ import annotations

import base64
import ctypes
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection, forkserver
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, NoReturn

from bocb_mm.compat import stay_on_cpu
from bocb_mm.errors import UserError
from bocb_mm.launch.leaving import leave
from bocb_mm.runs import exit_codes

LOG_FILE = 'log.txt'
MOST_THREADS = 4  # more threads slow small networks down
ASK = signal.SIGUSR1  # to save and end: unlike a second SIGTERM, a second one changes nothing
GRACE_SECONDS = 600  # for a training to save after who started it has died
_PR_SET_PDEATHSIG = 1
_PRELOAD = ['bocb_mm.launch.preload']
_OF_SEVERAL = 'bocb_mm.launch.attempt'
TOLD = 'BOCB_ATTEMPT'
"""Variable that tells one of several processes what to run."""

Body = Callable[..., int]
"""Trains, and returns an exit status of :mod:`bocb_mm.runs.exit_codes`, or raises."""


def status_of(error: BaseException) -> int:
    """Exit status of a training that an exception ended."""
    return exit_codes.USER_ERROR if isinstance(error, UserError) else exit_codes.FAILED


@dataclass(frozen=True)
class Setup:
    """Where and how a training's process runs.

    Attributes:
        log: The file that all output goes to, at its end; its directory is made.
        folder: Working directory; ``''`` for that of who starts it.
        devices: ``CUDA_VISIBLE_DEVICES`` of the training; ``'-1'``: it stays on the CPU; ``None``:
            as in who starts it.
        threads: Threads to compute with.
        processes: More than one: so many under torchrun, each of which runs the body.
        environment: Variables to set.
        status_of: Exit status of an exception.
    """

    log: Path
    folder: str = ''
    devices: str | None = None
    threads: int = 1
    processes: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    status_of: Callable[[BaseException], int] = status_of


def warm_up(toolboxes: Iterable[str] = ()) -> None:
    """Start the server that trainings are forked from; it imports while this process goes on.

    Args:
        toolboxes: What it imports, with torch; nothing without one. Those of the first call count.
    """
    # It is told by variables: this process may have put folders on its path in any way.
    told = {
        'PYTHONPATH': search_path(),
        'BOCB_PRELOAD': ' '.join(toolboxes),
        # Asking CUDA itself whether it is there would make it unusable in forked processes.
        'PYTORCH_NVML_BASED_CUDA_CHECK': '1',
        'OMP_NUM_THREADS': '1',  # a pool of threads would not survive the fork
        'MKL_NUM_THREADS': '1',
    }
    forkserver.set_forkserver_preload(_PRELOAD)
    with variables(told), _nameless_main():
        forkserver.ensure_running()


@contextmanager
def variables(told: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for processes that are started within the block."""
    before = {key: os.environ.get(key) for key in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})


def search_path() -> str:
    """Where this process finds modules, as ``PYTHONPATH``."""
    return os.pathsep.join(filter(None, sys.path))


def children() -> dict[int, str]:
    """Processes of this one that live, by number, with their names (Linux)."""
    found = {}
    for task in Path('/proc/self/task').glob('*/children'):
        with suppress(OSError):
            for pid in task.read_text().split():
                state = Path(f'/proc/{pid}/stat').read_text(errors='replace')
                name, _, rest = state.partition('(')[2].rpartition(')')
                if rest.split()[0] not in 'ZX':
                    found[int(pid)] = name
    return found


def start_method(devices: str | None) -> str:
    """How a training's process is started: forked from the warm server, or new for MIG slices.

    To look for a slice initialises CUDA, after which no fork can use it.

    Example:
        >>> start_method('0,1'), start_method('MIG-7a1f'), start_method(None)
        ('forkserver', 'spawn', 'forkserver')
    """
    return 'spawn' if devices is not None and 'MIG' in devices else 'forkserver'


class Training:
    """A training in a process of its own, which starts at once.

    Args:
        body: Trains; a function that can be imported.
        args: Its arguments; they are pickled.
        setup: Where and how.
        toolboxes: For :func:`warm_up`, where no server runs yet.

    Example:
        >>> training = Training(train_job, (job,), Setup(folder / 'log.txt'))  # doctest: +SKIP
        >>> training.wait(), training.exit_status, training.message  # doctest: +SKIP
        (True, 0, '')
    """

    def __init__(
        self, body: Body, args: tuple[Any, ...], setup: Setup, toolboxes: Iterable[str] = ()
    ) -> None:
        method = start_method(setup.devices)
        if method == 'forkserver':
            warm_up(toolboxes)
        context: Any = multiprocessing.get_context(method)
        self._told, tell = context.Pipe(duplex=False)
        self._process = context.Process(target=_child, args=(tell, setup, body, args))
        self._started = time.monotonic()
        with _nameless_main():
            self._process.start()
        tell.close()
        self.pid: int = self._process.pid
        self.message = ''
        self.seconds = self.cpu_seconds = 0.0
        self.exit_status: int | None = None

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for its end, at most so long; whether it has ended.

        Then ``exit_status`` (negative: the signal that ended it), ``message`` (one line on why it
        failed), ``seconds`` and ``cpu_seconds`` are known.
        """
        self._process.join(seconds)
        if self._process.exitcode is None:
            return False
        if self.exit_status is None:
            self.seconds = time.monotonic() - self._started
            self.exit_status = self._process.exitcode
            with suppress(EOFError, OSError):  # one that was killed said nothing
                if self._told.poll():
                    self.message, self.cpu_seconds = self._told.recv()
            self._told.close()
        return True

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has no group of its own yet
                os.kill(self.pid, signal.SIGKILL)


@contextmanager
def _nameless_main() -> Iterator[None]:
    """Keep multiprocessing from running the main script again in each process it starts."""
    main = sys.modules['__main__']
    sys.modules['__main__'] = types.ModuleType('__main__')
    try:
        yield
    finally:
        sys.modules['__main__'] = main


# -- in the training's process ------------------------------------------------------------------


def _child(
    tell: connection.Connection, setup: Setup, body: Body, args: tuple[Any, ...]
) -> NoReturn:
    """All that the process does; it never returns."""
    status, line = exit_codes.FAILED, ''
    try:
        os.setsid()  # Ctrl-C is for who started it
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # Ray blocks SIGINT in all that it starts
        end_with_parent()
        threading.Thread(target=_end_with_starter, daemon=True).start()
        _prefer_for_oom_killer()
        setup.log.parent.mkdir(parents=True, exist_ok=True)
        _log_to(setup.log)
        _settle(setup)
        if setup.processes > 1:
            status = _run_several(setup, body, args)
            line = last_line(setup.log) if status else ''
        else:
            status = body(*args)
    except BaseException as error:
        status, line = report(error, setup.status_of)
    finally:
        with suppress(Exception):  # who started it may be gone
            tell.send((line[:2000], _cpu_seconds()))
        leave(status)


def report(error: BaseException, status_of: Callable[[BaseException], int]) -> tuple[int, str]:
    """Print what ended a training; returns its exit status and one line on it."""
    own = isinstance(error, UserError)
    line = ' '.join((str(error) if own else f'{type(error).__name__}: {error}').split())
    with suppress(OSError, ValueError):  # the disk may be full
        if own:
            print(f'error: {line}', flush=True)
        else:
            traceback.print_exc()
    return status_of(error), line


def end_with_parent() -> None:
    """Be asked to end when the parent process dies, however it dies (Linux)."""
    if sys.platform == 'linux':
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, ASK)


def _end_with_starter() -> None:
    """Ask this process to end when the one that started it is gone; its parent is the server."""
    starter = multiprocessing.parent_process()
    assert starter is not None
    starter.join()
    os.kill(os.getpid(), ASK)
    time.sleep(GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _prefer_for_oom_killer() -> None:
    """When memory runs out, the kernel ends the training rather than who started it."""
    with suppress(OSError):
        Path('/proc/self/oom_score_adj').write_text('500', encoding='ascii')


def _log_to(path: Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    # The streams need not be those two: a notebook and a test runner have their own.
    sys.stdout = os.fdopen(1, 'w', buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, 'w', buffering=1, closefd=False)


def _settle(setup: Setup) -> None:
    """Folder, variables, devices and threads."""
    if setup.folder:
        os.chdir(setup.folder)
    os.environ.update(setup.environment)
    tempfile.tempdir = None  # TMPDIR may be among them
    if setup.devices == '-1':
        stay_on_cpu()
    elif setup.devices is not None:
        os.environ['CUDA_VISIBLE_DEVICES'] = setup.devices
    os.environ['OMP_NUM_THREADS'] = str(setup.threads)  # of processes that this one starts
    torch = sys.modules.get('torch')
    if torch is not None:
        torch.set_num_threads(setup.threads)


def _run_several(setup: Setup, body: Body, args: tuple[Any, ...]) -> int:
    """Run the body in several processes under torchrun."""
    from bocb_mm.launch import torchrun

    os.environ['PYTHONPATH'] = search_path()
    told = body, args, setup.threads, setup.status_of
    os.environ[TOLD] = base64.b64encode(ForkingPickler.dumps(told)).decode('ascii')
    # torchrun passes SIGTERM on, and takes a second one for the order to drop everything.
    asked: list[int] = []

    def ask_once(*_: Any) -> None:
        if not asked:
            asked.append(1)
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(ASK, ask_once)
    number = str(setup.processes)
    return torchrun.main(['--standalone', '--nproc_per_node', number, '-m', _OF_SEVERAL])


def last_line(log: Path) -> str:
    """The last line of a file; ``''`` where there is none."""
    try:
        lines = log.read_text(encoding='utf-8', errors='replace').strip().splitlines()
    except OSError:
        lines = []
    return lines[-1].removeprefix('error: ') if lines else ''


def _cpu_seconds() -> float:
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)
