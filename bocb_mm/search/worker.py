"""A worker: takes trials one after the other and forks a process for each.

It has one thread and one loop, which waits for a child to end, a signal, or the next sign of life
to be due. Nothing but the fork is shared with a training, so nothing it does harms the next one.
"""

from __future__ import annotations

import functools
import gc
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bocb_mm.errors import UserError
from bocb_mm.runs import exit_codes
from bocb_mm.runs.record import RunRecord
from bocb_mm.search import directory, trial
from bocb_mm.search.halving import falls_behind
from bocb_mm.search.machine import is_dead, worker_name
from bocb_mm.search.outcomes import BY_NAME, of_exit
from bocb_mm.search.queue import DOWN, RUNNING, WAITING, Queue, Taken

_T = TypeVar('_T')
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SILENT_BEATS = 4  # so many signs of life missed, and a worker counts as lost
LOOK_SECONDS = 1.0  # between two looks at records to halve, or for trials to take
PATIENCE = 3600.0  # seconds a worker waits for a database that is away
MOST_REST = 300.0  # seconds without a new trial after failures of the machine


@dataclass
class Child:
    """A trial's process.

    Attributes:
        taken: The trial.
        task: What it was told.
        pid: Its process.
        error_pipe: Where it says why it failed.
        slot: GPU or core it runs on.
        started: Monotonic time of its start.
        pruned: Halving has ended it.
        steps: Its results after epochs, as far as they were told the database.
        cpu_seconds: Processor time it took.
    """

    taken: Taken
    task: trial.Task
    pid: int
    error_pipe: int
    slot: str
    started: float = field(default_factory=time.monotonic)
    pruned: bool = False
    steps: dict[int, float] = field(default_factory=dict)
    cpu_seconds: float = 0.0


