"""What is known of optimizers and backbones, once: one row of a CSV file each. No torch in here.

``optimizers.csv`` and ``backbones.csv`` hold names, order, categories and citations (Tables A1 and
A2 of the paper), ``defaults.csv`` the learning rates and weight decays that a publication or its
code states. The catalogs build on them, and the report reads them on machines without torch. Rows
with ``in_paper`` ``no`` come behind the paper's and are in none of its tables.
"""

from __future__ import annotations

import csv
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

OPTIMIZER_CATEGORIES = {
    'a': 'fixed learning rate with momentum',
    'b': 'adaptive learning rate with momentum',
    'c': 'estimated learning rate with momentum',
    'd': 'adaptive learning rate without momentum',
}
"""The four categories of section 2.2 of the paper."""

BACKBONE_CATEGORIES = {
    'primary': 'primary CNN',
    'classical': 'classical CNN',
    'modern': 'modern DNN',
}
"""The three categories of section 3.2 of the paper."""


@dataclass(frozen=True)
class Default:
    """Learning rate and weight decay to start from, and where they come from.

    Attributes:
        lr: Learning rate at the recipe's batch size.
        weight_decay: Weight decay.
        source: Where they stand, or the rule they were derived with.
        sourced: True where a publication or its code states them, False where extrapolated.
        extra: Further arguments the source sets.
    """

    lr: float
    weight_decay: float
    source: str
    sourced: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A training schedule that rates are quoted for: a row of ``recipes.csv``.

    Attributes:
        batch: Global batch size.
        sgd_lr: Rate of SGD with momentum under it.
        adamw_lr: Rate of AdamW under it. Both anchor the rates of the optimizers without a source.
        note: Where the two come from.
    """

    batch: int
    sgd_lr: float
    adamw_lr: float
    note: str


@dataclass(frozen=True)
class Optimizer:
    """A row of ``optimizers.csv``; the attributes are those of the optimizer catalog's rows.

    Attributes:
        name: As the paper spells it.
        in_paper: Whether it is one of the paper's 20.
        category: Key of :data:`OPTIMIZER_CATEGORIES`.
        decay: Kind of weight decay.
        paper: Authors, venue, year.
        reference: Identifier of the paper.
        aliases: Other names it is found by.
        implementation: What does the arithmetic: ``'torch.optim.AdamW'`` or ``'bocb_mm'``.
        class_path: Import path of the class.
        anchor: ``'SGD'`` or ``'AdamW'``: whose rate the extrapolated ones follow; ``''`` for a rate
            that does not depend on the recipe.
        ratio: Rate relative to the anchor's, or the rate itself without an anchor.
        weight_decay: Decay where no source states one.
        why: The reason for ``ratio`` and ``weight_decay``.
        fixed: Settings beyond rate and decay that stay fixed in a search, e.g. the betas.
        elementwise: Whether an element's update depends on that element's gradients only.
        needs: What it needs beside a rate and a decay.
    """

    name: str
    in_paper: bool
    category: str
    decay: str
    paper: str
    reference: str
    aliases: tuple[str, ...]
    implementation: str
    class_path: str
    anchor: str
    ratio: float
    weight_decay: float
    why: str
    fixed: Mapping[str, Any]
    elementwise: bool
    needs: str


@dataclass(frozen=True)
class Backbone:
    """A row of ``backbones.csv``; the attributes are those of the backbone catalog's rows.

    Attributes:
        name: The paper's short name.
        in_paper: Whether it is one of the paper's 20.
        paper_name: The long name.
        venue: Where it was published (Table A1).
        category: Key of :data:`BACKBONE_CATEGORIES`.
        series: ``'MetaFormer'`` for those that differ in the token mixer only, else ``''``.
        stage_wise: Stage-wise design (Table A1).
        block_wise: Block-wise design (Table A1).
        operator: Feature extractor (Table A1).
        residual: Residual branch (Table A1).
        input_size: Side of the square training image on CIFAR-100, in pixels (Table A1).
        recipe: Training setting (Table A1), a column of Table A3.
        aliases: Other names it is found by.
    """

    name: str
    in_paper: bool
    paper_name: str
    venue: str
    category: str
    series: str
    stage_wise: str
    block_wise: str
    operator: str
    residual: str
    input_size: int
    recipe: str
    aliases: tuple[str, ...]


@functools.lru_cache(maxsize=4096)  # asked for every run and every row
def key(name: str) -> str:
    """The form under which names are compared: letters and digits only, lower case.

    Example:
        >>> key('bocb_mm.ResNet-50'), key('ConvNeXtV2_T')
        ('resnet50', 'convnextv2t')
    """
    return re.sub(r'[^0-9a-z]', '', name.lower().removeprefix('bocb_mm.'))


def _settings(text: str) -> Mapping[str, Any]:
    """A JSON object as keyword arguments: its arrays are tuples."""
    found = json.loads(text or '{}')
    return {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}


_READERS: dict[str, Callable[[str], Any]] = {
    'in_paper': lambda text: {'yes': True, 'no': False}[text],
    'elementwise': lambda text: {'yes': True, 'no': False}[text],
    'aliases': lambda text: tuple(text.split()),
    'ratio': float,
    'lr': float,
    'sgd_lr': float,
    'adamw_lr': float,
    'batch': int,
    'weight_decay': float,
    'input_size': int,
    'fixed': _settings,
    'extra': _settings,
}


def _rows(file_name: str) -> Iterator[dict[str, Any]]:
    with (resources.files('bocb_mm.facts') / file_name).open(encoding='utf-8') as file:
        for row in csv.DictReader(file):
            yield {k: _READERS.get(k, str)(v) for k, v in row.items()}


# Dicts that are looked at when asked, so that a row added to them counts everywhere at once.
OPTIMIZERS: dict[str, Optimizer] = {r['name']: Optimizer(**r) for r in _rows('optimizers.csv')}
"""Every optimizer by name, the paper's in the order of Table 1."""

