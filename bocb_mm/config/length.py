"""Make a config's whole schedule longer or shorter: warm-up, steps and decay keep their shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bocb_mm.errors import UserError

_PLACES = (
    'begin', 'end', 'T_max', 'milestones', 'step_size', 'total_steps', 'periods', 'patience',
    'cooldown',
)  # fmt: skip


def length_of(cfg: Mapping[str, Any]) -> tuple[str, int]:
    """``('max_epochs', 12)`` or ``('max_iters', 400)``.

    Raises:
        UserError: The config says neither.
    """
    train = cfg.get('train_cfg') or {}
    for key in ('max_epochs', 'max_iters'):
        if isinstance(train.get(key), int) and train[key] > 0:
            return key, train[key]
    raise UserError('the config has no train_cfg.max_epochs and no max_iters: a probe needs one')


def schedule_options(cfg: Mapping[str, Any], length: float) -> dict[str, Any]:
    """Overrides of a config that scale its schedule and validate at its end only.

    Args:
        cfg: The config.
        length: Factor; 1 leaves the schedule as it is.

    Raises:
        UserError: The schedule cannot be so short: two of its points would fall together.

    Example:
        >>> cfg = dict(train_cfg=dict(max_epochs=12),
        ...            param_scheduler=[dict(type='MultiStepLR', milestones=[8, 11])])
        >>> schedule_options(cfg, 2)['param_scheduler'][0]['milestones']
        [16, 22]
    """
    key, whole = length_of(cfg)
    new = max(1, round(whole * length))
    options: dict[str, Any] = {f'train_cfg.{key}': new, 'train_cfg.val_interval': new}
    for name, plain in (('val_begin', 1), ('dynamic_intervals', None)):
        if (cfg.get('train_cfg') or {}).get(name):
            options[f'train_cfg.{name}'] = plain
    if new != whole and cfg.get('param_scheduler'):
        schedulers = cfg['param_scheduler']
        several = schedulers if isinstance(schedulers, list | tuple) else [schedulers]
        options['param_scheduler'] = [_scaled(s, new / whole, f'{key} {new}') for s in several]
    return options


def _scaled(scheduler: Mapping[str, Any], ratio: float, words: str) -> dict[str, Any]:
    found = dict(scheduler)
    for name in _PLACES:
        value = found.get(name)
        if isinstance(value, list | tuple):
            found[name] = [max(int(name == 'periods'), round(v * ratio)) for v in value]
        elif isinstance(value, int) and value > 0 and not isinstance(value, bool):
            found[name] = max(1, round(value * ratio)) if name != 'begin' else round(value * ratio)
    steps = found.get('milestones') or []
    points = [found.get('begin') or 0, *steps, *([found['end']] if found.get('end') else [])]
    if len(set(points)) < len(points):
        raise UserError(
            f'a schedule of {words} is too short: {scheduler.get("type")} would have its points at '
            f'{points}; give it a longer one, or more --minutes'
        )
    return found


def words_of(cfg: Mapping[str, Any], length: float, batch: int | None) -> str:
    """What one run does, in words.

    Example:
        >>> words_of({'train_cfg': {'max_iters': 400}}, 1, 64)
        '400 iterations at batch 64'
    """
    key, whole = length_of(cfg)
    n = max(1, round(whole * length))
    unit = {'max_epochs': 'epoch', 'max_iters': 'iteration'}[key]
    return f'{n} {unit}{"" if n == 1 else "s"}' + (f' at batch {batch}' if batch else '')
