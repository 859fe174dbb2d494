"""The figures of a result table. Each function takes numbers and returns a matplotlib Figure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bocb_mm.report import names, stats, style, tuning
from bocb_mm.report.coupling import Coupling
from bocb_mm.report.model import ResultTable

_ROW = 0.21  # inches that one row of a horizontal chart takes


def violins(table: ResultTable) -> Any:
    """Figure 3: the spread of each backbone's results over the optimizers, outliers as rings."""
    values, far = table.shown(table.values), stats.outliers(table.values)
    made, grid = style.figure(style.COLUMN, 0.9 + _ROW * values.shape[1])
    axes = grid[0, 0]
    for place, column in enumerate(values.columns):
        results = stats.finite(values)[column].dropna()
        color = style.backbone_color(column)
        if len(results) > 2 and results.std() > 1e-9:
            parts = axes.violinplot(
                results, [place], orientation='horizontal', widths=0.85, showextrema=False
            )
            parts['bodies'][0].set(facecolor=color, alpha=0.3, edgecolor=color, linewidth=0.6)
        odd = results.index[far.loc[results.index, column].to_numpy()]
        usual = results.drop(odd)
        size = 2.6 if len(results) > 8 else 6
        axes.plot(usual, [place] * len(usual), '.', ms=size, color=color, alpha=0.9, mew=0)
        axes.plot(results[odd], [place] * len(odd), 'o', ms=3, mfc='white', mec=style.GRAY, mew=0.8)
        axes.plot([results.median()], [place], '|', ms=7, mew=1.3, color=style.INK)
        if len(odd):
            worst = stats.finite(table.values).loc[odd, column].idxmin()
            axes.annotate(
                style.label(str(worst).rpartition('.')[2], 12),
                (results[worst], place),
                (-4, 0),
                textcoords='offset points',
                fontsize=5.5,
                color='#666666',
                ha='right',
                va='center',
            )
    _rows(axes, map(style.head, values.columns))
    axes.set_xlabel('result (points)')
    low, high = axes.get_xlim()
    axes.set_xlim(low - 0.14 * (high - low), high)  # room for the outliers' names
    classes = {names.backbone_class(names.split_column(c)[1]) for c in values.columns}
    style.class_legend(axes, classes)
    return made


def _rows(axes: Any, labels: Any) -> None:
    """Label the rows of a horizontal chart, first on top."""
    labels = list(labels)
    axes.set_yticks(range(len(labels)), labels)
    for text in axes.get_yticklabels():
        if '\n' in text.get_text():
            text.set(fontsize=5.5, linespacing=1.0)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis='y', length=0)
    axes.grid(axis='x')


def heat_map(table: ResultTable) -> Any:
    """The whole table: colour is the distance from the best of the column."""
    values = stats.finite(table.values)
    gap = values.max() - values
    shown = table.shown(table.values)
    return _heat(
        gap.clip(upper=10),
        shown.map(lambda v: '' if np.isnan(v) else '×' if np.isinf(v) else f'{v:.1f}'),
        'points from the best',
        gap.max(axis=None) > 10,
        # Light is good, dark is bad: the same with every kind of colour vision and in gray.
        'YlOrBr',
        table.failed,
        table.top,
    )


def tuning_map(table: ResultTable, tolerance: float) -> Any:
    """How easy each pair is to tune: share of its LR x WD settings near its best."""
    ease = tuning.tuning_ease(table.settings, tolerance)
    ease = ease.reindex(index=table.values.index, columns=table.values.columns)
    texts = ease.map(lambda v: '' if np.isnan(v) else f'{v:.0%}')
    return _heat(
        100 * ease,
        texts,
        f'% of the settings within {100 * tolerance:.3g} % of the best',
        False,
        'Blues',
    )


