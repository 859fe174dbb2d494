"""The figures of a report: one description each, which gives SVG, PNG and the page's image."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from bocb_mm.report import alt, layers, names, plots, stats, style
from bocb_mm.report.load import best_settings
from bocb_mm.report.model import Report, ResultTable


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: Stem of its files.
        table: Name of the table it belongs to.
        title: Headline, with the number the paper gives the figure.
        caption: How to read it, in a sentence or two.
        says: What it shows of these data, for those who do not see it.
        draw: Makes the matplotlib Figure.
    """

    name: str
    table: str
    title: str
    caption: str
    says: str
    draw: Callable[[], Any]


@dataclass(frozen=True)
class Kind:
    """A row of :data:`KINDS`: a kind of figure that every table has if it has the data."""

    stem: str
    title: str
    caption: str
    there: Callable[[Report, ResultTable], bool]
    says: Callable[[Report, ResultTable], str]
    draw: Callable[[Report, ResultTable], Any]


def _searched(_: Report, table: ResultTable) -> bool:
    """Whether any pair of the table was tried with two settings."""
    settings = table.settings
    return len(settings) > 0 and settings.groupby(['optimizer', 'column']).size().max() > 1


def _several_rates(report: Report, table: ResultTable) -> bool:
    return _searched(report, table) and table.settings['lr'].nunique() > 1


def variation(table: ResultTable, by: str) -> pd.DataFrame:
    """:func:`stats.hparam_variation` of a table, rows and columns in the paper's order."""
    found = stats.hparam_variation(best_settings([table]), by)
    found.columns = found.columns.str.removeprefix(f'{table.name}: ')
    return found.loc[names.in_paper_order(found.index), names.columns_in_paper_order(found.columns)]


def _variation_boxes(table: ResultTable, by: str) -> Any:
    coco = any(str(c).startswith(('det ', 'pose ')) for c in table.values.columns)
    return plots.variation_boxes(variation(table, by), by, violin=coco)


KINDS = [
    Kind(
        'violin',
        'Performance stability of the backbones (as Figure 3)',
        'Each violin shows the results of one backbone with all optimizers; the bar is the median, '
        'gray rings are outliers (below Q25 - 1.5 IQR), the worst of them named.',
        lambda r, t: t.values.notna().sum().max() > 2,
        lambda r, t: alt.medians(t),
        lambda r, t: plots.violins(t),
    ),
    Kind(
        'heatmap',
        'All results',
        'Colour is the distance from the best of the column, the same for all beyond ten points. '
        'The best are bold and blue, '
        'failed results (eq. 1) in italics; a cross is a diverged run, an empty cell is missing.',
        lambda r, t: min(t.values.shape) > 1,
        lambda r, t: alt.failures(t),
        lambda r, t: plots.heat_map(t),
    ),
    Kind(
        'coupling',
        'How coupled each column is',
        'Share of the interaction in what the choice of the optimizer moves, within a task; with '
        'the p-value of a permutation test and its range when each optimizer is left out in turn. '
        "Red where it is below 0.05 after Holm's correction; dashed is the whole task.",
        lambda r, t: any(c.columns['share'].notna().any() for c in r.couplings[t.name]),
        lambda r, t: alt.shares(r.couplings[t.name]),
        lambda r, t: plots.coupling_bars(r.couplings[t.name]),
    ),
    Kind(
        'profiles',
        'Performance profiles of the optimizers',
        'In how many of the columns each optimizer comes within so many points of the best.',
        lambda r, t: t.values.shape[0] > 1 and t.values.shape[1] > 2,
        lambda r, t: alt.closest(t),
        lambda r, t: plots.profiles(t),
    ),
    Kind(
        'variation_backbones',
        'Hyper-parameter variation by backbone (as Figures 4 and A1)',
        'Manhattan distance of the best rate and decay of each optimizer from the most common ones '
        'of the backbone: 0 both usual, 2 one differs, 4 both; a diamond is the mean.',
        lambda r, t: _searched(r, t) and t.values.shape[0] > 1,
        lambda r, t: f'Mean variation {alt.ends(variation(t, "backbone").mean())}.',
        lambda r, t: _variation_boxes(t, 'backbone'),
    ),
    Kind(
        'variation_optimizers',
        'Hyper-parameter variation by optimizer (as Figures 5 and A1)',
        'Manhattan distance of the best rate and decay on each backbone from the most common ones '
        'of the optimizer: 0 both usual, 2 one differs, 4 both; a diamond is the mean.',
        lambda r, t: _searched(r, t) and t.values.shape[1] > 1,
        lambda r, t: f'Mean variation {alt.ends(variation(t, "optimizer").mean(axis=1))}.',
        lambda r, t: _variation_boxes(t, 'optimizer'),
    ),
    Kind(
        'lr_curves',
        'Learning-rate stability',
        'Best result over the weight decays at each learning rate; a cross at the bottom is a run '
        'that diverged, curves leave the panel ten points below the best.',
        _several_rates,
        lambda r, t: alt.common_rate(t),
        lambda r, t: plots.lr_curves(t),
    ),
    Kind(
        'tuning',
        'Tuning ease',
        'Share of the LR x WD settings of each pair that come close to its best: dark is easy.',
        _searched,
        lambda r, t: alt.easiest(t, r.options.tolerance),
        lambda r, t: plots.tuning_map(t, r.options.tolerance),
    ),
]
_RIDGES = {
    'entropy': 'Entropy of the layers (as Figures 6 and A2)',
    'l2_norm': 'L2 norm of the layers (as Figure A3)',
    'pca_energy': 'Top-k PCA energy of the layers (as Figure A4)',
}


