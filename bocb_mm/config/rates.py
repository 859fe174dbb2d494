"""Where a learning rate comes from, for which batch it is meant, and scaling it to the run's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from bocb_mm import facts
from bocb_mm.config.describe import dataset_of, parts_of, task_of, task_of_rates, type_name
from bocb_mm.config.identity import annotation_file, optimizer_name
from bocb_mm.errors import UserError
from bocb_mm.optimizers import get_spec


def batch_of(cfg: Mapping[str, Any], processes: int = 1) -> int | None:
    """Samples an optimizer step sees, over all processes; ``None`` where the config does not say.

    Example:
        >>> loader = {'batch_size': 4}
        >>> wrapper = {'accumulative_counts': 2}
        >>> batch_of({'train_dataloader': loader, 'optim_wrapper': wrapper}, processes=2)
        16
    """
    loader = cfg.get('train_dataloader')
    sizes = [part['batch_size'] for part in parts_of(loader) if part.get('batch_size')]
    wrapper = cfg.get('optim_wrapper')
    counts = wrapper.get('accumulative_counts', 1) if isinstance(wrapper, Mapping) else 1
    return int(sizes[0]) * processes * int(counts) if sizes else None


def origin_of_default(cfg: Mapping[str, Any], optimizer: str) -> tuple[str, str, int]:
    """Where the catalog's rate and decay for a config come from.

    Args:
        cfg: The config.
        optimizer: Name in the catalog, or a library's.

    Returns:
        ``'sourced'`` or ``'extrapolated'``, what for in words, and the batch it is meant for.
    """
    task, rates_of, key = task_of(cfg), task_of_rates(cfg), schedule_of(cfg)
    default, recipe = facts.default(get_spec(optimizer), key), facts.RECIPES[key]
    meant_for = 'COCO' if key in ('detection', 'pose') else ''
    meant_for = meant_for or ('CIFAR-100' if key.endswith('cifar') else 'ImageNet-1K')
    origin = 'sourced' if default.sourced and task == rates_of else 'extrapolated'
    source = default.source.removeprefix('extrapolated: ')
    text = f'{origin} ({source}), for {meant_for}, schedule {key}, batch {recipe.batch}'
    if task != rates_of:
        text += f', as no rate is known for {task or "this task"}'
    elif not _is(meant_for, cfg):
        text += f'; for {dataset_of(cfg) or "other data"} another may be best by far: search it'
    return origin, text, recipe.batch


def schedule_of(cfg: Mapping[str, Any]) -> str:
    """The schedule of :data:`bocb_mm.facts.RECIPES` whose rates a config starts from.

    Example:
        >>> schedule_of({'default_scope': 'mmdet'}), schedule_of({'recipe': 'rsb-a2'})
        ('detection', 'rsb-a2')
    """
    task = task_of_rates(cfg)
    if task in ('detection', 'pose'):
        return task
    key = str(cfg.get('recipe') or facts.DEFAULT_RECIPE).lower().replace('_', '-')
    return key if key in facts.RECIPES else facts.DEFAULT_RECIPE


def _is(name: str, cfg: Mapping[str, Any]) -> bool:
    """Whether a config trains on the data that a default is meant for."""
    if name == 'COCO':
        return 'train2017' in annotation_file(cfg)
    return dataset_of(cfg) == {'CIFAR-100': 'cifar100', 'ImageNet-1K': 'imagenet'}[name]


def check_schedule(cfg: Mapping[str, Any]) -> None:
    """Refuse a schedule of the rate for a schedule-free optimizer; a warm-up is none.

    Raises:
        UserError: Names the optimizer, the schedule and the fix.
    """
    kind = type_name((cfg.get('optim_wrapper') or {}).get('optimizer') or {})
    if 'schedulefree' not in kind.lower():
        return
    found = [type_name(part) for part in parts_of(cfg.get('param_scheduler'))]
    schedules = [name for name in found if name.endswith('LR') and name != 'LinearLR']
    if schedules:
        raise UserError(
            f'{optimizer_name(kind)} averages in place of a schedule, but param_scheduler has '
            f'{", ".join(schedules)}: add --cfg-options param_scheduler=[]'
        )


def note_rate(
    cfg: Config, optimizer: str | None, given: bool, processes: int = 1, scale: bool = False
) -> None:
    """Write down where rate and decay come from, and scale the rate to the batch if asked to.

    Linear in the batch for the relatives of SGD, by its square root for those of AdamW, as the
    catalog has them (``anchor``); a rate that follows neither stays.

    Args:
        cfg: Its optimizer is set; gets ``lr_origin`` and ``lr_source``, and its rate scaled.
        optimizer: Name of the catalog whose defaults were taken, ``None`` where the config's stand.
        given: The rate was named on the command line.
        processes: Number of training processes.
        scale: Scale the rate (``--auto-scale-lr``); it also takes the place of mmengine's own.

    Raises:
        UserError: It cannot be scaled: no batch is known that the rate is meant for.
    """
    settings = cfg.optim_wrapper.optimizer
    base, text, origin = _base_batch(cfg), 'given', 'given'
    if optimizer is not None and not given:
        origin, text, base = origin_of_default(cfg, optimizer)
    batch = batch_of(cfg, processes)
    mmengines = (cfg.get('auto_scale_lr') or {}).get('enable')
    if scale:
        text += _scale(cfg, base, batch)
    elif batch and base and batch != base and not mmengines:
        text += f'; this run has batch {batch}, not {base}: --auto-scale-lr would scale the rate'
    elif mmengines:
        text += '; mmengine scales the rate linearly with the batch (auto_scale_lr of the config)'
    rate, decay = settings.get('lr'), settings.get('weight_decay')
    far = far_from_default(cfg, batch) if given or optimizer is None else ''
    cfg.lr_origin = origin
    cfg.lr_source = (
        f'{optimizer_name(type_name(settings))}: lr {rate}, weight decay {decay}: {text}{far}'
    )


FAR = 30.0  # the rates of SGD and of AdamW's relatives lie further apart than that


def far_from_default(cfg: Mapping[str, Any], batch: int | None) -> str:
    """A warning where a rate lies more than a factor of 30 from the catalog's default.

    The default is that of the optimizer for the config's task and schedule, as it is or scaled to
    the batch as ``--auto-scale-lr`` scales it, whichever is nearer.

    Returns:
        Words to add to a line, ``''`` where there is nothing to say.

    Example:
        >>> cfg = {'optim_wrapper': {'optimizer': {'type': 'bocb_mm.AdamW', 'lr': 0.1}}}
        >>> far_from_default(cfg, None)
        "; WARNING: 100 times the catalog's default of 0.001 for AdamW: is it another optimizer's?"
    """
    wrapper = cfg.get('optim_wrapper') or {}
    settings = wrapper.get('optimizer') or {}
    row, rate = facts.find_optimizer(optimizer_name(type_name(settings))), settings.get('lr')
    if row is None or not isinstance(rate, int | float) or not rate > 0:
        return ''
    key = schedule_of(cfg)
    default = facts.default(row.name, key).lr
    power = _POWERS.get(row.anchor, (0.0, ''))[0]
    scaled = default * ((batch or facts.RECIPES[key].batch) / facts.RECIPES[key].batch) ** power
    ratio = min(max(rate / d, d / rate) for d in (default, scaled))
    if ratio <= FAR:
        return ''
    times = f'{ratio:.3g} times' if rate > default else f'one {ratio:.3g}th of'
    return (
        f"; WARNING: {times} the catalog's default of {default:.3g} for {row.name}: is it another "
        "optimizer's?"
    )


# By the anchor of an optimizer's rate: how the rate goes with the batch.
_POWERS = {'SGD': (1.0, 'linearly'), 'AdamW': (0.5, 'by the square root')}


def _base_batch(cfg: Mapping[str, Any]) -> int | None:
    found = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    return int(found) if found else None


def _scale(cfg: Config, base: int | None, batch: int | None) -> str:
    """Scale the rate in the config; returns what was done, for people."""
    settings = cfg.optim_wrapper.optimizer
    row = facts.find_optimizer(optimizer_name(type_name(settings)))
    if base is None or batch is None or row is None or 'lr' not in settings:
        missing = (
            'a rule for this optimizer' if base and batch else 'the batch its rate is meant for'
        )
        raise UserError(
            f'--auto-scale-lr: {type_name(settings)}: {missing} is not known; set '
            'auto_scale_lr=dict(base_batch_size=N) in the config, or give --lr'
        )
    cfg.auto_scale_lr = None  # or mmengine would scale once more
    power, how = _POWERS.get(row.anchor, (0.0, 'not, as it follows no batch'))
    before = settings['lr']
    settings['lr'] = float(f'{before * (batch / base) ** power:.6g}')
    return f'; scaled {how} from {before:g} at batch {base} to batch {batch}'
