"""The paper's own numbers: Tables 1-4 and A1-A3 and its printed summary rows, as package data."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from importlib import resources

import pandas as pd

from bocb_mm.report import names

TABLES = ('table1_cifar100', 'table2_imagenet', 'table3_coco')
TITLES = {
    'table1_cifar100': 'Top-1 accuracy (%) on CIFAR-100',
    'table2_imagenet': 'Top-1 accuracy (%) on ImageNet-1K',
    'table3_coco': 'Pose AP and detection mAP (points) on COCO',
}
# Last part of the names under which the toolboxes log what the tables show; '' where nothing says.
_HEADLINES = {'table3_coco': ('', 'bbox_mAP', 'AP')}
# Eq. 1 is applied with 1 to ImageNet-1K and with 3 elsewhere (A.1, A.2).
GAMMAS = {'table2_imagenet': 1.0}
ASPECTS = {
    'Performance': 'performance',
    'Hyper-parameter': 'hyperparameter',
    'BOCB': 'bocb',
    'Computations': 'computation',
    'Overall': 'overall',
}


@functools.cache
def read(name: str) -> pd.DataFrame:
    """One of the CSV files, first column as index: ``'table1_cifar100'``, ``'tableA3_recipes'``...

    Example:
        >>> read('table1_cifar100').shape
        (20, 20)
    """
    with (resources.files(__package__) / 'paper' / f'{name}.csv').open(encoding='utf-8') as file:
        return pd.read_csv(file, index_col=0)


def shows(table: str, metric: str) -> bool:
    """Whether a metric is what one of the paper's tables shows.

    Example:
        >>> shows('table3_coco', 'coco/bbox_mAP'), shows('table1_cifar100', 'accuracy/top5')
        (True, False)
    """
    return metric.rpartition('/')[2] in _HEADLINES.get(table, ('', 'top1'))


def title(table: str, metrics: Iterable[str]) -> str | None:
    """The title of one of the paper's tables, with what it shows in place of the paper's metric.

    Args:
        table: Its name; ``None`` is returned for any other.
        metrics: Of its columns.

    Example:
        >>> title('table1_cifar100', ['accuracy/top5'])
        'accuracy/top5 on CIFAR-100'
    """
    others = sorted({metric for metric in metrics if not shows(table, metric)})
    if not others or table not in TITLES:
        return TITLES.get(table)
    return f'{", ".join(others)} on {names.short_title(table)}'


def rankings() -> pd.DataFrame:
    """Table 4: index ``optimizer``; ``performance, hyperparameter, bocb, computation, overall``."""
    return read('table4_rankings').rename(index=ASPECTS).T.astype(float).rename_axis('optimizer')


def printed_summary() -> pd.DataFrame:
    """The two bottom lines of Table 1: index ``column``; ``mean, std, range`` as printed."""
    lines = read('table1_cifar100_printed_summary')
    pairs = lines.loc['Std/Range'].str.split('/', expand=True).astype(float)
    return pd.DataFrame(
        {'mean': lines.loc['Mean'].astype(float), 'std': pairs[0], 'range': pairs[1]}
    ).rename_axis('column')


def printed_against_table(stability: pd.DataFrame) -> pd.DataFrame:
    """The printed bottom lines of Table 1 beside what its own table gives.

    The printed Mean and Std are those of a column without its worst and its two best results (19 of
    20 means and 18 of 20 deviations agree to the last digit; CNX-T and AlexNet's Std do not); the
    printed Range leaves out the worst only, as the paper says all three do.

    Args:
        stability: :func:`bocb_mm.report.stats.stability` of Table 1.

    Returns:
        Index ``column``; for mean, std and range the value by the paper's rule, the printed one and
        their difference, and mean and std without the two best (``mean_trimmed, std_trimmed``).
    """
    printed = printed_summary()
    ordered = read('table1_cifar100').apply(lambda c: pd.Series(sorted(c)[1:-2]))
    trimmed = {'mean': ordered.mean(), 'std': ordered.std(ddof=0)}
    parts = {}
    for name in ('mean', 'std', 'range'):
        parts[name] = stability[name]
        parts[f'{name}_printed'] = printed[name]
        parts[f'{name}_difference'] = stability[name] - printed[name]
        if name in trimmed:
            parts[f'{name}_trimmed'] = trimmed[name]
    return pd.DataFrame(parts).loc[stability.index].rename_axis('column')


def value(table: str, column: str, optimizer: str) -> float | None:
    """The paper's result for a cell named in any spelling, ``None`` where it has none.

    Example:
        >>> value('table3_coco', 'det R-50 (rsb-a2)', 'sgd')
        23.7
    """
    return _values().get((table, names.split_column(column), names.optimizer(optimizer)))


@functools.cache
def _values() -> dict[tuple, float]:
    found = {}
    for name in TABLES:
        for column, cells in read(name).items():
            for optimizer, cell in cells.items():
                place = (name, names.split_column(str(column)), names.optimizer(str(optimizer)))
                found[place] = float(cell)
    return found
