"""Figures of layer metrics: ridges over layers (Figures 6, A2-A5) and alpha bars (7, 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bocb_mm.report import names, style
from bocb_mm.report.model import ResultTable
from bocb_mm.report.records import Summary

METRICS = {
    'entropy': 'entropy of the parameters',
    'l2_norm': 'L2 norm of the parameters',
    'pca_energy': 'top-k PCA energy ratio',
}
# Outside of 2 to 6 a layer is at risk of over- or underfitting (caption of Figure 7).
ALPHA_RANGE = (2.0, 6.0)


@dataclass(frozen=True)
class Snapshot:
    """The layers of one trained network.

    Attributes:
        optimizer: Canonical name.
        column: Column of the result table.
        layers: One row a layer in network order: ``layer, alpha, entropy, l2_norm, pca_energy,
            eligible``.
    """

    optimizer: str
    column: str
    layers: pd.DataFrame


def snapshots(table: ResultTable, runs: list[Summary]) -> tuple[list[Snapshot], list[str]]:
    """The last snapshot of every pair's best run that has layer metrics.

    Returns:
        The snapshots in the table's order, and one line for each file that could not be read.
    """
    found, broken = {}, []
    for cell in table.cells.itertuples():
        path = next((runs[i]['layers'] for i in cell.runs if runs[i]['layers']), '')
        if not path:
            continue
        try:
            layers = read_last(path)
        except (OSError, ValueError, KeyError) as error:
            broken.append(f'{path}: not readable as layer metrics ({error})')
            continue
        if len(layers):
            found[cell.optimizer, cell.column] = Snapshot(cell.optimizer, cell.column, layers)
    order = [(o, c) for c in table.values.columns for o in table.values.index]
    return [found[pair] for pair in order if pair in found], broken


def read_last(path: str) -> pd.DataFrame:
    """The rows of the latest snapshot in a ``layer_metrics.csv``.

    Raises:
        ValueError: Not a table, or a column is missing.
    """
    wanted = ['layer', 'alpha', 'eligible', *METRICS]
    frame = pd.read_csv(path, dtype={'layer': str})  # of nn.Sequential they are numbers
    missing = [c for c in wanted if c not in frame.columns]
    if missing:
        raise ValueError(f'no column {", ".join(missing)}')
    for place in ('iteration', 'epoch'):
        if place in frame.columns and frame[place].notna().any():
            frame = frame[frame[place] == frame[place].max()]
            break
    for column in ('alpha', *METRICS):
        frame[column] = pd.to_numeric(frame[column], errors='coerce')
    frame['eligible'] = frame['eligible'].astype(str).str.lower().isin(['true', '1', '1.0', 'yes'])
    return frame[wanted].drop_duplicates('layer').reset_index(drop=True)


def medians(found: list[Snapshot], metric: str) -> pd.Series:
    """Median of a metric over the layers of each snapshot, by (optimizer, column).

    Of alpha only the layers count where it means something.
    """
    of_each = {}
    for snapshot in found:
        layers = snapshot.layers
        shown = layers.loc[layers['eligible'], metric] if metric == 'alpha' else layers[metric]
        of_each[snapshot.optimizer, snapshot.column] = shown.median()
    return pd.Series(of_each, dtype=float)


def ridges(found: list[Snapshot], metric: str, one_scale: bool = False) -> Any:
    """Figures 6, A2 to A4: a metric over the layers, a ridge an optimizer, a panel a backbone.

    Args:
        found: Snapshots.
        metric: A key of :data:`METRICS`.
        one_scale: Whether all panels share a scale, as where they are compared (Figure A5).
    """
    panels: dict[str, list[Snapshot]] = {}
    for snapshot in found:
        panels.setdefault(snapshot.column, []).append(snapshot)
    down, across = style.panels(len(panels))
    tallest = max(len(p) for p in panels.values())
    width = style.panel_width(across)
    height = max(down * (0.75 + 0.3 * tallest), 2.5)  # the label at the side needs room
    made, grid = style.figure(width, height, down, across)
    for axes, (column, members) in zip(grid.flat, panels.items()):
        low, high = _ends(found if one_scale else members, metric)
        _ridge_panel(axes, members, metric, low, high)
        _mark_end_of_backbone(axes, members[0].layers['layer'])
        axes.set_title(style.head(column, 20), loc='left', pad=10)
        axes.text(
            1.0, 1.01, f'{low:.3g} to {high:.3g}', transform=axes.transAxes, ha='right',
            va='bottom', fontsize=5.5, color='#666666',
        )  # fmt: skip
    style.hide_rest(grid, len(panels))
    style.label_bottom(grid, len(panels), 'layer index')
    made.supylabel(f'{METRICS[metric]}, by optimizer', fontsize=7.5)
    return made


def _ends(members: list[Snapshot], metric: str) -> tuple[float, float]:
    """Smallest and largest value of a metric over all layers of some snapshots."""
    numbers = np.concatenate([m.layers[metric].to_numpy(float) for m in members])
    numbers = numbers[np.isfinite(numbers)]
    return (float(numbers.min()), float(numbers.max())) if len(numbers) else (0.0, 1.0)


def _ridge_panel(axes: Any, members: list[Snapshot], metric: str, low: float, high: float) -> None:
    """Ridges from top to bottom, each from ``low`` at its own line to ``high``."""
    span = max(high - low, 1e-12)
    for place, member in enumerate(members):
        values = member.layers[metric].to_numpy(float)
        base = len(members) - 1 - place
        curve = base + 1.35 * (values - low) / span
        where = np.arange(len(values))
        color = style.look(member.optimizer).color
        order = place * 2 + 2  # a lower ridge lies in front of the one above it
        axes.fill_between(where, base, curve, color='white', lw=0, zorder=order)
        axes.fill_between(where, base, curve, color=color, alpha=0.45, lw=0, zorder=order)
        axes.plot(where, curve, color=color, lw=0.8, zorder=order + 1)
        axes.axhline(base, color=style.PALE, lw=0.5, zorder=1)
    bases = [len(members) - 1 - i for i in range(len(members))]
    axes.set_yticks(bases, [style.label(m.optimizer) for m in members])
    axes.tick_params(axis='y', length=0)
    axes.spines['left'].set_visible(False)
    axes.set_ylim(-0.15, len(members) + 0.5)
    axes.margins(x=0.01)
    axes.locator_params(axis='x', integer=True)


def _mark_end_of_backbone(axes: Any, layer_names: pd.Series) -> None:
    """A dotted line behind the backbone's last layer, where a neck or a head of layers follows."""
    inside = layer_names.str.startswith('backbone.').to_numpy()
    if inside.sum() in (0, len(inside), len(inside) - 1):  # a classifier's head is one layer
        return
    end = int(np.flatnonzero(inside)[-1]) + 0.5
    late = end > 0.7 * len(inside)
    axes.axvline(end, color=style.INK, lw=0.8, ls=':', zorder=99)
    axes.text(
        end, axes.get_ylim()[1], 'neck, head ' if late else ' neck, head', fontsize=5.5, va='top',
        ha='right' if late else 'left', zorder=99,
    )  # fmt: skip


