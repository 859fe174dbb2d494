"""A result table as CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
import re

import pandas as pd

from bocb_mm.report import paper, tuning
from bocb_mm.report.coupling import Coupling
from bocb_mm.report.model import ResultTable

# Okabe and Ito's blue and a gray of the same lightness for every kind of colour vision.
BLUE, GRAY = '0072B2', '8C8C8C'
MISSING, LOST = '–', 'diverged'
_TEX = {
    '\\': r'\textbackslash{}',
    '~': r'\textasciitilde{}',
    '^': r'\textasciicircum{}',
    '–': '--',
    '±': r'$\pm$',
    tuning.SINGLE: r'\dag{}',
    tuning.EDGE: r'\ddag{}',
    '<': r'\textless{}',
    '>': r'\textgreater{}',
    '|': r'\textbar{}',
    '"': "''",
    **{c: '\\' + c for c in '&%$#_{}'},
}
_ACCENTED = set('ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿ')


def number(value: float | None, digits: int = 2) -> str:
    """A number for people: ``–`` for missing, ``diverged`` for infinite.

    Example:
        >>> number(75.126), number(float('nan')), number(float('-inf'))
        ('75.13', '–', 'diverged')
    """
    if value is None or math.isnan(value):
        return MISSING
    return LOST if math.isinf(value) else f'{value:.{digits}f}'


def csv_text(frame: pd.DataFrame, index: bool = True) -> str:
    """``frame`` as CSV, diverged results as ``diverged``.

    A label that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    safe = frame.copy()
    safe.columns = [_no_formula(c) for c in safe.columns]
    safe.index = safe.index.map(_no_formula)
    safe.index.name = frame.index.name
    for place in range(safe.shape[1]):
        column = safe.iloc[:, place]
        if column.dtype.kind == 'f':
            texts: list[object] = [_csv_number(v) for v in column]
        else:
            texts = [_no_formula(v) for v in column]
        safe.isetitem(place, pd.Series(texts, index=safe.index, dtype=object))
    return safe.to_csv(index=index, lineterminator='\n')


def _csv_number(value: float) -> str:
    if math.isnan(value):
        return ''
    return LOST if math.isinf(value) else f'{value:.10g}'


def _no_formula(value: object) -> object:
    if isinstance(value, str) and value[:1] in ('=', '+', '-', '@', '\t', '\r'):
        return f"'{value}"
    return value


def cell_texts(table: ResultTable) -> pd.DataFrame:
    """What stands in a cell: mean, ``± s.d. (n)`` of several seeds, / the paper's / difference.

    A failure on a setting in doubt has its mark (:data:`tuning.LEGEND`).
    """
    digits = table.digits
    several = {(c.optimizer, c.column): c for c in table.cells.itertuples() if c.n > 1}
    shown = table.shown(table.values)
    texts = shown.map(lambda v: number(v, digits)).astype(object)
    for (optimizer, column), cell in several.items():
        if math.isfinite(cell.value):
            texts.at[optimizer, column] += f' ± {cell.sd:.{digits}f} ({cell.n})'
    for pair, (mark, _) in table.doubts.items():
        if table.failed.at[pair]:
            texts.at[pair] += mark
    if table.reference is not None:
        for pair, theirs in table.reference.stack().dropna().items():
            change = shown.at[pair] - theirs
            difference = f'{change:+.{digits}f}' if math.isfinite(change) else MISSING
            texts.at[pair] += f' / {number(theirs, digits)} / {difference}'
    return texts


def bottom_rows(table: ResultTable) -> pd.DataFrame:
    """The rows under a table as texts: mean, std and range, n, failed; the paper's printed ones."""
    digits = table.digits
    found = table.statistics
    several = table.cells['n'].max() > 1 if len(table.cells) else False
    count = table.values.notna().sum()
    rows = {
        'Mean': {c: number(r['mean'], digits) for c, r in found.iterrows()},
        # Of two results one is left out, and one has no spread.
        'Std/Range': {
            c: _std_range(r['std'], r['range']) if count[c] > 2 else MISSING
            for c, r in found.iterrows()
        },
        'n': {c: str(int(count[c])) for c in found.index},
        'Failed': {c: _failed(table, str(c)) for c in found.index},
    }
    if several:
        runs = table.cells.groupby('column')[['n', 'n_diverged']].sum().sum(axis=1)
        rows['Runs'] = {c: str(int(runs.get(c, 0))) for c in found.index}
    if table.source == 'paper' and table.name.startswith('table1_cifar100'):
        printed = paper.printed_summary()
        rows['Mean (printed)'] = {c: f'{printed.at[c, "mean"]:.2f}' for c in found.index}
        rows['Std/Range (printed)'] = {
            c: f'{printed.at[c, "std"]:.1f}/{printed.at[c, "range"]:.0f}' for c in found.index
        }
    return pd.DataFrame.from_dict(rows, orient='index', columns=found.index)


