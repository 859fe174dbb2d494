"""``bocb_mm.OptimWrapperConstructor``: mmengine's door to :func:`param_groups`."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from bocb_mm.errors import UserError, nearest
from bocb_mm.optim_wrappers.param_groups import (
    GroupRules,
    Half,
    param_groups,
    unmatched_custom_keys,
)
from bocb_mm.optim_wrappers.schedule_free import ScheduleFreeSwitch
from bocb_mm.optimizers.strict import check_numbers, require_number
from bocb_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS

#: What a custom key may set whatever the optimizer.
_CUSTOM = ('lr_mult', 'decay_mult', 'matrix')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class OptimWrapperConstructor:
    """Build an optimizer over few readable groups, the same for every optimizer.

    Norm, bias, position-embedding, relative-position, class-token, layer-scale and other vector
    parameters do not decay; the rest does. Frozen parameters are left out, shared ones taken
    once, and parameters with equal settings share a group: ResNet-50 has 2 groups where mmengine's
    constructor makes 161. The keys of ``paramwise_cfg`` are the fields of
    :class:`~bocb_mm.optim_wrappers.param_groups.GroupRules`; a stock config's ``paramwise_cfg``
    is accepted as it is. A schedule-free optimizer is switched by itself
    (:class:`~bocb_mm.optim_wrappers.schedule_free.ScheduleFreeSwitch`). An optimizer with a matrix
    update (Muon, also the libraries') gets the weights of the body, and AdamW the rest, with
    ``aux_lr`` and ``aux_weight_decay`` beside the optimizer's own arguments.

    Args:
        optim_wrapper_cfg: ``type`` (default ``'OptimWrapper'``), ``optimizer`` and the wrapper's
            own arguments.
        paramwise_cfg: The grouping rules; None for the defaults.

    Raises:
        UserError: A key, role or group setting that nobody knows, with the nearest known one.

    Example:
        >>> optim_wrapper = dict(
        ...     type='OptimWrapper',
        ...     constructor='bocb_mm.OptimWrapperConstructor',
        ...     optimizer=dict(type='bocb_mm.LARS', lr=0.1, weight_decay=1e-4),
        ...     paramwise_cfg=dict(backbone_lr_mult=0.1),
        ... )
    """

    def __init__(
        self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: Mapping[str, Any] | None = None
    ) -> None:
        if not isinstance(optim_wrapper_cfg, dict) or 'optimizer' not in optim_wrapper_cfg:
            raise UserError(
                f'optim_wrapper={optim_wrapper_cfg!r}: expected a dict with an `optimizer` in it'
            )
        self.optim_wrapper_cfg = copy.copy(optim_wrapper_cfg)
        self.optimizer_cfg = dict(self.optim_wrapper_cfg.pop('optimizer'))
        self.auxiliary_cfg = {
            key: self.optimizer_cfg.pop(f'aux_{key}')
            for key in ('lr', 'weight_decay')
            if f'aux_{key}' in self.optimizer_cfg
        }
        self.paramwise_cfg = dict(paramwise_cfg or {})
        self.rules = GroupRules.from_cfg(self.paramwise_cfg)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer on ``model`` (DDP is looked through) and wrap it."""
        model = getattr(model, 'module', model)
        kind = self._kind()
        options = _options(kind)
        check_numbers(self.optimizer_cfg)
        check_numbers(self.auxiliary_cfg)
        self._check_custom_settings(options)
        for key in unmatched_custom_keys(model, self.rules):
            print_log(
                f'custom_keys: {key!r} is part of no parameter name of {type(model).__name__}',
                logger='current',
                level=logging.WARNING,
            )
        groups = param_groups(
            model,
            self._base('lr', options),
            self._base('weight_decay', options),
            # adapt=False for the whole optimizer stays so.
            adapt='adapt' in (options or {}) and self.optimizer_cfg.get('adapt', True),
            auxiliary=self._auxiliary(kind, options or {}),
            **self.paramwise_cfg,
        )
        _log_groups(groups)
        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, 'params': groups})
        wrapper_cfg = {'type': 'OptimWrapper', **self.optim_wrapper_cfg}
        wrapper = OPTIM_WRAPPERS.build(wrapper_cfg, default_args={'optimizer': optimizer})
        ScheduleFreeSwitch.attach(optimizer, model)
        return wrapper

    def _kind(self) -> Any:
        """The optimizer's class, or what builds it."""
        kind = self.optimizer_cfg.get('type')
        if kind == 'bocb_mm.ZeroRedundancyOptimizer':  # hands its arguments on
            kind = f'bocb_mm.{self.optimizer_cfg.get("optimizer_type")}'
        if isinstance(kind, str):
            with OPTIMIZERS.switch_scope_and_registry(None) as registry:
                kind = registry.get(kind)
        if kind is None:
            raise UserError(
                f'unknown optimizer {self.optimizer_cfg.get("type")!r}; '
                'python -m bocb_mm.optimizers lists ours'
            )
        if kind is getattr(torch.optim, 'Muon', None):
            raise UserError(
                "type='Muon' is torch's, which takes matrices only; write type='bocb_mm.Muon'"
            )
        return kind

    def _auxiliary(self, kind: Any, options: dict[str, Any]) -> Half | None:
        """The auxiliary half of a matrix optimizer."""
        halves = getattr(kind, 'halves', None)
        if halves is None:
            for key, value in self.auxiliary_cfg.items():
                raise UserError(
                    f'aux_{key}={value}: {self.optimizer_cfg["type"]} has no auxiliary half, as '
                    'bocb_mm.Muon has; leave it out'
                )
            return None
        settings = options | self.optimizer_cfg
        lr, weight_decay = halves.rates(settings)
        found = {'lr': lr, 'weight_decay': weight_decay} | self.auxiliary_cfg
        for key, value in found.items():
            require_number(f'aux_{key}', value)
        return Half(**found, keys=halves)

    def _base(self, name: str, options: dict[str, Any] | None) -> float | None:
        """``lr`` or ``weight_decay`` as configured, else the optimizer's default."""
        if name in self.optimizer_cfg:
            return self.optimizer_cfg[name]
        default = (options or {}).get(name)
        return float(default) if isinstance(default, (int, float)) else None

    def _check_custom_settings(self, options: dict[str, Any] | None) -> None:
        known = [*_CUSTOM, *(options or {})]
        for pattern, settings in self.rules.custom_keys.items():
            for key in settings:
                if options is not None and key not in known:
                    near = nearest(key, known, n=1)
                    hint = f'did you mean {near[0]!r}?' if near else f'known: {", ".join(known)}'
                    raise UserError(f'custom_keys[{pattern!r}]: unknown setting {key!r}; {hint}')


def _options(kind: Any) -> dict[str, Any] | None:
    """An optimizer's arguments and their defaults; None if its signature does not say."""
    try:
        parameters = inspect.signature(kind).parameters
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return {n: p.default for n, p in parameters.items() if n != 'params'}


def _log_groups(groups: list[dict[str, Any]]) -> None:
    for group in groups:
        shown = ', '.join(
            f'{k}={v}' for k, v in group.items() if k not in ('params', 'name', 'role')
        )
        n = sum(p.numel() for p in group['params'])
        text = f'group {group["name"]!r}: {len(group["params"])} tensors, {n} weights'
        print_log(f'{text}{", " if shown else ""}{shown}', logger='current')
