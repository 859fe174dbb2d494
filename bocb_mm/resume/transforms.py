"""Transforms with a memory of their own, by which a resumed run sees other images."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

_GENERATORS = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)
_NESTED = ('pipeline', 'transforms', 'dataset', 'datasets')


def stateful_transforms(dataset: Any) -> list[str]:
    """Names of a data set's transforms that keep images or a random generator between samples.

    Neither can be saved: the transforms live in the data workers. mmdet's CachedMosaic and
    CachedMixUp keep earlier images, mmyolo's Mosaic with ``use_cached`` too, and albumentations
    has generators of its own.

    Args:
        dataset: A data set, or a wrapper of one.

    Example:
        >>> class CachedMosaic:
        ...     results_cache: list = []
        >>> class Data:
        ...     pipeline = [CachedMosaic()]
        >>> stateful_transforms(Data())
        ['CachedMosaic']
    """
    found = {
        type(part).__name__ for part in _parts(dataset, 0) if _keeps_images(part) or _draws(part)
    }
    return sorted(found)


def _parts(part: Any, depth: int) -> Iterator[Any]:
    if depth > 20 or part is None or isinstance(part, str | bytes | dict | torch.Tensor):
        return
    if isinstance(part, list | tuple):
        if len(part) < 100:  # a pipeline, not data
            for one in part:
                yield from _parts(one, depth + 1)
        return
    yield part
    for name in _NESTED:
        yield from _parts(getattr(part, name, None), depth + 1)


def _keeps_images(part: Any) -> bool:
    uses = getattr(part, 'use_cached', None)
    return bool(uses) if uses is not None else hasattr(part, 'results_cache')


def _draws(part: Any) -> bool:
    held = getattr(part, '__dict__', {}).values()
    return any(isinstance(value, _GENERATORS) for value in held) or 'Albu' in type(part).__name__
