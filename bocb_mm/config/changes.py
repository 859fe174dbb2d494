"""What a config trains, written down, so that a later change of it is noticed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from bocb_mm.config import edit
from bocb_mm.config.describe import task_of, task_of_rates
from bocb_mm.config.identity import COMPARED, what_it_trains
from bocb_mm.errors import UserError

_OF_THE_MACHINE = ('data_root', 'num_workers')  # anywhere in a config
_MOST_SHOWN = 5
_TOOLBOXES = {'classification': 'mmpretrain', 'detection': 'mmdet', 'pose': 'mmpose'}


def note(config: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a study keeps of a config: whose rates it starts from, and what it trains.

    Raises:
        UserError: The config cannot be read.
    """
    cfg = edit.load_config(config, options)
    trains = {**what_it_trains(cfg), **{name: cfg.get(name) for name in COMPARED}}
    return {
        'task': task_of_rates(cfg),
        'recipe': edit.recipe_of(cfg),
        'toolbox': _TOOLBOXES.get(task_of(cfg), 'mmengine'),
        'trains': json.loads(json.dumps(trains, default=_name)),
    }


def _name(value: Any) -> str:
    """A class or function in a config."""
    return str(getattr(value, '__name__', type(value).__name__))


def check(config: str, options: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Refuse a config that has changed since a note of it was made: runs would not be comparable.

    Args:
        config: Its path.
        options: Overrides of it.
        before: The note.

    Raises:
        UserError: What is different in it, or that it cannot be read.
    """
    was, now = before['trains'], note(config, options)['trains']
    for name in COMPARED:
        if name not in was:  # a plan of an earlier release
            now.pop(name)
    changes = list(_differences(was, now))
    if changes:
        more = len(changes) - _MOST_SHOWN
        raise UserError(
            f'{config}: has changed since the study was created: {"; ".join(changes[:_MOST_SHOWN])}'
            + (f'; and {more} more' if more > 0 else '')
            + '; change it back, or create another study'
        )


def _differences(before: Any, now: Any, key: str = '') -> Iterator[str]:
    if key.rpartition('.')[2] in _OF_THE_MACHINE or before == now:
        return
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys([*before, *now]):
            yield from _differences(
                before.get(name), now.get(name), f'{key}.{name}' if key else str(name)
            )
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for k, (one, other) in enumerate(zip(before, now)):
            yield from _differences(one, other, f'{key}.{k}')
    else:
        yield f'{key}: {_short(before)} -> {_short(now)}'


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
