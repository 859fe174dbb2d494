"""What an MM config trains: task, data set, backbone, headline metric. Builds nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bocb_mm.config.metric import Headline, evaluators, headline_of

# default_scope of a config -> task; of other toolboxes the scope itself is the task's name.
SCOPES = {
    'mmpretrain': 'classification',
    'mmcls': 'classification',
    'mmdet': 'detection',
    'mmyolo': 'detection',
    'mmpose': 'pose',
    'mmseg': 'segmentation',
    'mmaction': 'action recognition',
    'mmrotate': 'rotated detection',
    'mmdet3d': '3D detection',
    'mmocr': 'text recognition',
}
# Tasks without defaults of their own -> the task whose rates they start from.
_RATES_OF = {'segmentation': 'detection', 'rotated detection': 'detection'}
# Packages whose names stand in a type; torch's classes are registered bare.
_PREFIXED = (*SCOPES, 'mmengine', 'bocb_mm')
# Data set classes (lower case, without the word Dataset) whose record name differs from the class.
_DATASETS = {'imagenet1k': 'imagenet', 'cocowholebody': 'coco_wholebody'}
# Backbones of a library: the argument that names the network -> the library.
_OF_LIBRARY = {'TIMMBackbone': 'timm', 'HuggingFaceBackbone': 'huggingface'}


@dataclass(frozen=True)
class Description:
    """What a config trains, as far as the config says.

    Attributes:
        task: ``'classification'``, ``'detection'``, ``'pose'``, ``'segmentation'``...; the scope
            of a toolbox that is not known, ``''`` where nothing says one.
        dataset: ``dataset_name`` of the config or, without it, the lower-case name of the
            training data set's class, e.g. ``'cifar100'``.
        backbone: Registry type of the backbone without scope, with its depth where it has one;
            of a model without a backbone, the model's.
        headline: Metric that runs are judged by.
    """

    task: str
    dataset: str
    backbone: str
    headline: Headline

    @property
    def metric(self) -> str:
        """Name of the headline metric as mmengine logs it; ``''`` where only a run can tell."""
        return self.headline.name


def describe(cfg: Mapping[str, Any]) -> Description:
    """Read task, data set, backbone and headline metric from a config of any toolbox.

    Args:
        cfg: A whole mmengine config (or a dict of the same form).

    Example:
        >>> model = {'backbone': {'type': 'ResNet', 'depth': 50}}
        >>> found = describe({'default_scope': 'mmpose', 'model': model})
        >>> found.task, found.backbone, found.metric
        ('pose', 'ResNet-50', 'coco/AP')
    """
    task = task_of(cfg)
    return Description(task, dataset_of(cfg), backbone_name(cfg), headline_of(cfg, task))


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
    module, name = getattr(kind, '__module__', ''), getattr(kind, '__name__', str(kind))
    scope = str(module).partition('.')[0]
    return f'{scope}.{name}' if scope in _PREFIXED else name


def task_of(cfg: Mapping[str, Any]) -> str:
    """The task, from ``default_scope`` or, without a known one, from the model's scope prefix.

    Example:
        >>> task_of({'default_scope': 'mmseg'}), task_of({'default_scope': 'my_toolbox'})
        ('segmentation', 'my_toolbox')
    """
    scope = str(cfg.get('default_scope') or '')
    of_model = type_name(cfg.get('model')).rpartition('.')[0].partition('.')[0]
    known = next((s for s in (scope, of_model) if s in SCOPES), None)
    if known == 'mmocr' and any('hmean' in kind.lower() for kind in evaluators(cfg)):
        return 'text detection'
    return SCOPES[known] if known else (scope or of_model)


def task_of_rates(cfg: Mapping[str, Any]) -> str:
    """The task whose default rates a config of any task starts from.

    Example:
        >>> task_of_rates({'default_scope': 'mmseg'}), task_of_rates({'default_scope': 'mmaction'})
        ('detection', 'classification')
    """
    task = task_of(cfg)
    return task if task in ('detection', 'pose') else _RATES_OF.get(task, 'classification')


def parts_of(part: Any) -> Iterator[Mapping[str, Any]]:
    """A part of a config and all parts in it, outermost first."""
    if isinstance(part, Mapping):
        yield part
        for value in part.values():
            yield from parts_of(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from parts_of(value)


def training_data(cfg: Mapping[str, Any]) -> Mapping[str, Any]:
    """Config of the training data set, out of RepeatDataset, ConcatDataset and the like.

    Example:
        >>> inner = {'type': 'A'}
        >>> wrapped = {'type': 'RepeatDataset', 'dataset': {'datasets': [inner]}}
        >>> training_data({'train_dataloader': {'dataset': wrapped}})
        {'type': 'A'}
    """
    loader = cfg.get('train_dataloader')
    dataset: Any = loader.get('dataset') if isinstance(loader, Mapping) else None
    while isinstance(dataset, Mapping):
        several = dataset.get('datasets')
        inner = several[0] if isinstance(several, list | tuple) and several else None
        inner = dataset.get('dataset', inner)
        if inner is None:
            return dataset
        dataset = inner
    return {}


def dataset_of(cfg: Mapping[str, Any]) -> str:
    """Name of the training data in tables."""
    if cfg.get('dataset_name'):  # configs whose class is a stock one for data of another name
        return str(cfg['dataset_name'])
    name = type_name(training_data(cfg))
    name = name.rpartition('.')[2].lower().removesuffix('dataset')
    return _DATASETS.get(name, name)


def backbone_of(cfg: Mapping[str, Any]) -> Mapping[str, Any]:
    """Config of the backbone: the model's own, else the first one in a part of it."""
    model = cfg.get('model')
    found = [p['backbone'] for p in parts_of(model) if isinstance(p.get('backbone'), Mapping)]
    return found[0] if found else {}


def backbone_name(cfg: Mapping[str, Any]) -> str:
    """Name of the backbone in tables; what else makes the network is in its architecture."""
    backbone = backbone_of(cfg) or next(parts_of(cfg.get('model')), {})
    kind = type_name(backbone)
    scope, _, name = kind.rpartition('.')
    if 'bocb_mm' in scope.split(
        '.'
    ):  # its names say the size; `depth` may be left over from a _base_
        return kind.partition('bocb_mm.')[2]
    if name in _OF_LIBRARY:
        return f'{_OF_LIBRARY[name]}/{backbone.get("model_name", "")}'
    size = backbone.get('depth', backbone.get('arch'))
    return f'{name}-{size}' if isinstance(size, (int, str)) else name
