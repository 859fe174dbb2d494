"""How things are called: canonical names for matching, the paper's spelling for showing."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from bocb_mm import facts

# A search has thousands of runs and a few dozen names.
_remembered = functools.lru_cache(maxsize=4096)


def words(text: str) -> list[str]:
    """The words of a list that reads better as text."""
    return text.split()


# The paper's, in its order (Table 1).
OPTIMIZERS = [row.name for row in facts.OPTIMIZERS.values() if row.in_paper]
BACKBONES = [row.name for row in facts.BACKBONES.values() if row.in_paper]
# Recipes and pre-trainings, as the paper's column heads abbreviate them.
_TRAININGS = {
    'rsba1': 'A1',
    'rsba2': 'A2',
    'rsba3': 'A3',
    'deit': 'DeiT',
    'pytorch': 'PyTorch',
    'convnext': 'ConvNeXt',
}
_SHORT_TITLES = {
    'table1_cifar100': 'CIFAR-100',
    'table2_imagenet': 'ImageNet-1K',
    'table3_coco': 'COCO',
}
_TASK_PREFIX = {'detection': 'det ', 'pose': 'pose '}


def optimizer(name: str) -> str:
    """The catalog's name of an optimizer, whatever its case; ``SGD-M`` is ``SGD``.

    Example:
        >>> optimizer('adamw'), optimizer('SGD-M'), optimizer('bocb_mm.timm.muon')
        ('AdamW', 'SGD', 'timm.muon')
    """
    row = facts.find_optimizer(name)
    return row.name if row else name.removeprefix('bocb_mm.')


def backbone(name: str) -> str:
    """The catalog's short name of a backbone, from a name that says its size.

    Somebody's ``Swin`` need not be the paper's.

    Example:
        >>> backbone('ResNet-50'), backbone('swin-t'), backbone('AlexNet'), backbone('Swin')
        ('R-50', 'Swin-T', 'AlexNet', 'Swin')
    """
    row = facts.find_backbone(name)
    if row is None:
        return name
    whole = facts.key(name) == facts.key(row.name) or re.search(r'[-_0-9]', name)
    return row.name if whole else name


def training(name: str) -> str:
    """A recipe or a pre-training as the paper's column heads put it: ``rsb-a2`` is ``A2``."""
    return _TRAININGS.get(facts.key(name)) or optimizer(name)


@_remembered
def column(task: str, backbone_name: str, pretraining: str = '', recipe: str = '') -> str:
    """Head of a result column: the backbone, and what sets it apart within its table.

    Args:
        task: ``'classification'``, ``'detection'`` or ``'pose'``; the latter two give a prefix.
        backbone_name: Any spelling of the backbone.
        pretraining: Shown in parentheses for detection and pose.
        recipe: Shown in parentheses for classification.

    Example:
        >>> column('detection', 'R-50', 'rsb-a2'), column('classification', 'R-50')
        ('det R-50 (A2)', 'R-50')
    """
    prefix = _TASK_PREFIX.get(task, '')
    inside = (training(pretraining) or 'scratch') if prefix else training(recipe)
    return f'{prefix}{backbone(backbone_name)}' + (f' ({inside})' if inside else '')


@_remembered
def split_column(head: str) -> tuple[str, str, str]:
    """Task prefix, backbone and parenthesis of a column head, each canonical.

    What :func:`with_detail` put behind them is left out.

    Example:
        >>> split_column('pose VGG (SGD)'), split_column('R-50')
        (('pose', 'VGG-13', 'SGD'), ('', 'R-50', ''))
    """
    plain = re.sub(r'(?s) \[.*\]$', '', head)
    found = re.fullmatch(r'(?s)(?:(det|pose) )?(.*?)(?: \((.*)\))?', plain)
    assert found is not None  # every part of the pattern may be empty
    prefix, name, inside = found.groups()
    name = 'VGG-13' if name == 'VGG' else backbone(name)  # so Table 3 has it
    return prefix or '', name, training(inside) if inside else ''


def with_detail(head: str, detail: str) -> str:
    """A column head with what tells it from others of its name.

    Example:
        >>> with_detail('R-50', 'from SGD'), with_detail('R-50 [from SGD]', 'NME')
        ('R-50 [from SGD]', 'R-50 [from SGD; NME]')
    """
    return f'{head[:-1]}; {detail}]' if head.endswith(']') else f'{head} [{detail}]'


def slug(text: str) -> str:
    """``text`` as a part of a file name; letters of any script stay.

    Example:
        >>> slug('my data/train set')
        'my-data-train-set'
    """
    return re.sub(r'[^\w.-]+', '-', text).strip('.-')


@_remembered
def table_name(task: str, dataset: str) -> str:
    """Name of the result table that runs of a task on a data set belong to.

    Example:
        >>> table_name('pose', 'coco'), table_name('classification', 'digits')
        ('table3_coco', 'classification_digits')
    """
    short = facts.key(dataset)
    if task == 'classification' and short == 'cifar100':
        return 'table1_cifar100'
    if task == 'classification' and short in ('imagenet', 'imagenet1k', 'in1k'):
        return 'table2_imagenet'
    if task in ('detection', 'pose') and short == 'coco':
        return 'table3_coco'
    return slug(f'{task}_{dataset or "unnamed"}')


def short_title(table: str) -> str:
    """Name of a table for a menu.

    Example:
        >>> short_title('table1_cifar100'), short_title('classification_digits')
        ('CIFAR-100', 'classification digits')
    """
    for name, short in _SHORT_TITLES.items():
        if table.startswith(name):
            return short + table.removeprefix(name).replace('_', ' ')
    return table.replace('_', ' ')


def in_paper_order(labels: Iterable[str]) -> list[str]:
    """Optimizers in the catalog's order, the paper's first; unknown ones follow by alphabet.

    Example:
        >>> in_paper_order(['timm.muon', 'AdamW', 'SGD-M'])
        ['SGD-M', 'AdamW', 'timm.muon']
    """
    place = {name: i for i, name in enumerate(facts.OPTIMIZERS)}

    def order(label: str) -> tuple:
        text = str(label)
        return place.get(optimizer(text), len(place)), text.lower(), text

    return sorted(labels, key=order)


def columns_in_paper_order(heads: Iterable[str]) -> list[str]:
    """Column heads in the paper's order: pose before detection, then as in Table 1."""
    place = {name: i for i, name in enumerate(facts.BACKBONES)}
    tasks = {'': 0, 'pose': 1, 'det': 2}

    def order(head: str) -> tuple:
        task, name, inside = split_column(head)
        return tasks[task], place.get(name, len(place)), name, inside, head

    return sorted(heads, key=order)


def optimizer_class(name: str) -> str:
    """``'a'`` to ``'d'`` of section 2.2, ``''`` for an optimizer that no catalog has."""
    row = facts.find_optimizer(name)
    return row.category if row else ''


def backbone_class(name: str) -> str:
    """Class of a backbone in words, ``''`` for one that no catalog has.

    Example:
        >>> backbone_class('resnet50'), backbone_class('CF-12'), backbone_class('MyNet')
        ('classical CNN', 'MetaFormer', '')
    """
    row = facts.find_backbone(name)
    return (row.series or facts.BACKBONE_CATEGORIES[row.category]) if row else ''