def _heat(
    shade: pd.DataFrame,
    texts: pd.DataFrame,
    label: str,
    capped: bool,
    cmap: str,
    failed: pd.DataFrame | None = None,
    best: pd.DataFrame | None = None,
) -> Any:
    rows, columns = shade.shape
    width = min(max(1.4 + 0.31 * columns, style.COLUMN), style.TEXT)
    made, grid = style.figure(width, 1.5 + 0.19 * rows)
    axes = grid[0, 0]
    top = max(float(np.nanmax(shade.to_numpy(), initial=0)), 1.0)
    image = axes.imshow(shade, cmap=cmap, vmin=-0.05 * top, vmax=1.1 * top, aspect='auto')
    for i in range(rows):
        for j in range(columns):
            dark = shade.iat[i, j] > 0.62 * top
            mark = failed is not None and failed.iat[i, j]
            axes.text(  # inside its cell: the layout need not measure it
                j,
                i,
                texts.iat[i, j],
                ha='center',
                va='center',
                fontsize=5.2 if columns > 12 else 6.5,
                in_layout=False,
                color='white'
                if dark
                else style.BLUE
                if best is not None and best.iat[i, j]
                else style.INK,
                fontstyle='italic' if mark else 'normal',
                fontweight='bold' if best is not None and best.iat[i, j] else 'normal',
            )
    heads = [style.head(str(c)) for c in shade.columns]
    longest = max(len(line) for text in heads for line in text.split('\n'))
    room = (width - 0.8) / columns / 0.062  # characters that a column is wide
    if longest <= room:
        axes.set_xticks(range(columns), heads)
    else:
        axes.set_xticks(range(columns), heads, rotation=55, ha='left')
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=2)
    axes.set_yticks(range(rows), [style.label(str(r)) for r in shade.index])
    axes.spines[:].set_visible(False)
    bar = made.colorbar(
        image, ax=axes, location='bottom', shrink=0.6, aspect=40, pad=0.02,
        extend='max' if capped else 'neither',
    )  # fmt: skip
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=6.5)
    return made


def variation_boxes(variation: pd.DataFrame, by: str, violin: bool) -> Any:
    """Figures 4, 5 and A1: how far the best LR and WD are from their modes.

    Args:
        variation: :func:`stats.hparam_variation` by ``by``.
        by: ``'backbone'`` or ``'optimizer'``: what the rows of the chart are.
        violin: Violins (Figure A1) in place of boxes.
    """
    table = variation if by == 'backbone' else variation.T
    made, grid = style.figure(style.COLUMN, 0.75 + _ROW * table.shape[1])
    axes = grid[0, 0]
    for place, label in enumerate(map(str, table.columns)):
        values = table[label].dropna()
        color = style.backbone_color(label) if by == 'backbone' else style.look(label).color
        if violin and len(values) > 2 and values.std() > 0:
            parts = axes.violinplot(
                values, [place], orientation='horizontal', widths=0.85, showextrema=False
            )
            parts['bodies'][0].set(facecolor=color, alpha=0.35, edgecolor=color)
        elif len(values) > 1:
            axes.boxplot(
                values,
                positions=[place],
                orientation='horizontal',
                widths=0.6,
                patch_artist=True,
                boxprops={'facecolor': color, 'alpha': 0.35, 'linewidth': 0.6},
                medianprops={'color': style.INK, 'linewidth': 1.3},
                whiskerprops={'linewidth': 0.6},
                capprops={'linewidth': 0.6},
                flierprops={'marker': '.', 'markersize': 3, 'markeredgewidth': 0},
                manage_ticks=False,
            )
        axes.plot([values.mean()], [place], 'D', ms=3, color=color, mec=style.INK, mew=0.4)
    shown = style.head if by == 'backbone' else style.label
    _rows(axes, map(shown, map(str, table.columns)))
    axes.set_xticks([0, 2, 4])
    axes.set_xlim(-0.3, 4.3)
    axes.set_xlabel('variation from the usual setting')
    return made


def lr_curves(table: ResultTable) -> Any:
    """LR stability: each pair's best result at each learning rate, one panel a backbone."""
    tried = table.settings.dropna(subset=['lr'])
    has_rates = set(tried['column'])
    columns = [str(c) for c in table.values.columns if c in has_rates]
    optimizers = names.in_paper_order(set(tried['optimizer']))
    best = tried.groupby(['column', 'optimizer', 'lr'])['value'].max()
    curves = {pair: one.droplevel([0, 1]) for pair, one in best.groupby(level=[0, 1])}
    down, across = style.panels(len(columns))
    made, grid = style.figure(
        style.panel_width(across), 0.75 + 1.45 * down, down, across, sharex=True
    )
    for axes, column in zip(grid.flat, columns):
        top = stats.finite(table.values)[column].max()
        if not np.isfinite(top):  # every pair diverged: crosses only
            top = 0.0
            axes.set_yticks([])
        elif table.sign(column) < 0:
            axes.yaxis.set_major_formatter(lambda value, _: f'{-value:g}')
        axes.set_xscale('log')
        for optimizer in optimizers:
            if (column, optimizer) in curves:
                _lr_line(axes, curves[column, optimizer], top - 10, optimizer)
        axes.xaxis.set_major_formatter(lambda rate, _: f'{rate:.0e}'.replace('e-0', 'e-'))
        axes.minorticks_off()  # hundreds of them, over all panels
        if tried['lr'].nunique() == 1:
            axes.set_xlim(tried['lr'].min() / 3, tried['lr'].max() * 3)
        axes.set_ylim(top - 10.6, top + 0.8)
        axes.set_title(style.head(column, 20))
        axes.grid(axis='y')
    style.hide_rest(grid, len(columns))
    style.label_bottom(grid, len(columns), 'learning rate')
    made.supylabel('result (points)', fontsize=7.5)
    handles, labels = _handles(grid)
    # Columns that fit the width; a name takes so much of an inch.
    longest = max(len(label) for label in labels)
    fits = int((style.panel_width(across) - 0.2) / (0.35 + 0.055 * longest))
    made.legend(handles, labels, loc='outside lower center', ncols=max(1, min(fits, len(labels))))
    return made


