"""The shape of a config: of which kind its parts must be, before anything reads them."""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from bocb_mm.errors import UserError

_DICT, _LIST, _TEXT = (dict, 'a dict'), ((list, tuple), 'a list'), (str, 'a text')
_COUNT, _NUMBER = (int, 'a whole number'), ((int, float), 'a number')
_EXPECTED: dict[str, tuple[Any, str]] = {
    'model': _DICT,
    'model.backbone': _DICT,
    'train_cfg': _DICT,
    'train_cfg.max_epochs': _NUMBER,
    'train_cfg.max_iters': _NUMBER,
    'train_dataloader': _DICT,
    'train_dataloader.dataset': _DICT,
    'train_dataloader.batch_size': _COUNT,
    'train_dataloader.num_workers': _COUNT,
    'val_dataloader': _DICT,
    'test_dataloader': _DICT,
    'optim_wrapper': _DICT,
    'optim_wrapper.clip_grad': _DICT,
    'optim_wrapper.paramwise_cfg': _DICT,
    'optim_wrapper.optimizer': _DICT,
    'optim_wrapper.optimizer.lr': _NUMBER,
    'optim_wrapper.optimizer.weight_decay': _NUMBER,
    'default_hooks': _DICT,
    'custom_hooks': _LIST,
    'param_scheduler': ((list, tuple, dict), 'a list'),
    'env_cfg': _DICT,
    'env_cfg.mp_cfg': _DICT,
    'env_cfg.dist_cfg': _DICT,
    'randomness': _DICT,
    'randomness.seed': _COUNT,
    'auto_scale_lr': _DICT,
    'auto_scale_lr.base_batch_size': _COUNT,
    'default_scope': _TEXT,
    'log_level': ((str, int), 'a text'),
    'recipe': _TEXT,
    'load_from': _TEXT,
    'pretrained': _TEXT,
}
# The least of what counts something.
_LEAST = {
    'train_cfg.max_epochs': 1,
    'train_cfg.max_iters': 1,
    'train_dataloader.batch_size': 1,
    'train_dataloader.num_workers': 0,
}
_OPTIONAL = ('optim_wrapper', 'default_hooks', 'custom_hooks', 'train_dataloader', 'env_cfg')


def check_shape(cfg: Config, name: str) -> None:
    """Refuse a config with a part of another kind than every toolbox expects.

    Args:
        cfg: Parts that are ``None`` and may be left out are taken out.
        name: What the config is called in messages.

    Raises:
        UserError: The part, what it is, and what is expected.
    """
    for path, (kinds, expected) in _EXPECTED.items():
        *outer, last = path.split('.')
        part: Any = cfg
        for key in outer:
            part = part.get(key) if isinstance(part, Mapping | Config) else None
        if part is None or last not in part:
            continue
        value = part[last]
        if value is None:
            if path in _OPTIONAL or expected == _COUNT[1]:
                part.pop(last)
            continue
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            shown = reprlib.repr(value)
            raise UserError(f'config {name}: {path} is {shown}, {expected} is expected')
        if path in _LEAST and value < _LEAST[path]:
            raise UserError(
                f'config {name}: {path} is {value}, at least {_LEAST[path]} is expected'
            )
    # A logger of the same second takes any: mmengine looks at the level when it makes one.
    level = cfg.get('log_level')
    if isinstance(level, str) and not isinstance(logging.getLevelName(level), int):
        raise UserError(
            f'config {name}: log_level is {level!r}, DEBUG, INFO, WARNING, ERROR or CRITICAL is '
            'expected'
        )
