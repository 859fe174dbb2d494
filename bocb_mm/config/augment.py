"""``augment_on = 'device'`` in a config: what workers need not do goes to the preprocessor."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from bocb_mm.config.describe import type_name
from bocb_mm.errors import UserError

PREPROCESSOR = 'bocb_mm.AugmentingDataPreprocessor'
# Data sets whose images have one size, so that a batch can be stacked before it is cropped.
_ONE_SIZE = ('CIFAR10', 'CIFAR100')


def augment_on_device(cfg: Config) -> None:
    """Move random erasing and cubic enlarging from the training pipeline to the device.

    Moved is what ends the pipeline: RandomErasing, and for CIFAR the bicubic RandomResizedCrop,
    which may change places with a flip, since its boxes are as likely as their mirror images.
    Whatever stands before a transform that stays, RandAugment for one, stays as well.
    Normalisation, mixup and cutmix run on the device in any case.

    Args:
        cfg: Changed in place where its ``augment_on`` is ``'device'``.

    Raises:
        UserError: Another value than ``'worker'`` or ``'device'``, or not a classifier's config.
    """
    where = cfg.get('augment_on', 'worker')
    if where not in ('worker', 'device'):
        raise UserError(f"augment_on={where!r}: 'worker' or 'device' is expected")
    if where == 'worker':
        return
    holder = cfg.model if cfg.model.get('data_preprocessor') else cfg
    preprocessor = holder.setdefault('data_preprocessor', ConfigDict())
    kind = type_name(preprocessor).removeprefix('mmpretrain.')
    if kind == PREPROCESSOR:  # written by an earlier run of this function
        return
    if kind not in ('', 'ClsDataPreprocessor') or cfg.get('default_scope') != 'mmpretrain':
        raise UserError(
            "augment_on='device': a classifier of mmpretrain with ClsDataPreprocessor is "
            f'expected, not {kind or cfg.get("default_scope")}; leave augment_on out'
        )
    dataset = cfg.train_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    dataset['pipeline'], moved = split(dataset['pipeline'], type_name(dataset))
    if moved:
        preprocessor.update(type=PREPROCESSOR, batch_transforms=moved)
    names = ', '.join(type_name(t).removeprefix('bocb_mm.Batch') for t in moved) or 'nothing'
    print_log(f"augment_on='device': {names} moved from the workers to the device", 'current')


def split(pipeline: list[Any], dataset: str) -> tuple[list[Any], list[ConfigDict]]:
    """What stays with the workers, and the batch transforms that take over from the rest.

    Example:
        >>> stay, moved = split([{'type': 'RandomErasing'}, {'type': 'PackInputs'}], 'ImageNet')
        >>> [t['type'] for t in stay], [t['type'] for t in moved]
        (['PackInputs'], ['bocb_mm.BatchRandomErasing'])
    """
    stay: list[Any] = [pipeline[-1]]
    moved: list[ConfigDict] = []
    for i in range(len(pipeline) - 2, -1, -1):
        name = type_name(pipeline[i]).removeprefix('mmpretrain.')
        erases = name == 'RandomErasing' and len(stay) == 1
        enlarges = (
            name == 'RandomResizedCrop'
            and dataset.rpartition('.')[2] in _ONE_SIZE
            and pipeline[i].get('interpolation') == 'bicubic'
            and pipeline[i].get('backend') == 'pillow'
        )
        if erases or enlarges:
            moved.insert(0, ConfigDict({**pipeline[i], 'type': f'bocb_mm.Batch{name}'}))
        elif name == 'RandomFlip':
            stay.insert(0, pipeline[i])
        else:
            return pipeline[: i + 1] + stay, moved
    return stay, moved
