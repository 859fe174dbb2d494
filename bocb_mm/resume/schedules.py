"""What a changed learning rate, schedule or length means to a run that is resumed.

``Runner.resume`` restores the schedulers with their old end, so a run made longer would keep the
last rate for good (mmengine 0.10.7), and the optimizer with its old rate, so a new one would be
ignored. Here the run goes on as if the new settings had held from its first iteration: the same
schedule an uninterrupted run with them would be on by now.
"""

from __future__ import annotations

import math
from typing import Any

from mmengine.runner import Runner

from bocb_mm.compat import count_as_stepped
from bocb_mm.errors import UserError

_MOVING = (
    '_global_step', 'last_step', '_last_value', 'base_values', 'verbose',
    'best', 'num_bad_epochs', 'cooldown_counter',
)  # fmt: skip
_PLATEAU = 'ReduceOnPlateau'
_PLAIN = (int, float, str, bool, tuple, list, type(None))


def plan_of(runner: Runner) -> dict[str, Any] | None:
    """The settings of every parameter group and scheduler before the first iteration.

    Args:
        runner: Its optimizer and schedulers are built, and nothing has been loaded.

    Returns:
        ``groups`` and ``schedulers``, one dict each; ``None`` for several optimizers.
    """
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    if optimizer is None or isinstance(runner.param_schedulers, dict):
        return None
    groups = [
        {k: group.get(f'initial_{k}', v) for k, v in group.items() if _is_setting(k, v)}
        for group in optimizer.param_groups
    ]
    return {'groups': groups, 'schedulers': [_still(s) for s in runner.param_schedulers or []]}


def _is_setting(name: str, value: Any) -> bool:
    return name != 'params' and not name.startswith('initial_') and isinstance(value, _PLAIN)


def _still(scheduler: Any) -> dict[str, Any]:
    """The part of a scheduler that does not move."""
    state = {k: v for k, v in scheduler.state_dict().items() if k not in _MOVING}
    return {
        'type': type(scheduler).__name__,
        **{k: v for k, v in state.items() if isinstance(v, _PLAIN)},
    }


def old_plan(checkpoint: dict[str, Any]) -> dict[str, Any] | None:
    """The plan of a checkpoint that stock mmengine saved, as far as it can be told.

    Of the groups only rate and weight decay: other numbers there may be the optimizer's state.
    """
    groups = checkpoint.get('optimizer', {}).get('param_groups')
    schedulers = checkpoint.get('param_schedulers')
    if not isinstance(groups, list) or not isinstance(schedulers, list | type(None)):
        return None
    return {
        'groups': [
            {k: g.get(f'initial_{k}', g[k]) for k in ('lr', 'weight_decay') if k in g}
            for g in groups
        ],
        'schedulers': [
            {k: v for k, v in s.items() if k not in _MOVING and isinstance(v, _PLAIN)}
            for s in schedulers or []
        ],
    }


def follow(runner: Runner, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Put a resumed run onto the schedule it would be on, had it been started with ``new``.

    Args:
        runner: Resumed, its data loader built.
        old: Plan of the checkpoint.
        new: Plan of the run.

    Returns:
        One line for each change.

    Raises:
        UserError: A schedule that depends on the results so far cannot be replayed.
    """
    changes = _follow_groups(runner.optim_wrapper.optimizer, old['groups'], new['groups'])
    changed = _changed_settings(old['schedulers'], new['schedulers'])
    scheduled = {s['param_name'] for s in new['schedulers'] if 'param_name' in s}
    other_rate = any(c.split(' ')[0] in scheduled for c in changes)
    if not other_rate and _lengthen_plateau(runner, changed, new['schedulers']):
        return [*changes, 'ReduceOnPlateau goes on to the new end']
    if changed:
        changes.append('the learning-rate schedule is that of the new config')
    if changed or other_rate:
        _replay(runner)
    return changes


def _changed_settings(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[set[str]]:
    """Names of the settings in which each scheduler differs; empty if none does.

    Only what both have is compared: an old one may lack its type.
    """
    if len(old) != len(new):
        return [{'number'}]
    changed = [
        {k for k in a.keys() & b if _plain(a[k]) != _plain(b[k])}
        for a, b in zip(old, new, strict=True)
    ]
    return changed if any(changed) else []


def _lengthen_plateau(runner: Runner, changed: list[set[str]], new: list[dict[str, Any]]) -> bool:
    """Move the ends of ReduceOnPlateau schedulers, if nothing else changed; says whether it did."""
    if not changed or len(changed) != len(runner.param_schedulers or []):
        return False
    for scheduler, names in zip(runner.param_schedulers, changed):
        if names - {'end'} or (names and _PLATEAU not in type(scheduler).__name__):
            return False
    for scheduler, settings in zip(runner.param_schedulers, new):
        if _PLATEAU in type(scheduler).__name__:
            scheduler.end = settings['end']
    return True


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _follow_groups(optimizer: Any, old: list, new: list) -> list[str]:
    """Set in every group what the new config changes, and say what that was."""
    changes: dict[str, str] = {}
    for group, was, wanted in zip(optimizer.param_groups, old, new, strict=True):
        for name in was.keys() & wanted.keys():
            if _same(was[name], wanted[name]):
                continue
            group[name] = wanted[name]
            if f'initial_{name}' in group:
                group[f'initial_{name}'] = wanted[name]
            changes.setdefault(name, f'{name} was {was[name]} and is now {wanted[name]}')
    return sorted(changes.values())


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-12)
    return _plain(a) == _plain(b)


def _replay(runner: Runner) -> None:
    """Build the schedulers anew and take them through the iterations that are done."""
    optimizer = runner.optim_wrapper.optimizer
    for group in optimizer.param_groups:
        for name in [k for k in group if k.startswith('initial_')]:
            group[name.removeprefix('initial_')] = group[name]
    schedulers = _built(runner)
    if any(_PLATEAU in type(s).__name__ for s in schedulers):
        raise UserError(
            'ReduceOnPlateau follows the results so far and cannot be changed on resuming; keep '
            'the schedule, or start a new run from the weights'
        )
    count_as_stepped(optimizer, runner.iter)
    by_iter = [s for s in schedulers if not s.by_epoch]
    by_epoch = [s for s in schedulers if s.by_epoch]
    epoch_length = max(1, len(runner.train_dataloader))
    for done in range(1, runner.iter + 1):
        for scheduler in by_iter:
            scheduler.step()
        if by_epoch and done % epoch_length == 0 and done // epoch_length <= runner.epoch:
            for scheduler in by_epoch:
                scheduler.step()
    runner.param_schedulers = schedulers
    if hasattr(runner, 'strategy'):  # FlexibleRunner's saves its own
        runner.strategy.param_schedulers = schedulers


def _built(runner: Runner) -> Any:
    """Schedulers as the config wants them, at their start."""
    configured = runner.cfg.get('param_scheduler') or []
    if hasattr(runner, 'strategy'):
        return runner.strategy.build_param_scheduler(configured, runner.optim_wrapper)
    return runner.build_param_scheduler(configured)
