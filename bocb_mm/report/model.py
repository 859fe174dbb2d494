"""What a report is made of: its options, its result tables, and the report itself."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from bocb_mm.report import names, shared, stats, tuning
from bocb_mm.report.coupling import Coupling
from bocb_mm.report.records import Scan


@dataclass(frozen=True)
class Options:
    """What a report is made from and how.

    Attributes:
        paths: Directories with runs, and CSV tables.
        paper: Whether the paper's own tables are in it.
        gamma: Threshold of eq. 1 for every table, None for each table's own.
        value: ``'best'`` or ``'last'`` evaluation of a run.
        metric: Metric that every run counts by, ``''`` for the one each was recorded with.
        weights: Weights of the four aspects of the overall ranking.
        cost: What computation is ranked by, a key of :data:`ranking.COSTS`.
        tolerance: Share of the best within which a setting counts as good (tuning ease).
        figures: Whether figures are drawn.
        progress: Whether progress bars are shown.
    """

    paths: tuple[str, ...] = ()
    paper: bool = False
    gamma: float | None = None
    value: str = 'best'
    metric: str = ''
    weights: Mapping[str, float] | None = None
    cost: str = 'memory'
    tolerance: float = 0.01
    figures: bool = True
    progress: bool = True

    def csvs(self) -> list[str]:
        """Those of ``paths`` that are CSV tables."""
        return [p for p in self.paths if os.fspath(p).lower().endswith('.csv')]

    def shared(self) -> list[Path]:
        """Files of shared results, among ``paths`` or directly in a directory among them."""
        return shared.files_in(self.paths)

    def roots(self) -> list[str]:
        """Those of ``paths`` that are searched for runs."""
        csvs = self.csvs()
        return [p for p in self.paths if p not in csvs]


@dataclass
class ResultTable:
    """One result table: a value for every pair of optimizer (row) and column that has one.

    Everything computes on ``values``, where larger is better throughout; :meth:`shown` turns errors
    and losses back into what people read.

    Attributes:
        name: Stem of its files.
        title: What it shows, for people.
        source: ``'runs'``, ``'paper'`` or ``'csv'``.
        values: Results; NaN missing, :data:`stats.DIVERGED` diverged; errors with a minus sign.
        gamma: Threshold of eq. 1.
        tasks: Task and metric of each column, in words: what may be tested together.
        metrics: Metric of each column, ``''`` where it is not known.
        errors: The columns whose metric is better when smaller.
        notes: What its reader has to know about how columns came about.
        cells: One row a pair that has a result: ``optimizer, column, value, sd, n, n_diverged, lr,
            weight_decay, ci_low, ci_high, seed_values, runs`` (indices of the runs) of its best
            setting.
        settings: The same for every LR x WD setting that was tried.
        reference: The paper's values in the form of ``values``, or None.
        extends: Name of the paper's table that this one is with further optimizers, or ``''``.
    """

    name: str
    title: str
    source: str
    values: pd.DataFrame
    gamma: float
    tasks: dict[str, str]
    metrics: dict[str, str] = field(default_factory=dict)
    errors: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)
    cells: pd.DataFrame = field(default_factory=pd.DataFrame)
    settings: pd.DataFrame = field(default_factory=pd.DataFrame)
    reference: pd.DataFrame | None = None
    extends: str = ''

    # Asked for by every table, figure and sentence: computed once.
    @functools.cached_property
    def failed(self) -> pd.DataFrame:
        """Failed pairs of the table, eq. 1."""
        return stats.failed(self.values, self.gamma)

    @functools.cached_property
    def statistics(self) -> pd.DataFrame:
        """:func:`stats.column_statistics` of the table, as it is shown."""
        found = stats.column_statistics(self.values, self.gamma)
        for column in self.errors:
            found.loc[column, ['mean', 'best']] *= -1
        return found

    @functools.cached_property
    def top(self) -> pd.DataFrame:
        """The best results of each column: a fifth of the optimizers, at least one."""
        return stats.top(self.values, self.n_top)

    @functools.cached_property
    def doubts(self) -> dict[tuple[str, str], tuple[str, str]]:
        """:func:`tuning.doubts` of the cells."""
        return tuning.doubts(self.cells, self.settings)

    def doubtful_failures(self) -> dict[str, int]:
        """How many failures stand on a setting in doubt, by mark."""
        counts = dict.fromkeys(tuning.LEGEND, 0)
        for pair, (mark, _) in self.doubts.items():
            counts[mark] += bool(self.failed.at[pair])
        return counts

    @functools.cached_property
    def digits(self) -> int:
        """Decimals of a result: 1 where every one has one (COCO's AP in points), else 2.

        Three digits of the largest one where all are below 1: losses, distances in metres.
        """
        values = stats.finite(self.values).stack().dropna()
        largest = values.abs().max() if len(values) else 0.0
        if 0 < largest < 1:
            return 2 - math.floor(math.log10(largest))
        return 1 if len(values) and (values * 10 - (values * 10).round()).abs().max() < 1e-6 else 2

    @property
    def n_top(self) -> int:
        """How many results of a column are marked as the best."""
        return max(1, len(self.values) // 5)

    def sign(self, column: str) -> int:
        """-1 for a column of errors, else 1."""
        return -1 if column in self.errors else 1

    def shown(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A table in the form of ``values`` as people read it."""
        return frame.mul([self.sign(c) for c in frame.columns], axis=1)

    def groups(self) -> dict[str, list[str]]:
        """Columns by task and metric: only those of one group are compared in points."""
        found: dict[str, list[str]] = {}
        for column in self.values.columns:
            found.setdefault(self.tasks[column], []).append(column)
        return found

    def replicates(self) -> dict[tuple[str, str], list[float]]:
        """Results of the single seeds of the table's cells."""
        return {(c.optimizer, c.column): c.seed_values for c in self.cells.itertuples()}


@dataclass
class Report:
    """Everything a report shows, computed.

    Attributes:
        options: What it was made with.
        scan: The runs, and the records that could not be read.
        tables: Result tables: from runs, from CSV files, from the paper.
        left_out: One line a run without a result.
        rankings: Of the optimizers: by the runs, without any by the CSVs, else the paper's.
        rankings_source: ``'runs'``, ``'csv'`` or ``'paper'``.
        couplings: One a task and metric of each table, by name of table.
    """

    options: Options
    scan: Scan
    tables: list[ResultTable]
    left_out: list[str]
    rankings: pd.DataFrame
    rankings_source: str
    couplings: dict[str, list[Coupling]] = field(default_factory=dict)

    def of(self, source: str) -> list[ResultTable]:
        """The tables of one source."""
        return [t for t in self.tables if t.source == source]


def task_of(column: str, task: str) -> str:
    """The task of a column: its prefix says it, else it is its table's.

    Example:
        >>> task_of('det R-50 (SGD)', ''), task_of('R-50', 'classification')
        ('detection', 'classification')
    """
    return {'det': 'detection', 'pose': 'pose'}.get(names.split_column(column)[0], task)
