"""What tells one run from another: names, architecture, data, batch, and the config's hash."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any

from bocb_mm import facts
from bocb_mm.backbones import get_spec as backbone_spec
from bocb_mm.config.describe import (
    backbone_of,
    describe,
    parts_of,
    training_data,
    type_name,
)
from bocb_mm.config.pretraining import pretraining_of
from bocb_mm.errors import UnknownNameError
from bocb_mm.runs.record import config_hash

# Parts of a config that say where, by whom and how often a run was started, not what it trains.
_NOT_HASHED = (
    'work_dir', 'randomness', 'resume', 'load_from', 'launcher', 'log_level', 'filename_stem',
    'model_wrapper_cfg', 'visualizer', 'vis_backends', 'env_cfg',
    'experiment_name', 'data_root', 'pretrained_command', 'headline_metric', 'lr_origin',
    'lr_source',
)  # fmt: skip
COMPARED = ('load_from', 'headline_metric')
"""In no hash, since a run is the same without; yet runs that are compared must agree in them."""
_NOT_HASHED_OF_LOADERS = ('pin_memory', 'persistent_workers', 'collate_fn')  # by the machine
# Arguments of a backbone that do not make it another network.
_NOT_ARCHITECTURE = (
    'type', 'init_cfg', 'pretrained', 'frozen_stages', 'norm_eval', 'out_indices', 'with_cp',
    'drop_path_rate', 'checkpoint_path',
)  # fmt: skip
# Arguments of a transform that say how large its images are, and which side they name first.
_SIZES = {
    'input_size': 'width',  # mmpose's TopdownAffine
    'crop_size': 'height',
    'scale': 'width',
}


def identity(cfg: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a run record that a config tells.

    Args:
        cfg: The whole config of the run.
        given: Fields that the user named, by name; ``None`` for those that were not.

    Returns:
        Fields of :class:`bocb_mm.runs.record.RunRecord`.
    """
    named = {k: v for k, v in given.items() if v is not None}
    found = describe(cfg)
    optimizer = _optimizer(cfg)
    return {
        'task': found.task,
        'dataset': found.dataset,
        'metric': found.metric,
        'evaluator': found.headline.evaluator,
        'metric_rule': found.headline.rule,
        'pretraining': pretraining_of(cfg),
        'recipe': cfg.get('recipe') or '',
        'gamma': cfg.get('gamma'),
        **named,
        'backbone': paper_name(str(named['backbone']), True) if 'backbone' in named
        else paper_name(found.backbone, _is_ours(cfg)),
        'optimizer': optimizer_name(type_name(optimizer)),
        'lr': _number(optimizer.get('lr')),
        'weight_decay': _number(optimizer.get('weight_decay')),
        'lr_origin': str(cfg.get('lr_origin') or ''),
        'lr_source': str(cfg.get('lr_source') or ''),
        'architecture': architecture(cfg),
        'ann_file': annotation_file(cfg),
        'image_size': image_size(cfg),
        'config': cfg.get('filename_stem') or Path(getattr(cfg, 'filename', None) or '').stem,
        'config_hash': hash_of(cfg),
    }  # fmt: skip


def hash_of(cfg: Any) -> str:
    """Hash of what a config trains, the same on every machine and for every seed."""
    return config_hash(what_it_trains(cfg))


def what_it_trains(cfg: Any) -> dict[str, Any]:
    """A config without what says where, by whom and how often a run was started."""
    plain = cfg.to_dict() if hasattr(cfg, 'to_dict') else dict(cfg)
    hashed = {k: v for k, v in plain.items() if k not in _NOT_HASHED}
    for name, value in hashed.items():
        if name.endswith('_dataloader') and isinstance(value, Mapping):
            hashed[name] = {k: v for k, v in value.items() if k not in _NOT_HASHED_OF_LOADERS}
    return hashed


def _optimizer(cfg: Mapping[str, Any]) -> Mapping[str, Any]:
    """Config of the optimizer; of several, the first one's."""
    wrapper = cfg.get('optim_wrapper')
    parts = [p['optimizer'] for p in parts_of(wrapper) if isinstance(p.get('optimizer'), Mapping)]
    return parts[0] if parts else {}


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _is_ours(cfg: Mapping[str, Any]) -> bool:
    return 'bocb_mm' in type_name(backbone_of(cfg)).split('.')