def _failed(table: ResultTable, column: str) -> str:
    """How many failed, and how many of them on a setting in doubt: ``5 (2†, 1‡)``."""
    failed = table.failed[column]
    marks = [mark for (o, c), (mark, _) in table.doubts.items() if c == column and failed[o]]
    counts = [f'{marks.count(mark)}{mark}' for mark in tuning.LEGEND if mark in marks]
    return f'{int(failed.sum())}' + (f' ({", ".join(counts)})' if counts else '')


def _std_range(std: float, spread: float) -> str:
    return MISSING if math.isnan(std) else f'{std:.1f}/{spread:.1f}'


def cells_frame(table: ResultTable) -> pd.DataFrame:
    """Every cell as a row: value, spread, interval, best setting, marks, the paper's value."""
    rows = []
    for cell in table.cells.itertuples():
        place = (cell.optimizer, cell.column)
        sign = table.sign(cell.column)
        theirs = table.reference.at[place] if table.reference is not None else math.nan
        ends = sorted((sign * cell.ci_low, sign * cell.ci_high))
        rows.append(
            {
                'column': cell.column,
                'optimizer': cell.optimizer,
                'value': sign * cell.value,
                'sd': cell.sd,
                'n': cell.n,
                'n_diverged': cell.n_diverged,
                'ci_low': ends[0],
                'ci_high': ends[1],
                'lr': cell.lr,
                'weight_decay': cell.weight_decay,
                'failed': bool(table.failed.at[place]),
                'top': bool(table.top.at[place]),
                'tuning': table.doubts.get(place, ('', ''))[1],
                'paper': theirs,
                'difference': sign * cell.value - theirs if math.isfinite(cell.value) else math.nan,
            }
        )
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    by_column = {c: i for i, c in enumerate(table.values.columns)}
    by_row = {o: i for i, o in enumerate(table.values.index)}
    order = frame.assign(c=frame['column'].map(by_column), o=frame['optimizer'].map(by_row))
    return order.sort_values(['c', 'o']).drop(columns=['c', 'o']).reset_index(drop=True)


def coupling_frame(coupled: list[Coupling]) -> pd.DataFrame:
    """The coupling of a table: a row for all columns of each task, and one a column."""
    parts = []
    for found in coupled:
        name = f'({found.group})' if len(coupled) > 1 else '(table)'
        p_low, p_high = found.p_range
        whole = {'share': found.share, 'p_value': found.p_value, 'p_low': p_low, 'p_high': p_high}
        parts += [pd.DataFrame(whole, [name]), found.columns]
    order = ['share', 'p_value', 'p_holm', 'p_low', 'p_high']
    return pd.concat(parts).reindex(columns=order).rename_axis('column')


def legend(table: ResultTable) -> str:
    """One paragraph that says what the marks and rows of a table mean."""
    best = (
        f'The {table.n_top} best of a column are' if table.n_top > 1 else 'The best of a column is'
    )
    parts = [
        f'{best} bold and blue, failed ones italic and gray: eq. 1 with gamma = {table.gamma:g}.',
        'Mean, Std and Range leave out the single worst result of a column.',
    ]
    if table.reference is not None:
        parts.append("A cell shows ours / the paper's / the difference.")
    if len(table.cells) and table.cells['n'].max() > 1:
        parts.append('± is the standard deviation over the seeds, their number in parentheses.')
    if any(m.lower().startswith('coco') for m in table.metrics.values()):
        parts.append('COCO AP is shown in points (the logged value times 100), as gamma is.')
    if table.errors:
        every = len(table.errors) == len(table.metrics)
        which = 'all columns' if every else ', '.join(sorted(table.errors))
        parts.append(f'Smaller is better in {which}.')
    doubtful = [mark for mark, n in table.doubtful_failures().items() if n]
    if doubtful:
        marks = ', '.join(f'{mark} {tuning.LEGEND[mark]}' for mark in doubtful)
        parts.append(f'Failures that a search may still undo: {marks}.')
    if table.source == 'paper' and table.name.startswith('table1_cifar100'):
        parts.append(
            "The paper's printed Mean and Std leave out each column's two best results as well; "
            'the rows above them follow the rule it states.'
        )
    return ' '.join([*parts, *table.notes])