class Worker:
    """Takes a study's trials until none is left.

    Args:
        store: The study.
        slots: One name a training at a time; a GPU's number where ``gpus``.
        gpus: Whether slots are GPUs.
        threads: Threads of a training.
        train: What trains; tests give their own.
        most: Trials to take before it ends; ``None`` for no limit.
        seconds: Seconds before it ends as on SIGTERM; ``None`` for no limit.
        linger: Stay while other workers train, to take over what they might lose.
        say: Prints a line.

    Example:
        >>> Worker(store, slots=['0'], gpus=True).run()  # doctest: +SKIP
    """

    def __init__(
        self,
        store: Queue,
        slots: Sequence[str] = ('cpu',),
        gpus: bool = False,
        threads: int = 1,
        train: trial.Train = trial.train_cell,
        most: int | None = None,
        seconds: float | None = None,
        linger: bool = True,
        say: Callable[[str], None] = print,
    ) -> None:
        self.store, self.plan = store, store.plan
        self.slots, self.gpus, self.threads = list(slots), gpus, threads
        self.train, self.linger, self.say = train, linger, say
        self.left = sys.maxsize if most is None else most
        self.until = time.monotonic() + (float('inf') if seconds is None else seconds)
        self.name = worker_name()
        self.children: dict[int, Child] = {}
        self.signals = 0  # how often it was asked to end
        self.next_beat = 0.0
        self.steady_since = time.monotonic()  # since when the database has answered in time
        self.waits_said = False
        self.failures = 0  # of the machine, one after the other
        self.rest_until = 0.0
        self.process = os.getpid()

    # -- the loop ---------------------------------------------------------------------------

    def run(self) -> int:
        """Work until nothing is left, the limit is reached, or a signal comes.

        Returns:
            An exit status of :mod:`bocb_mm.runs.exit_codes`: completed or interrupted.

        Raises:
            UserError: The study's directory holds runs of another study, or the database stayed
                away.
        """
        # What is imported is never collected; to look at it, and so to copy it, would cost every
        # forked training two seconds.
        gc.collect()
        gc.freeze()
        directory.claim(self.plan.work_dir, self.store.place.name, self.plan.identity)
        before = {s: signal.signal(s, self._on_signal) for s in _SIGNALS}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        self.wake, waker = os.pipe()
        os.set_blocking(waker, False)
        os.set_blocking(self.wake, False)
        woken_before = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        try:
            while self._advance():
                self._sleep()
        finally:
            self._abandon()
            signal.set_wakeup_fd(woken_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self.wake)
            os.close(waker)
        return exit_codes.INTERRUPTED if self.signals else exit_codes.COMPLETED

    def _advance(self) -> bool:
        """Collect what ended, give signs of life, start what can; False when it is over."""
        self._collect()
        if time.monotonic() > self.until and not self.signals:
            self.say('time limit: ending the trainings')
            self._on_signal(signal.SIGTERM)
        self._beat()
        if not self.signals:
            self._halve()
            self._fill()
        if self.children:
            return True
        if self.signals or self.left <= 0:
            return False
        counts = self._patiently(self.store.counts)
        busy = counts[RUNNING]
        if not counts[WAITING] and (not busy or not self.linger):
            return False
        if busy and not self.waits_said:
            self.say(f'nothing waits; staying while other workers train {busy}')
            self.waits_said = True
        return True

    def _sleep(self) -> None:
        """Until a child ends, a signal comes or something is due."""
        due = min(self.next_beat, self.until) - time.monotonic()
        poll = LOOK_SECONDS if self.plan.halving or not self.children else due
        select.select([self.wake], [], [], max(0.0, min(due, poll)))
        try:
            os.read(self.wake, 4096)
        except BlockingIOError:
            return

    # -- children ---------------------------------------------------------------------------

    def _fill(self) -> None:
        """Start a trial in every free slot."""
        if time.monotonic() < self.rest_until:
            return
        free = [s for s in self.slots if s not in {c.slot for c in self.children.values()}]
        for slot in free:
            if self.left <= 0 or self.signals:
                return
            taken = self._patiently(lambda: self.store.take(self.name))
            if taken is None:
                return
            self.left -= 1
            self._start(taken, slot)

    def _start(self, taken: Taken, slot: str) -> None:
        task = trial.Task(
            taken.cell,
            self.plan,
            taken.cell.directory(self.plan.work_dir),
            self.threads,
            slot if self.gpus else None,
        )
        error_pipe, tell = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        # A signal between the fork and its entry in `children` would not be passed on.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
            if pid:
                self.children[pid] = Child(taken, task, pid, error_pipe, slot)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if pid == 0:
            trial.run(task, self.train, tell, parent)
        os.close(tell)
        if self.signals:  # it came before the child was known
            os.kill(pid, signal.SIGUSR1)

    def _collect(self) -> None:
        """Judge the children that ended."""
        for pid, child in list(self.children.items()):
            ended, status, used = os.wait4(pid, os.WNOHANG)
            if ended:
                child.cpu_seconds = used.ru_utime + used.ru_stime
                os.set_blocking(child.error_pipe, False)
                message = _read_error(child.error_pipe)
                os.close(child.error_pipe)
                self._judge(child, os.waitstatus_to_exitcode(status), message)
                del self.children[pid]

    def _halve(self) -> None:
        """Stop trials that have fallen behind, if the study says so."""
        for child in self.children.values() if self.plan.halving else ():
            run = RunRecord.find(child.task.work_dir)
            steps = directory.steps(run) if run is not None else {}
            if child.pruned or steps == child.steps:
                continue
            child.steps = steps
            self._patiently(functools.partial(self.store.report, child.taken, steps))
            peers = self._patiently(
                functools.partial(self.store.steps_of_pair, child.taken.cell.pair)
            )
            peers.pop(child.taken.trial_id, None)
            if falls_behind(steps, peers.values(), self.plan.halving):
                child.pruned = True
                os.kill(child.pid, signal.SIGUSR1)

    def _judge(self, child: Child, status: int, message: str) -> None:
        outcome = of_exit(status)
        record = RunRecord.find(child.task.work_dir)
        value, metrics = None, {}
        if record is not None:
            message = message or record.message
            value, metrics = record.best, directory.steps(record)
        if child.pruned and outcome.retried:
            outcome, value = BY_NAME['pruned'], max(metrics.values(), default=None)
        elif outcome.name == 'completed' and value is None:
            outcome = BY_NAME['config error']
            why = 'does the config validate (val_dataloader)?'
            if record is not None and record.warnings:
                why = '; '.join(record.warnings)
            message = f'completed without a result: {why}'
        seconds = time.monotonic() - child.started
        taken = child.taken
        if outcome.retried and not self.signals:
            # A full disk or a broken GPU would use up the retries of all trials in no time.
            self.rest_until = time.monotonic() + min(2.0**self.failures, MOST_REST)
            self.failures += 1
        elif not outcome.retried:
            self.failures = 0
        if outcome.retried:
            retries = None if self.signals else self.plan.retries
            message = message or f'ended with status {status}'
            again = self._patiently(
                lambda: self.store.give_back(taken, self.name, outcome, retries, message)
            )
            then = 'waits again' if again else 'given up'
            self._said(child, f'{outcome.name}, {then}: {message}')
            return
        notes: dict[str, Any] = {'message': message[:2000], 'seconds': round(seconds, 3)}
        notes['cpu_seconds'] = round(child.cpu_seconds, 3)
        if record is not None:
            notes['last'] = record.last
        mine = self._patiently(
            lambda: self.store.finish(taken, self.name, outcome, value, metrics, **notes)
        )
        text = f'{value:.4g}' if outcome.name == 'completed' else f'{outcome.name}: {message}'
        self._said(child, text if mine else f'{text} (another worker has the trial)')

    def _said(self, child: Child, text: str) -> None:
        counts = self._patiently(self.store.counts)
        total = sum(counts.values())
        done = total - counts[WAITING] - counts[RUNNING]
        seconds = time.monotonic() - child.started
        spent = f'{seconds:.0f} s, processor {child.cpu_seconds:.0f} s'
        self.say(f'{done}/{total} {child.taken.cell}: {text} ({spent})')

    def _abandon(self) -> None:
        """End children that are left after an error of the worker's own."""
        for pid in list(self.children):
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.children.clear()

    def _on_signal(self, number: int, frame: Any = None) -> None:
        """Ask the trainings to save and end; the second time, end them."""
        if os.getpid() != self.process:  # a child that is not yet a training
            os._exit(exit_codes.INTERRUPTED)
        self.signals += 1
        for pid in list(self.children):
            # SIGUSR1, because to a training a second SIGTERM is the order to drop everything, and
            # Slurm sends the first one to worker and training alike.
            if self.signals == 1:
                os.kill(pid, signal.SIGUSR1)
            else:
                os.killpg(pid, signal.SIGKILL)

    # -- the database -----------------------------------------------------------------------

    def _patiently(self, action: Callable[[], _T]) -> _T:
        """Do something with the database; wait while it is away.

        Raises:
            UserError: It stayed away.
        """
        until, pause, said = time.monotonic() + PATIENCE, 0.1, False
        while True:
            try:
                result = action()
            except DOWN as error:
                if time.monotonic() > until:
                    raise UserError(
                        f'{self.store.place}: no answer for {PATIENCE:.0f} s; the runs are in '
                        f'{self.plan.work_dir}, start the worker again when it is back'
                    ) from error
                if not said:
                    self.say(f'the database does not answer, waiting: {_short(error)}')
                said = True
                time.sleep(pause)
                pause = min(2 * pause, 5.0)
                continue
            if said:
                self.say('the database answers again')
                self.steady_since = time.monotonic()
            return result

    def _beat(self) -> None:
        """Give signs of life for the trials that train here, and look for those that are lost."""
        if time.monotonic() < self.next_beat:
            return
        ids = [child.taken.trial_id for child in self.children.values()]
        self._patiently(lambda: self.store.beat(ids))
        self._take_back_lost()
        self.next_beat = time.monotonic() + self.plan.heartbeat

    def _take_back_lost(self) -> None:
        """Let trials wait again whose worker is gone."""
        patience = SILENT_BEATS * self.plan.heartbeat
        # After an outage of the database, other workers need time to give a sign of life as well.
        steady = time.monotonic() - self.steady_since > patience
        for taken, worker, silent in self._patiently(lambda: self.store.silent(patience)):
            dead = is_dead(worker)
            if worker == self.name or not (dead or (silent and steady)):
                continue
            outcome = BY_NAME['killed' if dead else 'lost']
            message = f'worker {worker} {"died" if dead else f"was silent for {patience:.0f} s"}'
            give_back = functools.partial(
                self.store.give_back, taken, worker, outcome, self.plan.retries, message
            )
            then = 'waits again' if self._patiently(give_back) else 'given up'
            self.say(f'{taken.cell}: {message}, {then}')


def _read_error(error_pipe: int) -> str:
    try:
        return os.read(error_pipe, 4000).decode(errors='replace')
    except BlockingIOError:  # a data worker still holds the other end
        return ''


def _short(error: BaseException) -> str:
    return ' '.join(str(error.__cause__ or error).split())[:120]