def paper_name(name: str, ours: bool) -> str:
    """The paper's name of a backbone, where it is one of the paper's.

    Args:
        name: A name of our catalog, or a registry type with its size.
        ours: Any name of the catalog counts, short ones too; else only those that say all, since
            somebody's ``Swin`` need not be the paper's.

    Example:
        >>> paper_name('r-50', True), paper_name('ResNet-50', False), paper_name('Swin', False)
        ('R-50', 'R-50', 'Swin')
    """
    try:
        found = backbone_spec(name).name
    except UnknownNameError:
        return name
    return found if ours or '-' in name or facts.key(name) == facts.key(found) else name


def optimizer_name(registry_type: str) -> str:
    """The paper's name of an optimizer's registry type, or the type itself.

    Example:
        >>> optimizer_name('bocb_mm.sgd'), optimizer_name('AdamW'), optimizer_name('mine.Lion2')
        ('SGD', 'AdamW', 'mine.Lion2')
    """
    name = registry_type.removeprefix('bocb_mm.')
    row = facts.find_optimizer(name) if '.' not in name else None
    return row.name if row else name


def architecture(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that make the backbone the network it is; none for a name of our catalog.

    Example:
        >>> swin = {'type': 'Swin', 'depths': (2, 2), 'with_cp': True}
        >>> architecture({'model': {'backbone': swin}})
        {'depths': [2, 2]}
    """
    backbone = backbone_of(cfg)
    if _is_ours(cfg):
        return {}
    return {
        name: _plain(value, name)
        for name, value in backbone.items()
        if name not in _NOT_ARCHITECTURE
    }


def _plain(value: Any, name: str = '') -> Any:
    """``value`` as JSON; synchronised and frozen normalisation is the same normalisation."""
    if isinstance(value, Mapping):
        kind = type_name(value)
        parts = {str(k): _plain(v) for k, v in value.items() if k != 'requires_grad'}
        if kind:
            parts['type'] = 'BN' if name == 'norm_cfg' and kind.endswith('SyncBN') else kind
        return parts
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return getattr(value, '__name__', None) or str(value)


def annotation_file(cfg: Mapping[str, Any]) -> str:
    """The training annotations with their folder, several joined by ``+``; ``''`` without."""
    dataset = training_data(cfg)
    files = dataset.get('ann_file') or ''
    root = str(dataset.get('data_root') or '')
    several = [files] if isinstance(files, str) else list(files)
    return '+'.join(str(Path(root, str(file))) for file in several if file)


def image_size(cfg: Mapping[str, Any]) -> list[int]:
    """Height and width of training images, as the last transform that sets a size says.

    Example:
        >>> crop = {'type': 'RandomResizedCrop', 'scale': 224}
        >>> image_size({'train_dataloader': {'dataset': {'type': 'A', 'pipeline': [crop]}}})
        [224, 224]
    """
    pipeline = training_data(cfg).get('pipeline')
    size: list[int] = []
    for step in parts_of(pipeline):
        for name, first in _SIZES.items():
            if name in step and type_name(step):
                size = _height_width(step[name], first)
    return size


def _height_width(value: Any, first: str) -> list[int]:
    sides = [value, value] if isinstance(value, int) else value
    pair = isinstance(sides, list | tuple) and len(sides) == 2
    if not pair or not all(isinstance(side, int) and side > 0 for side in sides):
        return []  # several scales, or a range of them
    return [sides[1], sides[0]] if first == 'width' else [sides[0], sides[1]]


def data_facts(dataset: Any, task: str) -> dict[str, int | None]:
    """Number of classes (of key points in pose) and of samples of a data set that is built.

    Args:
        dataset: A training data set, out of a data loader.
        task: Of the run.
    """
    while hasattr(dataset, 'dataset'):  # RepeatDataset and the like
        dataset = dataset.dataset
    meta = getattr(dataset, 'metainfo', None) or {}
    classes = meta.get('classes', meta.get('CLASSES'))
    if task == 'pose':
        n_classes = meta.get('num_keypoints')
    else:
        n_classes = len(classes) if isinstance(classes, Sized) else None
    size = getattr(dataset, '__len__', None)
    return {'n_classes': n_classes, 'n_train': size() if size else None}
