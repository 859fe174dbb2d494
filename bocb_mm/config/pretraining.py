"""What a config's network starts from: set, taken out, and named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from bocb_mm.backbones.pretrained import split_init_cfg
from bocb_mm.checkpoints.download import PACKAGE, package_file
from bocb_mm.config.describe import parts_of, type_name
from bocb_mm.errors import UserError
from bocb_mm.runs.record import RunRecord

# Arguments by which models and backbones load weights in their constructors.
_LOADING_ARGUMENTS = ('pretrained', 'checkpoint_path')


def set_pretrained(cfg: Config, checkpoint: str | None, resuming: bool = False) -> None:
    """Start the backbone from ``checkpoint``; ``'none'`` means random weights.

    What would be loaded over it, ``load_from`` and the whole model's, goes; with ``'none'`` all
    that is loaded anywhere.

    Args:
        cfg: Changed in place; configs of ours keep the checkpoint in one variable, ``pretrained``,
            beside ``pretraining``, its name.
        checkpoint: A file, an address, or ``torchvision://``, ``open-mmlab://``, ``timm://`` and
            a name. ``None`` keeps the config's.
        resuming: The run goes on from a checkpoint of its own, which is ``load_from``: this one is
            not needed any more.

    Raises:
        UserError: The file does not exist, its package is not installed, or the model has no
            backbone, or several.
    """
    # Stock configs have variables called so too, and say in `init_cfg` what is meant.
    ours = cfg.get('pretraining') is not None or cfg.get('pretrained_command')
    configured = cfg.get('pretrained')
    wanted = configured if checkpoint is None and ours else checkpoint
    if wanted is None:
        return
    if checkpoint is not None and not resuming:
        cfg.load_from = None
    if wanted in ('', 'none'):
        _drop(parts_of(cfg.model))
        cfg.pretrained, cfg.pretraining = 'none', ''
        return
    if not resuming and '://' not in wanted and not Path(wanted).is_file():
        command = cfg.get('pretrained_command')
        hint = f'to make it: {command}' if command else 'name another with --pretrained, or none'
        raise UserError(f'pre-trained checkpoint {wanted}: no such file; {hint}')
    if not resuming and wanted.startswith(PACKAGE):
        package_file(wanted)
    backbone = _backbone(cfg, wanted)
    _drop(part for part in parts_of(cfg.model) if any(p is backbone for p in parts_of(part)))
    backbone['init_cfg'] = ConfigDict(type='Pretrained', checkpoint=wanted)
    if wanted != configured:
        cfg.pretrained, cfg.pretraining = wanted, pretraining_name(wanted)


def _backbone(cfg: Mapping[str, Any], checkpoint: str) -> Any:
    """The config of the one backbone in a model, at its top or in a part of it."""
    found = [
        part['backbone']
        for part in parts_of(cfg['model'])
        if isinstance(part.get('backbone'), Mapping)
    ]
    if len(found) != 1:
        raise UserError(
            f'--pretrained {checkpoint}: the model {type_name(cfg["model"])} has '
            f'{len(found) or "no"} backbones to load it into, one is expected; for a checkpoint of '
            'the whole model give --cfg-options load_from=PATH'
        )
    return found[0]


def drop_init(cfg: Config) -> None:
    """Load no weights at the start, wherever the config names some."""
    cfg.load_from = None
    _drop(parts_of(cfg.model))


def _drop(parts: Iterable[Any]) -> None:
    for part in list(parts):
        pretrained, rest = split_init_cfg(part.get('init_cfg'))
        if pretrained:
            part['init_cfg'] = rest
            if rest is None:
                part.pop('init_cfg')
        for name in _LOADING_ARGUMENTS:
            part.pop(name, None)


def pretraining_name(checkpoint: str) -> str:
    """What made a checkpoint: the optimizer of the run it lies in, else the file's name."""
    run = RunRecord.find(Path(checkpoint).parent)
    return Path(checkpoint.rpartition('://')[2]).stem if run is None else run.optimizer


def pretraining_of(cfg: Mapping[str, Any]) -> str:
    """Name of what a config says its network starts from, ``''`` for random weights.

    What is loaded last counts: ``load_from``, then the whole model, then its backbone.
    """
    model = cfg.get('model') or {}
    if cfg.get('load_from') and not cfg.get('resume'):
        return name_in(cfg, str(cfg['load_from']))
    parts = [
        model,
        *(p['backbone'] for p in parts_of(model) if isinstance(p.get('backbone'), Mapping)),
    ]
    for part in parts:
        for entry in split_init_cfg(part.get('init_cfg'))[0]:
            return name_in(cfg, str(entry.get('checkpoint')))
        for value in (part.get(name) for name in _LOADING_ARGUMENTS):
            if value:  # True: what timm has published for the model
                return str(part.get('model_name')) if value is True else name_in(cfg, str(value))
    return str(cfg.get('pretraining') or '')


def name_in(cfg: Mapping[str, Any], checkpoint: str) -> str:
    """The config's own name of its pre-training, ``pretraining``, or the checkpoint's."""
    named = cfg.get('pretraining')
    if named and cfg.get('pretrained') in (None, checkpoint):
        return str(named)
    return pretraining_name(checkpoint)
