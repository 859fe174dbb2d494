"""A study's trials as a queue: each is handed to one worker, and judged or given back."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import TrialState

from bocb_mm.search.outcomes import Outcome
from bocb_mm.search.plan import Cell
from bocb_mm.search.storage import ATTRIBUTES, RUNNING, TRIALS, VALUES, WAITING, Store, now

STEPS = models.TrialIntermediateValueModel.__table__
BEATS = models.TrialHeartbeatModel.__table__
DIVERGED = float('-inf')  # a value below every other one; Optuna stores and shows it
DOWN = (sa.exc.OperationalError, sa.exc.InterfaceError, optuna.exceptions.StorageInternalError)
"""What a database raises that is away, restarting or busy."""


@dataclass(frozen=True)
class Taken:
    """A trial that is this worker's.

    Attributes:
        trial_id: Its key in the database.
        number: Its place in the study.
        cell: What is to be trained.
        failures: Attempts that failures of the machine ended.
    """

    trial_id: int
    number: int
    cell: Cell
    failures: int = 0


class Queue(Store):
    """A study as its workers see it; arguments as :class:`Store`.

    Every change of a trial's state is one transaction that begins by writing to the trial's row,
    which locks it in SQLite and PostgreSQL alike.
    """

    def take(self, worker: str) -> Taken | None:
        """Make the first waiting trial this worker's own; ``None`` when none waits."""
        query = (
            sa.select(TRIALS.c.trial_id)
            .where(TRIALS.c.study_id == self.study_id, TRIALS.c.state == WAITING)
            .order_by(TRIALS.c.trial_id)
            .limit(32)
        )
        while True:
            with self.engine.connect() as connection:
                candidates = connection.execute(query).scalars().all()
            if not candidates:
                return None
            for trial_id in candidates:
                with self.engine.begin() as connection:
                    got = connection.execute(
                        sa.update(TRIALS)
                        .where(TRIALS.c.trial_id == trial_id, TRIALS.c.state == WAITING)
                        .values(state=RUNNING, datetime_start=now())
                    )
                    if got.rowcount == 1:
                        self._set(connection, trial_id, {'worker': worker})
                        self._beat(connection, [trial_id])
                        return self._taken(connection, trial_id)

    def beat(self, trial_ids: Sequence[int]) -> None:
        """Give a sign of life for trials."""
        with self.engine.begin() as connection:
            self._beat(connection, trial_ids)

    def finish(
        self,
        taken: Taken,
        worker: str,
        outcome: Outcome,
        value: float | None = None,
        steps: Mapping[int, float] | None = None,
        **notes: Any,
    ) -> bool:
        """Write down how a trial ended for good.

        Args:
            taken: The trial.
            worker: Whose it is.
            outcome: How it ended.
            value: Result of a completed trial.
            steps: Results after epochs.
            **notes: Further attributes, e.g. ``message``.

        Returns:
            False if the trial is no longer this worker's; then nothing was written.
        """
        state = TrialState.COMPLETE
        if outcome.name == 'diverged':
            value = DIVERGED
        elif outcome.name == 'pruned':
            state = TrialState.PRUNED
        elif outcome.name != 'completed':
            state, value = TrialState.FAIL, None
        with self._mine(taken, worker) as connection:
            if connection is None:
                return False
            self._end(connection, taken.trial_id, state)
            if value is not None:
                number, kind = models.TrialValueModel.value_to_stored_repr(value)
                row = {'trial_id': taken.trial_id, 'objective': 0}
                connection.execute(
                    sa.insert(VALUES), [{**row, 'value': number, 'value_type': kind}]
                )
            self._report(connection, taken.trial_id, steps or {})
            self._set(connection, taken.trial_id, {'outcome': outcome.name, **notes})
        return True

    def report(self, taken: Taken, steps: Mapping[int, float]) -> None:
        """Write down results after epochs of a trial that goes on."""
        with self.engine.begin() as connection:
            self._report(connection, taken.trial_id, steps)

    def give_back(
        self, taken: Taken, worker: str, outcome: Outcome, retries: int | None, message: str = ''
    ) -> bool:
        """Let a trial wait again; fail it when it has had its retries.

        Args:
            taken: The trial.
            worker: Whose it is.
            outcome: How the attempt ended.
            retries: Attempts after the first one; ``None``: this attempt does not count.
            message: Why it ended.

        Returns:
            Whether it waits again.
        """
        failures = taken.failures + (retries is not None)
        with self._mine(taken, worker) as connection:
            if connection is None:
                return False
            over = retries is not None and failures > retries
            note = {'message': message[:2000], 'failures': failures}
            if over:
                self._end(connection, taken.trial_id, TrialState.FAIL)
                note['outcome'] = outcome.name
            else:
                connection.execute(
                    sa.update(TRIALS)
                    .where(TRIALS.c.trial_id == taken.trial_id)
                    .values(state=WAITING, datetime_start=None)
                )
                connection.execute(sa.delete(BEATS).where(BEATS.c.trial_id == taken.trial_id))
            self._set(connection, taken.trial_id, note)
        return not over

    def silent(self, seconds: float) -> list[tuple[Taken, str, bool]]:
        """Running trials: each with its worker, and whether it gave no sign of life for so long."""
        with self.engine.connect() as connection:
            now = connection.execute(sa.select(sa.func.now())).scalar_one().replace(tzinfo=None)
            rows = connection.execute(
                sa.select(TRIALS.c.trial_id, BEATS.c.heartbeat)
                .outerjoin(BEATS, BEATS.c.trial_id == TRIALS.c.trial_id)
                .where(TRIALS.c.study_id == self.study_id, TRIALS.c.state == RUNNING)
            ).all()
            limit = datetime.timedelta(seconds=seconds)
            return [
                (
                    self._taken(connection, row.trial_id),
                    self._attributes(connection, row.trial_id).get('worker', ''),
                    row.heartbeat is None or now - row.heartbeat > limit,
                )
                for row in rows
            ]

    def steps_of_pair(self, pair: tuple[str, str]) -> dict[int, dict[int, float]]:
        """Results after epochs of all trials of a pair, by trial."""
        with self.engine.connect() as connection:
            cells = {
                trial_id: Cell.loads(json.loads(text))
                for trial_id, text in self._attribute(connection, 'cell')
            }
            rows = connection.execute(
                sa.select(STEPS.c.trial_id, STEPS.c.step, STEPS.c.intermediate_value)
                .join(TRIALS, TRIALS.c.trial_id == STEPS.c.trial_id)
                .where(TRIALS.c.study_id == self.study_id)
            ).all()
        found: dict[int, dict[int, float]] = {}
        for row in rows:
            if cells[row.trial_id].pair == pair and row.intermediate_value is not None:
                found.setdefault(row.trial_id, {})[row.step] = row.intermediate_value
        return found

    def counts(self) -> dict[TrialState, int]:
        """Number of trials in each of Optuna's states."""
        query = (
            sa.select(TRIALS.c.state, sa.func.count())
            .where(TRIALS.c.study_id == self.study_id)
            .group_by(TRIALS.c.state)
        )
        with self.engine.connect() as connection:
            found: dict[TrialState, int] = dict(connection.execute(query).tuples().all())
        return {state: found.get(state, 0) for state in TrialState}

    # -- inside a transaction ---------------------------------------------------------------

    def _taken(self, connection: sa.Connection, trial_id: int) -> Taken:
        told = self._attributes(connection, trial_id)
        number = connection.execute(
            sa.select(TRIALS.c.number).where(TRIALS.c.trial_id == trial_id)
        ).scalar_one()
        return Taken(trial_id, number, Cell.loads(told['cell']), int(told.get('failures', 0)))

    @contextmanager
    def _mine(self, taken: Taken, worker: str) -> Iterator[sa.Connection | None]:
        """A transaction on a trial that is running and this worker's; else it gives None."""
        with self.engine.begin() as connection:
            locked = connection.execute(
                sa.update(TRIALS)
                .where(TRIALS.c.trial_id == taken.trial_id, TRIALS.c.state == RUNNING)
                .values(number=taken.number)
            )
            told = self._attributes(connection, taken.trial_id) if locked.rowcount else {}
            yield connection if told.get('worker') == worker else None

    def _end(self, connection: sa.Connection, trial_id: int, state: TrialState) -> None:
        connection.execute(
            sa.update(TRIALS)
            .where(TRIALS.c.trial_id == trial_id)
            .values(state=state, datetime_complete=now())
        )

    def _beat(self, connection: sa.Connection, trial_ids: Sequence[int]) -> None:
        if trial_ids:
            connection.execute(sa.delete(BEATS).where(BEATS.c.trial_id.in_(trial_ids)))
            connection.execute(
                sa.insert(BEATS).values(heartbeat=sa.func.now()),
                [{'trial_id': i} for i in trial_ids],
            )

    def _set(self, connection: sa.Connection, trial_id: int, told: Mapping[str, Any]) -> None:
        mine = ATTRIBUTES.c.trial_id == trial_id
        connection.execute(sa.delete(ATTRIBUTES).where(mine, ATTRIBUTES.c.key.in_(list(told))))
        rows = [
            {'trial_id': trial_id, 'key': k, 'value_json': json.dumps(v)} for k, v in told.items()
        ]
        connection.execute(sa.insert(ATTRIBUTES), rows)

    def _report(self, connection: sa.Connection, trial_id: int, steps: Mapping[int, float]) -> None:
        if not steps:
            return
        mine = STEPS.c.trial_id == trial_id
        connection.execute(sa.delete(STEPS).where(mine, STEPS.c.step.in_(list(steps))))
        represent = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
        rows = []
        for step, value in steps.items():
            number, kind = represent(value)
            rows.append(
                {'trial_id': trial_id, 'step': step, 'intermediate_value': number}
                | {'intermediate_value_type': kind}
            )
        connection.execute(sa.insert(STEPS), rows)
