"""From a config file and command-line overrides to the config a Runner gets. Builds nothing."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.hub import get_config

from bocb_mm import facts, optimizers, shipped
from bocb_mm.compat import find_our_bases, quiet_pkg_resources, read_metafiles_once
from bocb_mm.config.check import check_shape
from bocb_mm.config.describe import task_of_rates, type_name
from bocb_mm.errors import UserError
from bocb_mm.optimizers.strict import check_numbers
from bocb_mm.runs.record import run_directory

OUR_CONSTRUCTOR = 'bocb_mm.OptimWrapperConstructor'


def load_config(path: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> Config:
    """Read a config file and merge ``key=value`` options into it.

    Args:
        path: A file, the name of a shipped config (:func:`bocb_mm.shipped.find_config`), or
            ``mmdet::retinanet/...`` and the like for one that an MM package ships.
        options: What ``--cfg-options`` gave; dots in a key go into nested dicts.

    Raises:
        UserError: No such file (the nearest is named), not Python in UTF-8, a ``_base_`` or a
            package is missing, or an option does not fit.
    """
    name = shipped.find_config(os.fspath(path))
    package = name.partition('::')[0] if '::' in name else ''
    if package and find_spec(package) is None:  # mmengine would try to install it
        raise UserError(f'config {name}: the package {package} is not installed; install it')
    read_metafiles_once()
    quiet_pkg_resources()
    find_our_bases(shipped.find_base)
    try:
        cfg = get_config(name) if package else Config.fromfile(name)
    except UnicodeDecodeError as error:
        raise UserError(f'config {name} is not in UTF-8 ({error}); save it in UTF-8') from error
    except Exception as error:  # a config is a program: it may raise anything
        kind = type(error).__name__
        raise UserError(f'config {name} cannot be read: {kind}: {error}') from error
    try:
        cfg.merge_from_dict(dict(options or {}))  # at once: `_delete_` belongs to its neighbours
    except Exception as error:
        words = ' '.join(f'{key}={value}' for key, value in (options or {}).items())
        raise UserError(f'--cfg-options {words}: does not fit config {name} ({error})') from error
    wrapper: Any = cfg.get('optim_wrapper')
    optimizer = wrapper.get('optimizer') if isinstance(wrapper, Mapping) else None
    if isinstance(optimizer, Mapping):  # a rate that is text: said with what to write instead
        check_numbers(optimizer)
    check_shape(cfg, name)
    if not cfg.get('model') or not cfg.get('train_cfg'):
        raise UserError(
            f'config {name}: has no {"train_cfg" if cfg.get("model") else "model"}; '
            'a config of one training is expected, not a part for _base_'
        )
    _check_toolbox(cfg, name)
    return cfg


def _check_toolbox(cfg: Mapping[str, Any], name: str) -> None:
    """Refuse a config of a toolbox that is not installed; mmengine would not find its classes."""
    scope = str(cfg.get('default_scope') or '')
    if scope in MODULE2PACKAGE and find_spec(scope) is None:
        raise UserError(
            f'config {name}: its default_scope {scope!r} is a toolbox that is not installed; '
            f'pip install {MODULE2PACKAGE[scope]}, or name the toolbox that the config is for '
            '(mmpretrain, mmdet, mmpose)'
        )


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """``key=value`` words of --cfg-options as a dict, values read as mmengine reads them.

    Raises:
        UserError: A word without ``=``, or a value whose brackets or quotes do not close.

    Example:
        >>> parse_options(['train_cfg.max_epochs=3', 'log_level=ERROR'])
        {'train_cfg.max_epochs': 3, 'log_level': 'ERROR'}
    """
    action = DictAction(['--cfg-options'], 'options')
    found = argparse.Namespace()
    for pair in pairs:
        if '=' not in pair:
            raise UserError(f'--cfg-options {pair!r}: key=value is expected')
        try:
            action(argparse.ArgumentParser(), found, [pair])
        except Exception as error:
            raise UserError(
                f'--cfg-options {pair!r}: the value cannot be read ({error}); '
                'close its brackets, and quote it for the shell'
            ) from None
    return getattr(found, 'options', {})


_OF_OPTIMIZER = 'optim_wrapper.optimizer.'


def set_optimizer(
    cfg: Config,
    name: str | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Replace the config's optimizer by a catalog row and override its two searched settings.

    Args:
        cfg: Changed in place.
        name: An optimizer of the catalog, upper and lower case alike; its defaults for the config's
            task and recipe replace the config's optimizer. ``None`` keeps that.
        lr: Base learning rate.
        weight_decay: Weight decay.
        options: What ``--cfg-options`` gave; what is meant for the optimizer is for the new one.

    Raises:
        UserError: Unknown optimizer, a rate or decay that is negative or not finite, or what one of
            ours or of the libraries refuses to be built with.
    """
    wrapper = cfg.setdefault('optim_wrapper', ConfigDict(type='OptimWrapper'))
    if name is not None:
        spec = optimizers.get_spec(name)
        settings = spec.defaults_for(task_of_rates(cfg), recipe_of(cfg))
        # Its own wrapper settings stay (clipping, AMP, exclusions): they belong to the recipe.
        wrapper['optimizer'] = ConfigDict(type=f'bocb_mm.{spec.name}', **settings)
        more = {k: v for k, v in (options or {}).items() if k.startswith(_OF_OPTIMIZER)}
        cfg.merge_from_dict(more)
        wrapper = cfg.optim_wrapper
        wrapper.setdefault('constructor', OUR_CONSTRUCTOR)
        _set_wrapper(wrapper, sophia=spec.name == 'Sophia')
    optimizer = wrapper.get('optimizer')
    if not optimizer:
        raise UserError('the config has no optim_wrapper.optimizer; name one with --optimizer')
    for key, value in (('lr', lr), ('weight_decay', weight_decay)):
        if value is None:
            continue
        if not 0 <= value < float('inf'):
            raise UserError(f'--{key.replace("_", "-")} {value}: a number >= 0 is expected')
        optimizer[key] = value
    _try_out(optimizer)