def alpha_bars(found: list[Snapshot], failed: pd.DataFrame) -> Any:
    """Figures 7 and 8: median alpha of the layers, hatched where BOCB occurs.

    Args:
        found: Snapshots.
        failed: The table's failed pairs.
    """
    panels: dict[str, list[Snapshot]] = {}
    for snapshot in found:
        panels.setdefault(snapshot.column, []).append(snapshot)
    down, across = style.panels(len(panels))
    tallest = max(len(p) for p in panels.values())
    height = 0.5 + down * (0.65 + 0.2 * tallest)
    made, grid = style.figure(style.panel_width(across), height, down, across, sharex=True)
    for axes, (column, members) in zip(grid.flat, panels.items()):
        for place, member in enumerate(members):
            _alpha_bar(axes, place, member, bool(failed.at[member.optimizer, column]))
        axes.set_yticks(range(len(members)), [style.label(m.optimizer) for m in members])
        axes.set_ylim(tallest - 0.4, -0.6)
        axes.tick_params(axis='y', length=0)
        axes.set_title(style.head(column, 20))
        axes.grid(axis='x')
        for edge in ALPHA_RANGE:
            axes.axvline(edge, color=style.INK, lw=0.7, ls=':')
    style.hide_rest(grid, len(panels))
    style.label_bottom(grid, len(panels), 'median alpha')
    _alpha_legend(made)
    return made


def _alpha_bar(axes: Any, place: int, member: Snapshot, bocb: bool) -> None:
    layers = member.layers
    alpha = layers.loc[layers['eligible'], 'alpha'].to_numpy(float)
    alpha = alpha[np.isfinite(alpha)]
    if not len(alpha):
        return
    low, middle, high = np.quantile(alpha, [0.25, 0.5, 0.75])
    color = style.look(member.optimizer).color
    axes.barh(
        place, middle, 0.7, facecolor=color if not bocb else 'white', edgecolor=color,
        hatch='/////' if bocb else None, lw=0.7, alpha=0.85,
    )  # fmt: skip
    axes.plot([low, high], [place, place], color=style.INK, lw=0.8)


def _alpha_legend(made: Any) -> None:
    from matplotlib.patches import Patch

    gray: dict[str, Any] = {'edgecolor': style.GRAY, 'lw': 0.7}
    made.legend(
        handles=[
            Patch(facecolor='white', hatch='/////', label='BOCB occurs (failed, eq. 1)', **gray),
            Patch(facecolor=style.GRAY, label='no BOCB', **gray),
        ],
        loc='outside lower center',
        ncols=2,
    )


def several_pretrainings(found: list[Snapshot]) -> dict[str, list[Snapshot]]:
    """Snapshots of detection and pose by task and backbone, e.g. ``'det R-50'``.

    Only backbones that were fine-tuned from more than one pre-training: there is a comparison.
    """
    groups: dict[str, list[Snapshot]] = {}
    for snapshot in found:
        task, backbone, _ = names.split_column(snapshot.column)
        if task:
            groups.setdefault(f'{task} {backbone}', []).append(snapshot)
    return {name: g for name, g in groups.items() if len({s.column for s in g}) > 1}
