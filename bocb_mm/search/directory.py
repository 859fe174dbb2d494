"""What a study leaves on the disk: its own directory, and what the runs in there came to."""

from __future__ import annotations

import json
import math
from pathlib import Path

from bocb_mm.errors import UserError
from bocb_mm.runs.files import atomic_write_text
from bocb_mm.runs.record import RunRecord

STUDY_FILE = 'study.json'


def claim(work_dir: str, name: str, identity: str) -> None:
    """Claim a study's directory, or refuse that of another study.

    A trial whose directory holds a finished run is taken as done, so the runs must be this study's.

    Raises:
        UserError: It belongs to another study, or cannot be written.
    """
    file = Path(work_dir) / STUDY_FILE
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            atomic_write_text(file, json.dumps({'study': name, 'identity': identity}) + '\n')
        found = json.loads(file.read_text(encoding='utf-8')).get('identity')
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f'{file}: cannot be used ({error}); create with another --work-dir'
        ) from None
    if found != identity:
        raise UserError(
            f'{work_dir} holds the runs of another study of this name; delete it, or create the '
            'study with another --work-dir'
        )


def steps(run: RunRecord) -> dict[int, float]:
    """Results of a run by epoch."""
    found = {}
    for evaluation in run.evaluations:
        value = evaluation.get(run.metric)
        if value is not None and math.isfinite(value):
            epoch = evaluation.get('epoch')
            found[int(epoch if epoch is not None else evaluation['iteration'] or 0)] = float(value)
    return found