BACKBONES: dict[str, Backbone] = {r['name']: Backbone(**r) for r in _rows('backbones.csv')}
"""Every backbone by its short name, the paper's in the order of Table 1."""

DEFAULTS: dict[tuple[str, str], Default] = {
    (r.pop('optimizer'), r.pop('recipe')): Default(**r) for r in _rows('defaults.csv')
}
"""Sourced rates and decays by optimizer and recipe (a task, or a schedule of classification)."""


RECIPES: dict[str, Recipe] = {r.pop('name'): Recipe(**r) for r in _rows('recipes.csv')}
"""Recipes of classification by name, and one for each other task."""

DEFAULT_RECIPE = next(iter(RECIPES))
"""The paper's CIFAR-100 schedule of 200 epochs."""


def default(optimizer: str | Optimizer, recipe: str = DEFAULT_RECIPE) -> Default:
    """Rate and decay to start from: a sourced one, else extrapolated from SGD's or AdamW's.

    Args:
        optimizer: A name in :data:`OPTIMIZERS`, or a row like theirs.
        recipe: A name in :data:`RECIPES`.

    Example:
        >>> default('AdamW', 'detection').source, default('LION').lr
        ('mmdet RetinaNet RSB R-50', 0.0002)
    """
    row = OPTIMIZERS[optimizer] if isinstance(optimizer, str) else optimizer
    sourced = DEFAULTS.get((row.name, recipe))
    if sourced is not None:
        return sourced
    schedule = RECIPES[recipe]
    base = {'SGD': schedule.sgd_lr, 'AdamW': schedule.adamw_lr}.get(row.anchor, 1.0)
    lr = float(f'{base * row.ratio:.6g}')
    return Default(lr, row.weight_decay, f'extrapolated: {row.why}', sourced=False)


def find_optimizer(name: str) -> Optimizer | None:
    """The row of an optimizer by name or alias, whatever its case and punctuation.

    Example:
        >>> find_optimizer('sgd-m').name, find_optimizer('bocb_mm.adamw').name
        ('SGD', 'AdamW')
    """
    wanted = key(name)
    return next(
        (row for row in OPTIMIZERS.values() if wanted in map(key, (row.name, *row.aliases))), None
    )


def find_backbone(name: str) -> Backbone | None:
    """The row of a backbone by short name, long name or alias, whatever its case and punctuation.

    Example:
        >>> find_backbone('resnet_50').name, find_backbone('MyNet')
        ('R-50', None)
    """
    wanted = key(name)
    return next(
        (
            row
            for row in BACKBONES.values()
            if wanted in map(key, (row.name, row.paper_name, *row.aliases))
        ),
        None,
    )
