"""What an MM config trains: task, data set, backbone, headline metric. Builds nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bocb_mm.errors import UserError

# default_scope of a config -> task
_SCOPES = {'mmpretrain': 'classification', 'mmdet': 'detection', 'mmpose': 'pose'}
# Packages whose names stand in a type; torch's classes are registered bare.
_PREFIXED = (*_SCOPES, 'mmengine', 'bocb_mm')
# The number each task is judged by: the paper's Tables 1-3.
HEADLINE_METRICS = {
    'classification': 'accuracy/top1',
    'detection': 'coco/bbox_mAP',
    'pose': 'coco/AP',
}
# Data set classes (lower case, without the word Dataset) whose record name differs from the class.
_DATASETS = {'imagenet1k': 'imagenet', 'cocowholebody': 'coco_wholebody'}


@dataclass(frozen=True)
class Description:
    """What a config trains, as far as the config says.

    Attributes:
        task: ``'classification'``, ``'detection'`` or ``'pose'``.
        dataset: ``dataset_name`` of the config or, without it, the lower-case name of the
            training data set's class, e.g. ``'cifar100'``.
        backbone: Registry type of the backbone without scope, with its depth where it has one.
        metric: Name of the headline metric as mmengine logs it.
    """

    task: str
    dataset: str
    backbone: str
    metric: str


def describe(cfg: Mapping[str, Any]) -> Description:
    """Read task, data set, backbone and headline metric from a config.

    Args:
        cfg: A whole mmengine config (or a dict of the same form).

    Raises:
        UserError: The config is not of mmpretrain, mmdet or mmpose.

    Example:
        >>> model = {'backbone': {'type': 'ResNet', 'depth': 50}}
        >>> describe({'default_scope': 'mmpose', 'model': model})
        Description(task='pose', dataset='', backbone='ResNet-50', metric='coco/AP')
    """
    task = task_of(cfg)
    return Description(task, _dataset(cfg), _backbone(cfg), HEADLINE_METRICS[task])


def type_name(part: Any) -> str:
    """The ``type`` of a config's part as a registry name; ``''`` where there is none.

    mmengine's lazy configs (those that import) hold the class itself.

    Example:
        >>> type_name({'type': 'bocb_mm.LARS'}), type_name({'type': dict}), type_name(None)
        ('bocb_mm.LARS', 'dict', '')
    """
    kind = part.get('type') if isinstance(part, Mapping) else None
    if kind is None or isinstance(kind, str):
        return kind or ''
    scope = kind.__module__.partition('.')[0]
    return f'{scope}.{kind.__name__}' if scope in _PREFIXED else kind.__name__


def task_of(cfg: Mapping[str, Any]) -> str:
    """The task, from ``default_scope`` or, without one, from the model's scope prefix."""
    model = cfg.get('model') or {}
    scope = cfg.get('default_scope') or type_name(model).partition('.')[0]
    if scope not in _SCOPES:
        raise UserError(
            f'config of scope {scope!r}: bocb_mm trains configs of {", ".join(_SCOPES)} '
            '(set default_scope to the toolbox the config is for)'
        )
    return _SCOPES[scope]


def _dataset(cfg: Mapping[str, Any]) -> str:
    if cfg.get('dataset_name'):  # configs whose class is a stock one for data of another name
        return str(cfg['dataset_name'])
    loader = cfg.get('train_dataloader') or {}
    dataset: Any = loader.get('dataset') or {}
    while isinstance(dataset, Mapping) and 'dataset' in dataset:  # RepeatDataset and the like
        dataset = dataset['dataset']
    name = type_name(dataset)
    name = name.rpartition('.')[2].lower().removesuffix('dataset')
    return _DATASETS.get(name, name)


def _backbone(cfg: Mapping[str, Any]) -> str:
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    scope, _, name = type_name(backbone).rpartition('.')
    if scope == 'bocb_mm':  # its names say the size; `depth` may be left over from a _base_
        return name
    size = backbone.get('depth', backbone.get('arch'))
    return f'{name}-{size}' if isinstance(size, (int, str)) else name
