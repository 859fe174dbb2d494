"""The paper's tables with the paper's optimizers, and extended ones with whatever was run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from bocb_mm.report import names, paper
from bocb_mm.report.model import ResultTable


def split(tables: Iterable[ResultTable]) -> list[ResultTable]:
    """Keep a table that the paper has to its 20 optimizers; an extended one behind it has all.

    So thresholds, means and rankings stay comparable with the paper's, and an optimizer that it
    does not have stands beside those that it has. Tables of other data stay as they are.

    Args:
        tables: From runs or CSV files.
    """
    found = []
    for table in tables:
        rows = [o for o in table.values.index if names.optimizer(str(o)) in names.OPTIMIZERS]
        others = [str(o) for o in table.values.index if o not in rows]
        if table.name in paper.TABLES and others:
            if rows:
                found.append(_of(rows, table, ', '.join(others)))
            title = f'{table.title}, with optimizers beyond the paper'
            name = f'{table.name}_extended'
            table = dataclasses.replace(table, name=name, title=title, extends=table.name)
        found.append(table)
    return found


def _of(rows: list, table: ResultTable, others: str) -> ResultTable:
    """The table with some of its rows, and the columns that they have results in."""
    values = table.values.loc[rows].dropna(axis=1, how='all')
    kept: dict[str, Any] = {'values': values, 'errors': table.errors & set(values.columns)}
    for part in ('tasks', 'metrics'):
        kept[part] = {c: v for c, v in getattr(table, part).items() if c in values.columns}
    for part in ('cells', 'settings'):
        frame = getattr(table, part)
        kept[part] = frame[frame['optimizer'].isin(rows)] if len(frame) else frame
    note = f"Not of the paper's 20, so in the extended table only: {others}."
    return dataclasses.replace(table, notes=[*table.notes, note], **kept)


def ranked(tables: list[ResultTable]) -> list[ResultTable]:
    """The tables that rankings are made of: none that is extended, unless there is nothing else."""
    return [t for t in tables if not t.extends] or tables


def whole(tables: Iterable[ResultTable]) -> list[ResultTable]:
    """The tables with every result in one of them: without those that an extended one repeats."""
    found = list(tables)
    repeated = {t.extends for t in found}
    return [t for t in found if t.source == 'paper' or t.name not in repeated]