def markdown(table: ResultTable) -> str:
    """The table in Markdown: the best bold, failed italic."""
    texts, failed, best = cell_texts(table), table.failed, table.top
    head = ['optimizer', *texts.columns]
    lines = [_row(head), _row(['---'] + ['---:'] * len(texts.columns))]
    for optimizer in texts.index:
        cells = [str(optimizer)]
        for column in texts.columns:
            stars = 2 * int(best.at[optimizer, column]) + int(failed.at[optimizer, column])
            mark = '*' * stars
            cells.append(f'{mark}{texts.at[optimizer, column]}{mark}')
        lines.append(_row(cells, marked=True))
    for name, cells_ in bottom_rows(table).iterrows():
        lines.append(_row([str(name), *cells_]))
    return f'# {_md(table.title)}\n\n{_md(legend(table))}\n\n' + '\n'.join(lines) + '\n'


def _row(cells: list[str], marked: bool = False) -> str:
    shown = [_md(c) if not marked or i == 0 else c for i, c in enumerate(cells)]
    return '| ' + ' | '.join(shown) + ' |'


def _md(text: str) -> str:
    """Text that Markdown shows as it is: no table cell, HTML tag, link or emphasis comes of it."""
    flat = ' '.join(str(text).split())
    return re.sub(r'([\\`*_\[\]|])', r'\\\1', flat).replace('<', '&lt;').replace('>', '&gt;')


def latex(table: ResultTable) -> str:
    r"""The table in LaTeX with booktabs: the best blue, failed gray.

    The file compiles by itself, and can be read with ``\input`` into a document that loads
    booktabs, xcolor and graphicx.
    """
    texts, bottom = cell_texts(table).rename_axis(index=None), bottom_rows(table)
    marks = pd.DataFrame('', texts.index, texts.columns)
    marks[table.failed] = 'textcolor:{bocbgray}--rwrap'
    marks[table.top] = 'textcolor:{bocbblue}--rwrap;textbf:--rwrap'
    marks[table.top & table.failed] = 'textit:--rwrap;textcolor:{bocbblue}--rwrap;textbf:--rwrap'
    below = bottom.style.format(tex).format_index(tex)
    styled = texts.style.format(tex).format_index(tex).format_index(tex, axis=1)
    lines = (
        styled.apply(lambda _: marks, axis=None)
        .concat(below)
        .to_latex(hrules=True, column_format='l' + 'c' * len(texts.columns))
        .splitlines()
    )
    lines.insert(-2 - len(bottom), r'\midrule')  # between the results and the rows below them
    said = legend(table).replace('bold and blue', 'blue').replace('italic and gray', 'gray')
    return _TEX_FILE.format(
        blue=BLUE,
        gray=GRAY,
        caption=tex(f'{table.title}. {said}'),
        label=re.sub(r'[^0-9A-Za-z-]', '-', table.name),
        tabular='\n'.join(lines),
    )


# Inside a document \@nodocument is \relax, before \begin{document} it is not.
_TEX_FILE = r"""%% Compiles by itself, or \input it with booktabs, xcolor and graphicx loaded.
\expandafter\ifx\csname @nodocument\endcsname\relax
  \def\bocbend{{}}
\else
  \documentclass{{article}}
  \usepackage[landscape,margin=10mm]{{geometry}}
  \usepackage[utf8]{{inputenc}}
  \usepackage{{booktabs,graphicx,xcolor}}
  \pagestyle{{empty}}
  \begin{{document}}
  \def\bocbend{{\end{{document}}}}
\fi
\definecolor{{bocbblue}}{{HTML}}{{{blue}}}
\definecolor{{bocbgray}}{{HTML}}{{{gray}}}
\begin{{table}}[htbp]
\centering
\caption{{{caption}}}
\label{{tab:{label}}}
\resizebox{{\linewidth}}{{!}}{{%
{tabular}}}
\end{{table}}
\bocbend
"""


def tex(text: str) -> str:
    r"""Text that LaTeX sets as it is; a character pdflatex has no glyph for becomes ``?``.

    Example:
        >>> print(tex('50% & a_b'))
        50\% \& a\_b
    """
    flat = ' '.join(text.split())
    return ''.join(_TEX.get(c) or (c if c.isascii() or c in _ACCENTED else '?') for c in flat)
