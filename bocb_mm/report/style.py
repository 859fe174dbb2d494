"""How the figures look: colours every kind of colour vision tells apart, sizes for print."""

from __future__ import annotations

import textwrap
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bocb_mm import facts
from bocb_mm.report import names

# Okabe and Ito (2008).
BLUE, ORANGE, GREEN, RED = '#0072B2', '#E69F00', '#009E73', '#D55E00'
PURPLE, SKY, GRAY, INK, PALE = '#CC79A7', '#56B4E9', '#8C8C8C', '#222222', '#E4E7EB'
# A hue a category, a shade an optimizer (Okabe and Ito's, and Tol's muted ones between them).
_SHADES = {
    'a': (ORANGE, '#F2C14E', '#7F5A1B', '#A65E00'),  # LION beside SGD in every probe: brown
    'b': (BLUE, '#56B4E9', '#332288', '#117799', '#7B8FE0', '#003F63', '#88CCEE', '#5566AA'),
    'c': (GREEN, '#66C2A4', '#117733', '#44AA99', '#999933', '#0B5345'),
    'd': (RED, '#CC6677', '#882255', '#E38A6B'),
    '': (PURPLE, '#7A4B2A', '#AA4499', '#C49A6C', '#B589D6', '#6B4C9A', '#5F5F3A', '#E377C2'),
}
_MARKERS, _DASHES = 'osD^vPX<', ('-', '--', '-.', ':')
BACKBONE_COLORS = {
    'primary CNN': PURPLE,
    'classical CNN': ORANGE,
    'modern DNN': BLUE,
    'MetaFormer': GREEN,
    '': SKY,  # not gray: that is the outliers'
}
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


@dataclass(frozen=True)
class Look:
    """How an optimizer is drawn, wherever it is drawn."""

    color: str
    marker: str
    dash: str


def look(name: str) -> Look:
    """The look of an optimizer: its category's hue, and a shade, marker and dash of its own.

    Of one that no catalog has, they follow from its name.

    Example:
        >>> look('sgd-m') == look('SGD'), look('SGD') == look('AdamW')
        (True, False)
    """
    row = facts.find_optimizer(name)
    if row is None:
        kind, place = '', zlib.crc32(name.encode())
    else:
        kind = row.category
        place = [r.name for r in facts.OPTIMIZERS.values() if r.category == kind].index(row.name)
    shades = _SHADES[kind]
    turn = place // len(shades) + place
    return Look(
        shades[place % len(shades)], _MARKERS[turn % len(_MARKERS)], _DASHES[turn % len(_DASHES)]
    )


def label(name: str, length: int = 15) -> str:
    """A name as long as a label may be: what comes last in a dotted one, and the start of another.

    Example:
        >>> label('AdamW'), label('pytorch_optimizer.soap'), label('MyOptimizerOfFriday')
        ('AdamW', 'pytorch_o….soap', 'MyOptimizerOfF…')
    """
    if len(name) <= length:
        return name
    library, dot, last = name.partition('.')
    room = length - len(last) - 2
    if dot and room > 2:
        return f'{library[:room]}….{last}'
    return f'{name[: length - 1]}…'


def head(column: str, width: int = 24) -> str:
    """A column head on as many lines as it takes, three at most.

    Example:
        >>> print(head('TIMMBackbone [model_name=resnet18]'))
        TIMMBackbone
        [model_name=resnet18]
    """
    lines = textwrap.wrap(column, width) or ['']
    return '\n'.join(lines if len(lines) < 4 else [*lines[:2], '… ' + lines[-1]])


def category_label(kind: str) -> str:
    """A category of optimizers as a legend puts it.

    Example:
        >>> category_label('a'), category_label('')
        ('(a) fixed rate with momentum', 'in no catalog')
    """
    if not kind:
        return 'in no catalog'
    return f'({kind}) {facts.OPTIMIZER_CATEGORIES[kind].replace("learning ", "")}'


def class_legend(axes: Any, used: set[str]) -> None:
    """A row of coloured squares under the figure for the classes of backbones in it."""
    from matplotlib.patches import Patch

    shown = [c for c in BACKBONE_COLORS if c in used]
    if len(shown) < 2:
        return
    handles = [Patch(facecolor=BACKBONE_COLORS[c], label=c or 'other') for c in shown]
    axes.figure.legend(
        handles=handles,
        loc='outside lower center',
        ncols=2 if axes.figure.get_figwidth() < 5 else len(shown),
        handlelength=0.9,
        handleheight=0.9,
        columnspacing=1.2,
    )
