"""The figures of the generated pages: what the paper measured of one backbone or one optimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bocb_mm.report import names, style
from bocb_mm.report.model import ResultTable


def backbone_column(table: ResultTable, column: str, path: Path) -> None:
    """Results of one backbone with every optimizer, best first; failed ones are hollow."""
    values = table.values[column].dropna().sort_values()
    failed = table.failed[column].reindex(values.index)
    colors = [style.look(str(name)).color for name in values.index]
    low = max(0.0, np.percentile(values, 25) - 3 * (values.max() - np.percentile(values, 25) + 0.5))
    _dots(values, failed, colors, low, 'result', path)


def optimizer_row(table: ResultTable, optimizer: str, path: Path) -> None:
    """Points between one optimizer and the best of every column; failed ones are hollow."""
    gaps = (table.values.loc[optimizer] - table.values.max()).dropna()
    failed = table.failed.loc[optimizer].reindex(gaps.index)
    colors = [style.backbone_color(str(column)) for column in gaps.index]
    order = names.columns_in_paper_order(gaps.index)[::-1]
    place = [list(gaps.index).index(name) for name in order]
    colors = [colors[i] for i in place]
    _dots(gaps.loc[order], failed.loc[order], colors, -15.0, 'points from the best', path)


def _dots(
    values: pd.Series, failed: pd.Series, colors: list[str], low: float, label: str, path: Path
) -> None:
    """A dot a row with its number; what lies below ``low`` stands at the edge with an arrow."""
    with style.drawing():
        figure, grid = style.figure(5.2, 0.5 + 0.17 * len(values))
        axes: Any = grid[0, 0]
        for row, (value, lost, color) in enumerate(zip(values, failed, colors)):
            shown = max(value, low)
            marker = 'o' if value >= low else '<'
            axes.plot(shown, row, marker, ms=5, color=color, mfc='white' if lost else color)
            axes.annotate(
                f'{value:.1f}', (shown, row), (6, 0), textcoords='offset points', va='center',
                fontsize=6.5, color=style.GRAY if lost else style.INK,
            )  # fmt: skip
        axes.set_yticks(range(len(values)), [str(name) for name in values.index])
        span = max(values.max() - max(low, values.min()), 1.0)
        axes.set_xlim(max(low, values.min()) - 0.04 * span, values.max() + 0.12 * span)
        axes.set_ylim(-0.7, len(values) - 0.3)
        axes.set_xlabel(label)
        axes.grid(axis='x')
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor='white', metadata={'Date': None})
