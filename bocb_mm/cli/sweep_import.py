"""A study of bocb_mm 0.1, which was a database of Optuna's, as a directory."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from bocb_mm.errors import UserError
from bocb_mm.launch.outcomes import BY_NAME
from bocb_mm.search.plan import Cell
from bocb_mm.search.state import note_attempt
from bocb_mm.search.study import Study

_ATTRIBUTES = """
    SELECT trials.trial_id, trials.state, key, value_json
    FROM trials JOIN trial_user_attributes USING (trial_id)
    WHERE study_id = ? ORDER BY trials.number
"""


def import_database(file: Path, directory: str) -> Study:
    """Turn an old study into one that is a directory; its runs stay where they are.

    Args:
        file: The SQLite file.
        directory: Of the new study; may be the old one's work directory.

    Raises:
        UserError: The file is not an old study, or the directory holds a study already.
    """
    if not file.is_file():
        raise UserError(f'{file}: no such file')
    try:
        with closing(sqlite3.connect(f'{file.resolve().as_uri()}?mode=ro', uri=True)) as database:
            plan, trials = _read(database)
        cells = [Cell(*told['cell']) for told in trials]
        runs = os.path.abspath(plan['work_dir'])
        study = Study.create(
            directory,
            cells,
            takes_over=True,
            options=plan['cfg_options'],
            pretrained=plan['pretrained'],
            amp=plan['amp'],
            retries=plan['retries'],
            work_dir='' if runs == os.path.abspath(directory) else runs,
        )
    except (sqlite3.Error, KeyError, TypeError, ValueError) as error:
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())
        raise UserError(f'{file}: is not a study of bocb_mm 0.1 ({reason})') from None
    for cell, told in zip(cells, trials):
        if told['state'] == 'FAIL' and study.row(cell).column == 'waiting':
            _keep_failure(study, cell, told)
    return study


def _read(database: sqlite3.Connection) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The plan, and what the database tells of each trial, in their order."""
    query = "SELECT study_id, value_json FROM study_user_attributes WHERE key = 'plan'"
    found = database.execute(query).fetchall()
    if len(found) != 1:
        raise ValueError(f'{len(found)} plans in it')
    study, plan = found[0]
    return json.loads(plan), list(_trials(database, study))


def _trials(database: sqlite3.Connection, study: int) -> Iterator[dict[str, Any]]:
    told: dict[int, dict[str, Any]] = {}
    for trial, state, key, value in database.execute(_ATTRIBUTES, (study,)):
        told.setdefault(trial, {'state': state})[key] = json.loads(value)
    for trial in told.values():
        yield {**trial, 'cell': json.loads(trial['cell'])}


def _keep_failure(study: Study, cell: Cell, told: dict[str, Any]) -> None:
    """Write down in the run's directory what only the database knew."""
    outcome = str(told.get('outcome') or 'error')
    outcome = outcome if outcome in BY_NAME else 'error'
    times = study.plan.retries + 1 if BY_NAME[outcome].retried else 1
    for _ in range(times):
        note_attempt(study.directory_of(cell), outcome, str(told.get('message') or ''))