def _lr_line(axes: Any, curve: pd.Series, floor: float, optimizer: str) -> None:
    """The line of one pair, with crosses at the bottom where it diverged."""
    look = style.look(optimizer)
    lost = np.isinf(curve.to_numpy(float))
    shown = curve.mask(lost)  # what lies below the panel leaves it: no false level
    axes.plot(
        shown.index, shown, ms=2.6, lw=0.9, mew=0, color=look.color, marker=look.marker,
        ls=look.dash, label=style.label(optimizer, 24),
    )  # fmt: skip
    axes.plot(curve.index[lost], [floor] * lost.sum(), 'x', ms=3.5, mew=0.9, color=look.color)


def _handles(grid: Any) -> tuple[list, list]:
    """One legend entry for each label that occurs in any of the panels."""
    found: dict[str, Any] = {}
    for axes in grid.flat:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def profiles(table: ResultTable) -> Any:
    """Performance profiles: on how many backbones an optimizer is so close to the best."""
    distances = np.linspace(0, 10, 101)
    profile = stats.performance_profiles(table.values, list(distances))
    order = profile.mean(axis=1).sort_values(ascending=False).index
    made, grid = style.figure(style.COLUMN, 2.6)
    axes = grid[0, 0]
    named = 6
    for optimizer in order[named:]:
        axes.step(distances, profile.loc[optimizer], where='post', lw=0.6, color='#C4C8CC')
    for optimizer in map(str, order[:named]):
        look = style.look(optimizer)
        axes.step(
            distances, profile.loc[optimizer], look.dash, where='post', lw=1.3, color=look.color,
            label=style.label(optimizer),
        )  # fmt: skip
    axes.set(xlabel='points below the best', ylabel='share of the columns', ylim=(0, 1.03))
    axes.set_xlim(0, 10)
    axes.grid(axis='both')
    axes.legend(
        loc='lower right', title='the rest in gray' if len(order) > named else None,
        title_fontsize=6, frameon=True, framealpha=0.9, edgecolor='none',
    )  # fmt: skip
    return made


def coupling_bars(coupled: list[Coupling]) -> Any:
    """How much of what the optimizer moves is peculiar to each column, with p-values, by task."""
    tasks = [found for found in coupled if not np.isnan(found.share)]
    n = sum(len(found.columns) for found in tasks)
    made, grid = style.figure(style.COLUMN, 0.75 + _ROW * n)
    axes = grid[0, 0]
    labels: list[str] = []
    for found in tasks:
        columns = found.columns.dropna(subset=['share']).sort_values('share', ascending=False)
        first = len(labels)
        labels += list(columns.index)
        for place, row in enumerate(columns.itertuples(), first):
            color = style.RED if row.p_holm < 0.05 else style.SKY
            axes.barh(place, row.share, height=0.7, color=color)
            spread = '' if not hasattr(row, 'p_low') else f' ({row.p_low:.2g}–{row.p_high:.2g})'
            axes.text(
                row.share + 0.015, place, f'p = {row.p_value:.2g}{spread}', va='center',
                fontsize=6, zorder=4, bbox={'facecolor': 'white', 'edgecolor': 'none', 'pad': 0.6},
            )  # fmt: skip
        ends = first - 0.5, len(labels) - 0.5
        axes.plot([found.share] * 2, ends, color=style.INK, lw=0.8, ls='--', zorder=3)
    _rows(axes, map(style.head, labels))
    axes.set_xlim(0, 1.5)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_xlabel('share of the interaction')
    return made