def _try_out(settings: Mapping[str, Any]) -> None:
    """Refuse what one of our optimizers or of the libraries would refuse in a made run."""
    scope, _, kind = type_name(settings).partition('.')
    if scope == 'bocb_mm' and ('.' in kind or facts.find_optimizer(kind)):
        own = {k: v for k, v in settings.items() if k not in ('type', 'aux_lr', 'aux_weight_decay')}
        optimizers.try_out(kind, own)


def _set_wrapper(wrapper: ConfigDict, sophia: bool) -> None:
    """Sophia needs the wrapper that makes its Hessian passes, and no other optimizer takes it."""
    kind = type_name(wrapper).rpartition('.')[2]
    amp = 'Amp' if kind.endswith('AmpOptimWrapper') else ''
    if sophia:
        wrapper['type'] = f'bocb_mm.Sophia{amp}OptimWrapper'
    elif kind.startswith('Sophia'):
        wrapper['type'] = 'bocb_mm.AmpOptimWrapper' if amp else 'OptimWrapper'
        for key in ('hessian_interval', 'hessian'):
            wrapper.pop(key, None)


def recipe_of(cfg: Mapping[str, Any]) -> str | None:
    """The recipe's name: ``recipe = '...'`` at the top of a config, as our recipe files set it."""
    return cfg.get('recipe')


def set_seed(cfg: Config, seed: int | None) -> None:
    """Fix the random seed: ``seed``, else the config's, else 0, so that a run can be repeated.

    Raises:
        UserError: It is not one that numpy takes.
    """
    randomness = cfg.get('randomness') or ConfigDict()
    if seed is not None or randomness.get('seed') is None:
        randomness['seed'] = seed or 0
    if not 0 <= randomness['seed'] < 2**32:
        raise UserError(
            f'seed {randomness["seed"]}: a whole number from 0 to 2**32 - 1 is expected'
        )
    cfg.randomness = randomness


def set_work_dir(cfg: Config, work_dir: str | None, config_path: str) -> Path:
    """Give the run its own directory and return it.

    Without ``work_dir``: the config's own, else
    ``work_dirs/<config>/<optimizer>/lr<..>_wd<..>_seed<..>``. A config that a run has left in its
    directory, where mmengine puts one with all settings, starts another run elsewhere.
    """
    if work_dir is None and cfg.get('work_dir'):
        left_there = Path(config_path).resolve().parent == Path(cfg.work_dir).resolve()
        work_dir = None if left_there else cfg.work_dir
    if work_dir is None:
        optimizer = cfg.optim_wrapper.optimizer
        stem = config_stem(config_path)
        name = type_name(optimizer).removeprefix('bocb_mm.')
        seed = (cfg.get('randomness') or {}).get('seed')
        where = run_directory(
            'work_dirs', stem, name, optimizer.get('lr'), optimizer.get('weight_decay'), seed
        )
    else:
        where = Path(work_dir)
    cfg.work_dir = str(where)
    return where


def config_stem(config_path: str) -> str:
    """Name of a config without folder and ``.py``, for work directories and records."""
    return Path(config_path.rpartition('::')[2]).stem


