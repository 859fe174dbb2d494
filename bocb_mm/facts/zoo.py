"""The shipped experiments as OpenMMLab's model index, from the names of their files. No torch.

``mim`` and mmengine find a package's configs through ``.mim/model-index.yml`` and the metafiles it
names. The build writes both (``hatch_build.py``), and the site shows the same table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bocb_mm import facts

METAFILE = 'configs/metafile.yml'
# Names of an experiment's config -> task, data, metric, as OpenMMLab's metafiles spell them.
_KINDS = (
    (r'pretrain/cifar100/(?P<backbone>.+)', 'Image Classification', 'CIFAR-100'),
    (
        r'pretrain/imagenet/(?P<backbone>[^_]+)_(?P<recipe>.+)',
        'Image Classification',
        'ImageNet-1k',
    ),
    (r'retinanet_(?P<backbone>[^_]+)_(?P<recipe>.+)_pretrain', 'Object Detection', 'COCO'),
    (r'topdown_(?P<backbone>[^_]+)_(?P<recipe>[^_]+)_pretrain.*', 'Body 2D Keypoint', 'COCO'),
)


@dataclass(frozen=True)
class Experiment:
    """A shipped config of the paper's.

    Attributes:
        config: Its name, the path below ``configs`` without ``.py``.
        backbone: Short name of the network.
        task: As OpenMMLab's metafiles spell it.
        data: The training data.
        recipe: Of the training on ImageNet, of the pre-training in detection and pose; ``''`` on
            CIFAR-100, where the network has one.
    """

    config: str
    backbone: str
    task: str
    data: str
    recipe: str


def experiments(configs: Iterable[str]) -> list[Experiment]:
    """Those of ``configs`` that are experiments of the paper.

    Args:
        configs: Names as :func:`bocb_mm.shipped.configs` has them.

    Example:
        >>> experiments(['retinanet_r50_lars_pretrain', 'quickstart/digits_r18-xs'])[0].backbone
        'R-50'
    """
    found = []
    for config in configs:
        for pattern, task, data in _KINDS:
            match = re.fullmatch(pattern, config)
            row = facts.find_backbone(_network(match['backbone'])) if match else None
            if match and row:
                recipe = match.groupdict().get('recipe') or ''
                found.append(Experiment(config, row.name, task, data, recipe))
    return found


def metafile(configs: Iterable[str]) -> str:
    """The metafile's text: a collection a backbone, a model a config. JSON, which is YAML too.

    There are no weights in it: nobody has trained the experiments with this package yet.
    """
    found = experiments(configs)
    names = dict.fromkeys(e.backbone for e in found)
    collections = [_collection(facts.BACKBONES[name]) for name in names]
    return _text({'Collections': collections, 'Models': [_model(e) for e in found]})


def model_index() -> str:
    """The text of ``model-index.yml``, which names the metafiles."""
    return _text({'Import': [METAFILE]})


def _network(name: str) -> str:
    """A config's spelling of a backbone: ``vgg13bn`` is the paper's VGG-13, which has the norm."""
    return {'vgg13bn': 'VGG-13'}.get(name, name)


def _collection(row: facts.Backbone) -> dict[str, Any]:
    parts = (row.operator, row.block_wise, row.stage_wise)
    return {
        'Name': row.name,
        'Metadata': {'Architecture': [part for part in parts if part != '-']},
        'Paper': {'Title': f'{row.paper_name} ({row.venue})'},
    }


def _model(experiment: Experiment) -> dict[str, Any]:
    stem = experiment.config.rpartition('/')[2]
    cifar = experiment.data == 'CIFAR-100'
    return {
        'Name': f'{stem}_cifar100' if cifar else stem,
        'In Collection': experiment.backbone,
        'Metadata': {'Training Data': experiment.data},
        'Results': [{'Task': experiment.task, 'Dataset': experiment.data, 'Metrics': {}}],
        'Config': f'configs/{experiment.config}.py',
    }


def _text(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + '\n'
