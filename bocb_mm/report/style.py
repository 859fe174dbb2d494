"""How the figures look: colours every kind of colour vision tells apart, sizes for print."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bocb_mm.report import names

# Okabe and Ito (2008).
BLUE, ORANGE, GREEN, RED = '#0072B2', '#E69F00', '#009E73', '#D55E00'
PURPLE, SKY, GRAY, INK, PALE = '#CC79A7', '#56B4E9', '#8C8C8C', '#222222', '#E4E7EB'
OPTIMIZER_COLORS = {'a': ORANGE, 'b': BLUE, 'c': GREEN, 'd': RED, '': GRAY}
OPTIMIZER_LABELS = {
    'a': '(a) fixed rate, momentum',
    'b': '(b) adaptive, momentum',
    'c': '(c) estimated rate',
    'd': '(d) adaptive, no momentum',
    '': 'other',
}
BACKBONE_COLORS = {
    'primary CNN': PURPLE,
    'classical CNN': ORANGE,
    'modern DNN': BLUE,
    'MetaFormer': GREEN,
    '': GRAY,
}
# For a handful of lines: colour, marker and dash all differ.
LINES = [
    (BLUE, 'o', '-'),
    (RED, 's', '--'),
    (GREEN, '^', '-.'),
    (ORANGE, 'D', ':'),
    (PURPLE, 'v', '-'),
    (SKY, 'P', '--'),
    (INK, 'X', '-.'),
    (GRAY, '<', ':'),
]
# Inches: one column of a two-column page, and the whole width of the text.
COLUMN, TEXT = 3.5, 7.0

_SETTINGS: dict[str, Any] = {
    'font.size': 7.5,
    'font.family': 'DejaVu Sans',
    'axes.titlesize': 8,
    'axes.titleweight': 'bold',
    'axes.titley': 1.0,  # found by measuring every tick label otherwise
    'axes.labelsize': 7.5,
    'axes.edgecolor': '#555555',
    'axes.linewidth': 0.6,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.axisbelow': True,
    'xtick.labelsize': 7,
    'ytick.labelsize': 7,
    'xtick.major.width': 0.6,
    'ytick.major.width': 0.6,
    'xtick.major.size': 2.5,
    'ytick.major.size': 2.5,
    'legend.fontsize': 6.5,
    'legend.frameon': False,
    'grid.color': PALE,
    'grid.linewidth': 0.6,
    'hatch.linewidth': 0.7,
    'figure.constrained_layout.use': True,
    'svg.hashsalt': 'bocb_mm',
    'text.parse_math': False,  # a name with two $ is a name
}


@contextmanager
def drawing() -> Iterator[None]:
    """Matplotlib with our settings and without a screen; the caller's settings come back after."""
    import matplotlib

    settings: Any = dict(matplotlib.rcParamsDefault) | _SETTINGS | {'backend': 'agg'}
    with matplotlib.rc_context(settings):
        yield


def figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> Any:
    """An empty figure of a size in inches and its axes (a grid of them, always two-dimensional)."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height))
    return made, made.subplots(rows, columns, squeeze=False, **options)


def panels(count: int) -> tuple[int, int]:
    """Rows and columns that hold ``count`` panels across the width of the text."""
    across = min(count, 4 if count > 9 or count % 3 == 1 else 3)
    return -(-count // across), across


def panel_width(across: int) -> float:
    """Width in inches of a figure with so many panels side by side."""
    return {1: COLUMN, 2: 5.2}.get(across, TEXT)


def hide_rest(grid: Any, used: int) -> None:
    """Hide the panels behind the first ``used`` ones."""
    for axes in list(grid.flat)[used:]:
        axes.set_visible(False)


def label_bottom(grid: Any, used: int, text: str) -> None:
    """Label the x axis of the last panel of each column, and show its ticks."""
    for place in range(grid.shape[1]):
        shown = [i for i in range(place, used, grid.shape[1])]
        if shown:
            axes = grid.flat[shown[-1]]
            axes.set_xlabel(text)
            axes.tick_params(labelbottom=True)


def backbone_color(column: str) -> str:
    """Colour of a column head's class of backbones."""
    return BACKBONE_COLORS[names.backbone_class(names.split_column(column)[1])]


def optimizer_color(name: str) -> str:
    """Colour of an optimizer's class."""
    return OPTIMIZER_COLORS[names.optimizer_class(name)]


def class_legend(axes: Any, colors: dict[str, str], labels: dict[str, str], used: set[str]) -> None:
    """A row of coloured squares under the figure for the classes that occur in it."""
    from matplotlib.patches import Patch

    shown = [c for c in colors if c in used]
    if len(shown) < 2:
        return
    handles = [Patch(facecolor=colors[c], label=labels.get(c, c) or 'other') for c in shown]
    axes.figure.legend(
        handles=handles,
        loc='outside lower center',
        ncols=2 if axes.figure.get_figwidth() < 5 else len(shown),
        handlelength=0.9,
        handleheight=0.9,
        columnspacing=1.2,
    )