# mmengine's own AmpOptimWrapper refuses to run without a GPU.
_MIXED_PRECISION = {
    'OptimWrapper': 'bocb_mm.AmpOptimWrapper',
    'mmengine.OptimWrapper': 'bocb_mm.AmpOptimWrapper',
    'AmpOptimWrapper': 'bocb_mm.AmpOptimWrapper',
    'mmengine.AmpOptimWrapper': 'bocb_mm.AmpOptimWrapper',
    'bocb_mm.AmpOptimWrapper': 'bocb_mm.AmpOptimWrapper',
    'bocb_mm.SophiaAmpOptimWrapper': 'bocb_mm.SophiaAmpOptimWrapper',
    'bocb_mm.SophiaOptimWrapper': 'bocb_mm.SophiaAmpOptimWrapper',
}


def set_amp(cfg: Config, dtype: str) -> None:
    """Train in mixed precision.

    Args:
        cfg: Changed in place.
        dtype: ``'bfloat16'``, which has float32's range and needs no loss scale, or ``'float16'``
            with a dynamic one.

    Raises:
        UserError: The config's wrapper is neither mmengine's OptimWrapper nor an AMP-aware one, or
            there is no such type.
    """
    if dtype not in ('bfloat16', 'float16'):
        raise UserError(f'--amp {dtype}: bfloat16 or float16 is expected')
    wrapper = cfg.optim_wrapper
    kind = type_name(wrapper) or 'OptimWrapper'
    mixed = _MIXED_PRECISION.get(kind)
    if mixed is None:
        raise UserError(f'--amp: the wrapper {kind} sets its own precision; leave --amp out')
    wrapper['type'], wrapper['dtype'] = mixed, dtype
    if dtype == 'float16':
        wrapper.setdefault('loss_scale', 'dynamic')


# Hooks that mmengine's Runner adds by itself; None in a config takes them out.
_RUNNER_HOOKS = (
    'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint',
)  # fmt: skip


def set_hooks(cfg: Config) -> None:
    """Take out default hooks set to None and add the record's hook where there is none.

    mmengine takes None for its own hooks only and fails on any other (0.10.7).
    """
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    for name in [k for k, v in hooks.items() if v is None and k not in _RUNNER_HOOKS]:
        del hooks[name]
    present = [*hooks.values(), *(cfg.get('custom_hooks') or [])]
    if not any(type_name(hook).endswith('RunRecordHook') for hook in present):
        hooks['run_record'] = ConfigDict(type='bocb_mm.RunRecordHook')


def check_data(
    cfg: Mapping[str, Any], loaders: Iterable[str] = ('train_dataloader', 'val_dataloader')
) -> None:
    """Refuse a config whose data are not there, before minutes go into building a model.

    Args:
        cfg: A whole config.
        loaders: Names of the data loaders that are going to be used.

    Raises:
        UserError: The path looked at, and what writes the data or points elsewhere: the config's
            ``data_command``, its ``data_root_variable``, the option.
    """
    for name in loaders:
        for where, dataset in _datasets(f'{name}.dataset', (cfg.get(name) or {}).get('dataset')):
            missing = _missing_path(dataset)
            if missing is None:
                continue
            variable, command = cfg.get('data_root_variable'), cfg.get('data_command')
            fix = f'set {variable}' if variable else 'link it there'
            if command:
                fix = f'{command} writes it, or {fix}'
            raise UserError(
                f'{name}: no data at {missing}; {fix}, or --cfg-options {where}.data_root=DIR'
            )


def _datasets(where: str, dataset: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Data sets inside wrappers (RepeatDataset, ConcatDataset), each with its place."""
    if not isinstance(dataset, Mapping):
        return
    inner = dataset.get('datasets')
    if isinstance(inner, (list, tuple)):
        for i, part in enumerate(inner):
            yield from _datasets(f'{where}.datasets.{i}', part)
    elif 'dataset' in dataset:
        yield from _datasets(f'{where}.dataset', dataset['dataset'])
    else:
        yield where, dataset


def _missing_path(dataset: Mapping[str, Any]) -> str | None:
    """The first path a data set needs that does not exist."""
    root = str(dataset.get('data_root') or '')
    wanted = [root] if root else []
    annotation = dataset.get('ann_file')
    if isinstance(annotation, str) and annotation:
        wanted.append(str(Path(root, annotation)))
    kind = str(dataset.get('type', ''))
    can_download = ('CIFAR' in kind or 'MNIST' in kind) and dataset.get('download', True)
    for path in wanted:
        if '://' not in path and not Path(path).exists() and not can_download:
            return path
    return None