def figures(report: Report, problems: list[str]) -> Iterator[Figure]:
    """Every figure that the data of a report allow.

    Args:
        report: The report.
        problems: Takes one line for each file of layer metrics that could not be read.
    """
    for table in report.tables:
        for kind in KINDS:
            if kind.there(report, table):
                yield Figure(
                    f'{table.name}_{kind.stem}',
                    table.name,
                    kind.title,
                    kind.caption,
                    kind.says(report, table),
                    partial(kind.draw, report, table),
                )
        if table.source == 'runs':
            found, broken = layers.snapshots(table, report.scan.runs)
            problems += broken
            yield from _layer_figures(table, found)


def _layer_figures(table: ResultTable, found: list[layers.Snapshot]) -> Iterator[Figure]:
    if not found:
        return
    for metric, title in _RIDGES.items():
        if any(s.layers[metric].notna().any() for s in found):
            yield Figure(
                f'{table.name}_layers_{metric}',
                table.name,
                title,
                'One ridge an optimizer over the layers in network order, one panel a backbone; '
                'the ridges of a panel share a scale, whose ends stand in its corner.',
                f'Medians over the layers {alt.ends(layers.medians(found, metric))}.',
                partial(layers.ridges, found, metric),
            )
    if any((s.layers['eligible'] & s.layers['alpha'].notna()).any() for s in found):
        yield Figure(
            f'{table.name}_alpha',
            table.name,
            'PL exponent alpha (as Figures 7 and 8)',
            'Median over the layers whose alpha means something, with quartiles; hatched where '
            'the pair failed (eq. 1). Below 2 is a risk of overfitting, above 6 of underfitting.',
            f'Medians {alt.ends(layers.medians(found, "alpha"))}.',
            lambda: layers.alpha_bars(found, table.failed),
        )
    for group, members in layers.several_pretrainings(found).items():
        yield Figure(
            re.sub(r'[^0-9A-Za-z_-]+', '-', f'{table.name}_transfer_{group}'),
            table.name,
            f'Transfer: {group} from its pre-trainings (as Figure A5)',
            'L2 norm of the fine-tuned layers, one panel a pre-training, one ridge a fine-tuning '
            'optimizer, all on one scale, whose ends stand in the corners; the dotted line is the '
            'end of the backbone.',
            f'Medians over the layers {alt.ends(layers.medians(members, "l2_norm"))}.',
            partial(layers.ridges, members, 'l2_norm', one_scale=True),
        )


def render(figure: Figure) -> tuple[bytes, bytes]:
    """SVG and PNG (200 dots an inch) of a figure, the same bytes for the same data."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with style.drawing():
        made = figure.draw()
        made.get_layout_engine().execute(made)
        made.set_layout_engine('none')  # laid out once, not again for each format
        svg, png = io.BytesIO(), io.BytesIO()
        # Not Figure.savefig: it draws everything once more, to lay it out (matplotlib 3.11).
        FigureCanvasSVG(made).print_svg(svg, metadata={'Date': None, 'Title': figure.title})
        made.set_dpi(200)
        FigureCanvasAgg(made).print_png(png, metadata={'Title': figure.title})
    return svg.getvalue(), png.getvalue()
