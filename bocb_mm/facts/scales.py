"""In which unit the toolboxes log a metric, and whether more of it is better: ``scales.csv``."""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources

UNITS = ('percent', 'share', 'share or percent', 'pixels', 'number')


@dataclass(frozen=True)
class Scale:
    """What is known of a metric.

    Attributes:
        unit: One of :data:`UNITS`, as the toolbox logs it. ``'share or percent'``: it depends on
            the evaluator, or the metric is not in the table; a share is never above 1.
        larger_is_better: False for errors and losses.
        known: Whether the table has the metric.
    """

    unit: str
    larger_is_better: bool = True
    known: bool = True


@functools.cache
def rows() -> tuple[dict[str, str], ...]:
    """The rows of ``scales.csv``: ``metric`` and ``evaluator`` are shell patterns, lower case."""
    with (resources.files(__package__) / 'scales.csv').open(encoding='utf-8') as file:
        return tuple(csv.DictReader(file))


@functools.lru_cache(maxsize=1024)
def scale(metric: str, evaluator: str = '') -> Scale:
    """The scale of a metric; the first row of ``scales.csv`` that fits says it.

    Args:
        metric: Its name as mmengine logs it, with the prefix.
        evaluator: Class of the evaluator, where it is known.

    Example:
        >>> scale('coco/bbox_mAP').unit, scale('NME').larger_is_better, scale('my/score').known
        ('share', False, False)
        >>> scale('PCK', 'MpiiPCKAccuracy').unit, scale('PCK').unit
        ('percent', 'share or percent')
    """
    name, kind = metric.lower(), evaluator.rpartition('.')[2].lower()
    for row in rows():
        if fnmatchcase(name, row['metric']) and fnmatchcase(kind, row['evaluator']):
            return Scale(row['unit'], row['better'] == 'larger')
    return Scale('share or percent', known=False)


def result(metric: str, value: float | None) -> float | None:
    """A logged value, or ``None`` where it says that there is none.

    COCO's evaluation logs -1 where the data hold no object of the kind that is asked for.

    Example:
        >>> result('coco/bbox_mAP_s', -1.0), result('coco/bbox_mAP', 0.0)
        (None, 0.0)
    """
    if value is None or not math.isfinite(value):
        return None
    return None if value == -1 and scale(metric).unit == 'share' else value


def best(metric: str, values: Iterable[float | None], evaluator: str = '') -> float | None:
    """The best of some logged values of a metric; ``None`` where there is none.

    Example:
        >>> best('NME', [0.05, None, 0.04]), best('coco/AP', [-1.0, 0.5, 0.4])
        (0.04, 0.5)
    """
    found = [v for v in (result(metric, v) for v in values) if v is not None]
    choose = max if scale(metric, evaluator).larger_is_better else min
    return choose(found, default=None)


def factor(metric: str, values: Iterable[float], evaluator: str = '') -> float:
    """What turns logged values of a metric into what is shown: shares into points, 1 else.

    Args:
        metric: Its name.
        values: All values that are shown together; where the unit is not known, a value above 1
            tells that none of them is a share.
        evaluator: Class of the evaluator, where it is known.

    Example:
        >>> factor('coco/AP', [0.5]), factor('PCK', [88.1, 0.9]), factor('PCK', [0.88])
        (100.0, 1.0, 100.0)
    """
    unit = scale(metric, evaluator).unit
    share = unit == 'share' or (unit == 'share or percent' and all(v <= 1 for v in values))
    return 100.0 if share else 1.0
