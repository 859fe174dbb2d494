"""The study in its database: trials are put in once, handed to one worker each, and judged.

The tables are Optuna's, so that its dashboard, its plots and ``optuna.load_study`` read them. They
are written to directly where Optuna's own functions are not enough: it reads all trials to find
one that waits, adds 20,000 in several minutes, and on SQLite may hand one to two workers, because
it asks for a trial's state before it sets it (Optuna 5.0.0).
"""

from __future__ import annotations

import datetime
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy.pool import NullPool

from bocb_mm.errors import UserError
from bocb_mm.search.place import Place
from bocb_mm.search.plan import Cell, Plan

TRIALS = models.TrialModel.__table__
PARAMS = models.TrialParamModel.__table__
ATTRIBUTES = models.TrialUserAttributeModel.__table__
VALUES = models.TrialValueModel.__table__
STUDIES = models.StudyModel.__table__
WAITING, RUNNING = TrialState.WAITING, TrialState.RUNNING
PLAN_KEY = 'plan'


class Store:
    """A study's trials in the database.

    Args:
        place: Where it is kept.
        create: Make database and study where there are none.

    Raises:
        UserError: No such study, no such database, or one of another Optuna.
    """

    def __init__(self, place: Place, create: bool = False) -> None:
        self.place = place
        if not create and place.file is not None and not place.file.is_file():
            raise UserError(f'{place}: no such study; make it with tools/sweep.py create')
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # SQLite must not be open when a worker forks. A connection to a server may be: the fork
        # never uses it, and one to a server that was started again is noticed.
        engine: dict[str, Any] = {'connect_args': place.connect_args()}
        if place.file is not None:
            engine['poolclass'] = NullPool
        else:
            engine.update(pool_size=1, pool_pre_ping=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore', optuna.exceptions.ExperimentalWarning)
                self.rdb = optuna.storages.RDBStorage(place.url, engine_kwargs=engine)
        except (sa.exc.SQLAlchemyError, RuntimeError) as error:
            reason = ' '.join(str(error.__cause__ or error).split())[:300]
            raise UserError(f'{place}: cannot be opened ({reason})') from None
        self.engine = self.rdb.engine
        with self.engine.connect() as connection:
            query = sa.select(STUDIES.c.study_id).where(STUDIES.c.study_name == place.name)
            found = connection.execute(query).scalar()
        if found is None and not create:
            raise UserError(f'{place}: no such study; make it with tools/sweep.py create')
        direction = [optuna.study.StudyDirection.MAXIMIZE]
        self.study_id = int(
            self.rdb.create_new_study(direction, place.name) if found is None else found
        )
        if create and PLAN_KEY in self.rdb.get_study_user_attrs(self.study_id):
            said = 'exists already; extend it with best --extend, or take another name'
            raise UserError(f'{place}: {said}')

    # -- the plan ---------------------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """What the study consists of.

        Raises:
            UserError: The study is not one of ours.
        """
        found = self.rdb.get_study_user_attrs(self.study_id).get(PLAN_KEY)
        if found is None:
            raise UserError(
                f'{self.place}: a study of Optuna that sweep.py did not create; take another name'
            )
        return Plan.from_json(found)

    def save_plan(self, plan: Plan) -> None:
        """Write the plan down."""
        self.rdb.set_study_user_attr(self.study_id, PLAN_KEY, plan.to_json())

    def add(self, cells: Sequence[Cell], plan: Plan) -> int:
        """Put trials in, to wait for a worker; those that are there already are left out.

        Args:
            cells: The trials.
            plan: Whole plan they belong to, for the ranges that the dashboard draws.

        Returns:
            How many were added.
        """
        ranges = _distributions(plan)
        with self.engine.begin() as connection:
            lock = sa.update(STUDIES).where(STUDIES.c.study_id == self.study_id)
            connection.execute(lock.values(study_name=self.place.name))
            there = {text for _, text in self._attribute(connection, 'cell')}
            texts = [json.dumps(cell.dumps()) for cell in cells]
            new = [(c, t) for c, t in zip(cells, texts) if t not in there]
            if not new:
                return 0
            first = connection.execute(
                sa.select(sa.func.count()).where(TRIALS.c.study_id == self.study_id)
            ).scalar_one()
            rows = [
                {'number': first + k, 'study_id': self.study_id, 'state': WAITING}
                for k in range(len(new))
            ]
            returning = sa.insert(TRIALS).returning(TRIALS.c.trial_id, sort_by_parameter_order=True)
            ids = [row.trial_id for row in connection.execute(returning, rows)]
            connection.execute(
                sa.insert(ATTRIBUTES),
                [{'trial_id': i, 'key': 'cell', 'value_json': t} for i, (_, t) in zip(ids, new)],
            )
            connection.execute(
                sa.insert(PARAMS), [p for i, (c, _) in zip(ids, new) for p in _params(i, c, ranges)]
            )
        return len(new)

    # -- for summaries ----------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """Every trial as a dict.

        ``number``, ``cell``, ``state``, ``value``, ``outcome``, ``message``, ``seconds`` of its
        last attempt (to now, for a running one), its ``started`` and ``ended`` (UTC), and
        ``worker``; in the order they were added.
        """
        columns = (TRIALS.c.trial_id, TRIALS.c.number, TRIALS.c.state)
        times = (TRIALS.c.datetime_start, TRIALS.c.datetime_complete)
        mine = TRIALS.c.study_id == self.study_id
        with self.engine.connect() as connection:
            trials = connection.execute(
                sa.select(*columns, *times, VALUES.c.value, VALUES.c.value_type)
                .outerjoin(VALUES, VALUES.c.trial_id == TRIALS.c.trial_id)
                .where(mine)
                .order_by(TRIALS.c.number)
            ).all()
            told = {
                key: dict(self._attribute(connection, key))
                for key in ('cell', 'outcome', 'message', 'worker')
            }
        found = []
        for row in trials:
            value = None
            if row.value_type is not None:
                value = models.TrialValueModel.stored_repr_to_value(row.value, row.value_type)
            seconds = None
            if row.datetime_start is not None:
                seconds = ((row.datetime_complete or now()) - row.datetime_start).total_seconds()
            note: dict[str, Any] = {
                key: json.loads(texts[row.trial_id]) if row.trial_id in texts else ''
                for key, texts in told.items()
            }
            note['cell'] = Cell.loads(note['cell'])
            found.append(
                {'number': row.number, 'state': row.state, 'value': value, 'seconds': seconds}
                | {'started': row.datetime_start, 'ended': row.datetime_complete}
                | note
            )
        return found

    # -- inside a transaction---------------------------------------------------------------

    def _attribute(self, connection: sa.Connection, key: str) -> Sequence[tuple[int, str]]:
        """One attribute of all trials that have it, as JSON."""
        query = (
            sa.select(ATTRIBUTES.c.trial_id, ATTRIBUTES.c.value_json)
            .join(TRIALS, TRIALS.c.trial_id == ATTRIBUTES.c.trial_id)
            .where(TRIALS.c.study_id == self.study_id, ATTRIBUTES.c.key == key)
        )
        return connection.execute(query).tuples().all()

    def _attributes(self, connection: sa.Connection, trial_id: int) -> dict[str, Any]:
        query = sa.select(ATTRIBUTES.c.key, ATTRIBUTES.c.value_json)
        rows = connection.execute(query.where(ATTRIBUTES.c.trial_id == trial_id)).tuples()
        return {key: json.loads(text) for key, text in rows}


def now() -> datetime.datetime:
    """Optuna keeps UTC without saying so."""
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)


def _distributions(plan: Plan) -> dict[str, BaseDistribution]:
    """The ranges of a plan's settings, for Optuna's plots."""
    rates = [v for grid in plan.grids for v in grid.lr]
    decays = [v for grid in plan.grids for v in grid.weight_decay]
    stems = dict.fromkeys(grid.pair[0] for grid in plan.grids)
    names = dict.fromkeys(grid.optimizer for grid in plan.grids)
    return {
        'config': CategoricalDistribution(tuple(stems)),
        'optimizer': CategoricalDistribution(tuple(names)),
        'lr': FloatDistribution(min(rates), max(rates), log=True),
        'weight_decay': FloatDistribution(min(decays), max(decays), log=min(decays) > 0),
        'seed': IntDistribution(min(plan.seeds), max(plan.seeds)),
    }


def _params(
    trial_id: int, cell: Cell, ranges: Mapping[str, BaseDistribution]
) -> Iterator[dict[str, Any]]:
    given = {
        'config': cell.stem,
        'optimizer': cell.optimizer,
        'lr': cell.lr,
        'weight_decay': cell.weight_decay,
        'seed': cell.seed,
    }
    for name, value in given.items():
        yield {
            'trial_id': trial_id,
            'param_name': name,
            'param_value': ranges[name].to_internal_repr(value),
            'distribution_json': distribution_to_json(ranges[name]),
        }
