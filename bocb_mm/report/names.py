"""How things are called: canonical names for matching, the paper's spelling for showing."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

# A search has thousands of runs and a few dozen names.
_remembered = functools.lru_cache(maxsize=4096)


def words(text: str) -> list[str]:
    """The words of a list that reads better as text."""
    return text.split()


# The paper's order (Table 1).
OPTIMIZERS = words(
    'SGD SGDP LION Adam Adamax NAdam AdamW LAMB RAdam AdamP Adan AdaBound LARS AdaFactor '
    'AdaBelief NovoGrad Sophia AdaGrad AdaDelta RMSProp'
)
BACKBONES = words(
    'AlexNet VGG-13 R-50 DN-121 MobV2 Eff-B0 RVGG-A1 DeiT-S MLP-S Swin-T CNX-T CNXV2-T Moga-S '
    'URLK-T TNX-T IF-12 PFV2-12 CF-12 AF-12 CAF-12'
)
# Section 3.2: the classes of optimizers and backbones, by first letter.
OPTIMIZER_CLASSES = {
    'a': words('SGD SGDP LION'),
    'b': words('Adam Adamax NAdam AdamW LAMB RAdam AdamP Adan'),
    'c': words('AdaBound LARS AdaFactor AdaBelief NovoGrad Sophia'),
    'd': words('AdaGrad AdaDelta RMSProp'),
}
BACKBONE_CLASSES = {
    'primary CNN': words('AlexNet VGG-13'),
    'classical CNN': words('R-50 DN-121 MobV2 Eff-B0 RVGG-A1'),
    'modern DNN': BACKBONES[7:15],
    'MetaFormer': BACKBONES[15:],
}
# Spellings met in Table 3 and in configs of the MM toolboxes, without case and punctuation.
_BACKBONE_SPELLINGS = {
    'alex': 'AlexNet',
    'vgg': 'VGG-13',
    'vgg13bn': 'VGG-13',
    'resnet50': 'R-50',
    'densenet121': 'DN-121',
    'mobilenetv2': 'MobV2',
    'efficientnetb0': 'Eff-B0',
    'repvgga1': 'RVGG-A1',
    'deitsmall': 'DeiT-S',
    'mlpmixers': 'MLP-S',
    'swintiny': 'Swin-T',
    'swintransformertiny': 'Swin-T',
    'convnexttiny': 'CNX-T',
    'convnextt': 'CNX-T',
    'convnextv2tiny': 'CNXV2-T',
    'mogasmall': 'Moga-S',
    'moganetsmall': 'Moga-S',
    'unireplknett': 'URLK-T',
    'transnexttiny': 'TNX-T',
    'identityformers12': 'IF-12',
    'poolformerv2s12': 'PFV2-12',
    'convformers12': 'CF-12',
    'attentionformers12': 'AF-12',
    'caformers12': 'CAF-12',
}
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


def key(name: str) -> str:
    """``name`` without case and punctuation, for comparing spellings."""
    return re.sub(r'[^0-9a-z]', '', name.lower())


_OPTIMIZERS_BY_KEY = {key(o): o for o in OPTIMIZERS} | {'sgdm': 'SGD'}
_BACKBONES_BY_KEY = {key(b): b for b in BACKBONES} | _BACKBONE_SPELLINGS


@_remembered
def optimizer(name: str) -> str:
    """The paper's name of an optimizer, whatever its case; ``SGD-M`` is ``SGD``.

    Example:
        >>> optimizer('adamw'), optimizer('SGD-M'), optimizer('Muon')
        ('AdamW', 'SGD', 'Muon')
    """
    return _OPTIMIZERS_BY_KEY.get(key(name), name)


def backbone(name: str) -> str:
    """The paper's short name of a backbone, from its short or its registry name.

    Example:
        >>> backbone('ResNet-50'), backbone('swin-t'), backbone('MyNet')
        ('R-50', 'Swin-T', 'MyNet')
    """
    return _BACKBONES_BY_KEY.get(key(name), name)


def training(name: str) -> str:
    """A recipe or a pre-training as the paper's column heads put it: ``rsb-a2`` is ``A2``."""
    short = key(name)
    return _TRAININGS.get(short) or _OPTIMIZERS_BY_KEY.get(short) or name


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

    Example:
        >>> split_column('pose VGG (SGD)'), split_column('R-50')
        (('pose', 'VGG-13', 'SGD'), ('', 'R-50', ''))
    """
    found = re.fullmatch(r'(?:(det|pose) )?(.*?)(?: \((.*)\))?', head)
    assert found is not None  # every part of the pattern may be empty
    prefix, name, inside = found.groups()
    return prefix or '', backbone(name), training(inside) if inside else ''


@_remembered
def table_name(task: str, dataset: str) -> str:
    """Name of the result table that runs of a task on a data set belong to.

    Example:
        >>> table_name('pose', 'coco'), table_name('classification', 'digits')
        ('table3_coco', 'classification_digits')
    """
    short = key(dataset)
    if task == 'classification' and short == 'cifar100':
        return 'table1_cifar100'
    if task == 'classification' and short in ('imagenet', 'imagenet1k', 'in1k'):
        return 'table2_imagenet'
    if task in ('detection', 'pose') and short == 'coco':
        return 'table3_coco'
    return re.sub(r'[^0-9A-Za-z_.-]+', '-', f'{task}_{dataset or "unnamed"}').strip('.-')


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


def in_paper_order(labels: Iterable[str], known: Iterable[str] = OPTIMIZERS) -> list[str]:
    """``labels`` in the paper's order; those it does not have follow by alphabet.

    Example:
        >>> in_paper_order(['Muon', 'AdamW', 'SGD-M'])
        ['SGD-M', 'AdamW', 'Muon']
    """
    place = {name: i for i, name in enumerate(known)}

    def order(label: str) -> tuple:
        text = str(label)
        return place.get(optimizer(text), len(place)), text.lower(), text

    return sorted(labels, key=order)


def columns_in_paper_order(heads: Iterable[str]) -> list[str]:
    """Column heads in the paper's order: pose before detection, then as in Table 1."""
    place = {name: i for i, name in enumerate(BACKBONES)}
    tasks = {'': 0, 'pose': 1, 'det': 2}

    def order(head: str) -> tuple:
        task, name, inside = split_column(head)
        return tasks[task], place.get(name, len(place)), name, inside, head

    return sorted(heads, key=order)


def optimizer_class(name: str) -> str:
    """``'a'`` to ``'d'`` of section 3.2, ``''`` for an optimizer the paper does not have."""
    found = optimizer(name)
    return next((c for c, members in OPTIMIZER_CLASSES.items() if found in members), '')


def backbone_class(name: str) -> str:
    """Class of a backbone after section 3.2, ``''`` for one the paper does not have."""
    found = backbone(name)
    return next((c for c, members in BACKBONE_CLASSES.items() if found in members), '')
