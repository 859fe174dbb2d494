"""The page: one file that opens from disk, with every table, figure and run in it."""

from __future__ import annotations

import base64
import json
import math
import platform
import re
from datetime import datetime, timezone
from importlib import metadata, resources
from typing import Any

import bocb_mm
from bocb_mm.report import (
    details,
    names,
    paper,
    ranking,
    recommend,
    stats,
    style,
    summary,
    tables,
)
from bocb_mm.report.figures import Figure
from bocb_mm.report.model import Report, ResultTable
from bocb_mm.report.records import Summary
from bocb_mm.report.tables import number

# Configs that the page lists; the CSV files have them all.
CONFIGS_SHOWN = 60


def page(report: Report, drawn: list[tuple[Figure, bytes]], problems: list[str]) -> str:
    """The whole page.

    Args:
        report: What to show.
        drawn: Figures with their SVG.
        problems: Lines on inputs that could not be used.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = resources.files(__package__) / 'page'
    text = {p: (folder / p).read_text(encoding='utf-8') for p in _FILES}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters['short'] = _shortened
    views = [
        _table_view(report, i, t, [d for d in drawn if d[0].table == t.name])
        for i, t in enumerate(report.tables)
    ]
    data = {'tables': [{'cells': details.of_table(report, t)} for t in report.tables]}
    return environment.from_string(text['report.html.j2']).render(
        css=Markup(text['report.css']),
        js=Markup(text['report.js']),
        data=Markup(script_json(data)),
        lead=summary.lead(report),
        summary=summary.groups(report),
        tables=views,
        rankings=_rankings_view(report),
        advice=_advice_view(report),
        provenance=_provenance(report),
        configs=_configs(report.scan.runs),
        problems=problems,
    )


_FILES = ('report.html.j2', 'report.css', 'report.js')


def script_json(data: Any) -> str:
    r"""JSON that may stand in a script element: no ``<`` of it can end the element.

    Example:
        >>> print(script_json({'a': '</script>'}))
        {"a":"\u003c/script>"}
    """
    text = _json(data)
    return text.replace('<', '\\u003c').replace('\u2028', '\\u2028').replace('\u2029', '\\u2029')


def _json(data: Any) -> str:
    compact: dict[str, Any] = {'separators': (',', ':'), 'allow_nan': False}
    try:
        return json.dumps(data, **compact)
    except (TypeError, ValueError):  # a number of numpy's, or one that is not finite: seldom
        return json.dumps(_plain(data), **compact)


def _plain(value: Any) -> Any:
    """``value`` with numbers that JSON lacks as None."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.item() if hasattr(value, 'item') else value


def _shortened(lines: list[str], keep: int) -> list[str]:
    return lines if len(lines) <= keep else [*lines[:keep], f'... and {len(lines) - keep} more']


def _table_view(
    report: Report, index: int, table: ResultTable, drawn: list[tuple[Figure, bytes]]
) -> dict:
    values, shown, digits = table.values, table.shown(table.values), table.digits
    cells = {(c.optimizer, c.column): c for c in table.cells.itertuples()}
    rows = []
    for optimizer in values.index:
        texts = []
        for column in values.columns:
            place = (optimizer, column)
            value, cell = values.at[place], cells.get(place)
            doubt = table.doubts.get(place, ('', ''))
            texts.append(
                {
                    'text': number(shown.at[place], digits),
                    'sort': '' if math.isnan(value) else -1e9 if math.isinf(value) else value,
                    'mark': _mark(table, place),
                    'doubt': doubt if table.failed.at[place] else ('', ''),
                    'there': cell is not None,
                    'sub': _spread(cell, digits),
                    'reference': details.reference(table, place, digits),
                }
            )
        rows.append(
            {
                'name': str(optimizer),
                'color': style.look(str(optimizer)).color,
                'kind': summary.kind_label(str(optimizer)),
                'failed': bool(table.failed.loc[optimizer].any()),
                'cells': texts,
            }
        )
    notes = []
    if table.source == 'paper' and table.name.startswith('table1_cifar100'):
        notes = summary.printed_notes(paper.printed_against_table(stats.stability(values)))
    return {
        # No id of the page's own parts, and each but once, whatever a file is called.
        'id': f'table-{index}-{re.sub(r"[^0-9A-Za-z_-]", "-", table.name)}',
        'short': names.short_title(table.name),
        'title': table.title,
        'legend': tables.legend(table),
        'columns': [str(c) for c in values.columns],
        'rows': rows,
        'kinds': _kinds(rows),
        'bottom': [(name, list(texts)) for name, texts in tables.bottom_rows(table).iterrows()],
        'notes': notes,
        'figures': [figure_view(table.title, f, svg) for f, svg in drawn],
    }


def _mark(table: ResultTable, place: tuple) -> str:
    """Classes of a cell."""
    marks = [w for w, on in (('top', table.top), ('failed', table.failed)) if on.at[place]]
    return ' '.join(marks) or ('missing' if math.isnan(table.values.at[place]) else '')


def _kinds(rows: list[dict]) -> dict[str, list[dict]]:
    """The rows of a table by category: the legend of the colours."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(style.category_label(names.optimizer_class(row['name'])), []).append(row)
    return dict(sorted(found.items()))


def _spread(cell: Any, digits: int) -> str:
    if cell is None or cell.n + cell.n_diverged < 2:
        return ''
    lost = f', {cell.n_diverged} diverged' if cell.n_diverged else ''
    spread = f'± {cell.sd:.{digits}f} ' if cell.n > 1 else ''
    return f'{spread}(n = {cell.n}{lost})'


def figure_view(of: str, figure: Figure, svg: bytes) -> dict:
    """What the page's template needs of a figure; ``of`` says what it belongs to."""
    box = re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg[:2000])
    width, height = (float(v) for v in box.groups()) if box else (252.0, 252.0)
    return {
        'name': figure.name,
        'title': figure.title,
        'caption': figure.caption,
        'alt': f'{figure.title}, {of}. {figure.says}',
        'data': base64.b64encode(svg).decode(),
        'width': round(width * 4 / 3),
        'height': round(height * 4 / 3),
        'size': 'wide full' if width > 450 else 'wide' if width > 300 else 'column',
        'rem': round(width / 72 * 8.5, 1),  # one scale for all: the same letters in each
    }


_RANK_HEADS = ('Performance', 'Hyper-parameter', 'BOCB', 'Computation', 'Overall')


def _rankings_view(report: Report) -> dict:
    ranks = report.rankings
    printed = ranking.against_paper(ranks) if report.options.paper else None
    heads = ['Optimizer', *_RANK_HEADS]
    if printed is not None:
        heads += ['Overall (printed)', 'Difference']
    rows = []
    for optimizer in ranks.index:
        row = [
            str(optimizer),
            *(_rank(ranks.at[optimizer, a]) for a in (*stats.WEIGHTS, 'overall')),
        ]
        if printed is not None:
            row += [_rank(printed.at[optimizer, f'overall_{k}']) for k in ('printed', 'difference')]
        rows.append(row)
    weights = dict(report.options.weights or stats.WEIGHTS)
    source = {
        'runs': 'From the runs',
        'csv': 'From the CSV tables (they hold neither settings nor costs)',
        'paper': "The paper's four rank columns (Table 4), Overall by its rule",
    }[report.rankings_source]
    note = f'{source}; weights {", ".join(f"{k} {v:g}" for k, v in weights.items())}. '
    note += 'Equal scores are ordered by performance, which is the mean rank within each task.'
    if report.rankings_source != 'paper':
        note += ' BOCB is 1 for an optimizer with an outlier (Q25 - 1.5 IQR) on some backbone.'
    return {'heads': heads, 'rows': rows, 'note': note}


def _rank(value: float) -> str:
    return '–' if math.isnan(value) else f'{value:g}'


def _advice_view(report: Report) -> list[dict]:
    """What ``--recommend`` says of every backbone and task of the report."""
    rows = []
    for backbone, task in recommend.asked(report.tables):
        found, basis = recommend.recommend(report.tables, backbone, task)
        rows.append(
            {
                'backbone': backbone,
                'task': task,
                'basis': basis,
                'advice': [
                    {'name': a.optimizer, 'color': style.look(a.optimizer).color, 'text': a.setting}
                    for a in found
                ],
            }
        )
    return rows


def _provenance(report: Report) -> dict[str, str]:
    options = report.options
    used = ('numpy', 'pandas', *(['matplotlib'] if options.figures else []))
    packages = ', '.join(f'{name} {metadata.version(name)}' for name in used)
    return {
        'Made': datetime.now(timezone.utc).strftime('%Y-%m-%d %H:%M UTC'),
        'By': f'bocb_mm {bocb_mm.__version__}, Python {platform.python_version()}, {packages}',
        'From': ', '.join(options.paths) or "the paper's tables",
        'Runs': f'{len(report.scan.runs):,} read, {len(report.scan.broken)} unreadable, '
        f'{len(report.left_out)} without a result',
        'A run counts by its': f'{options.value} evaluation',
        'Gamma': ', '.join(f'{t.name}: {t.gamma:g}' for t in report.tables),
        'Computation ranked by': options.cost,
    }


def _configs(runs: list[Summary]) -> list[dict]:
    """One row a config: how many runs, which hashes, which versions."""
    groups: dict[str, list[Summary]] = {}
    for run in runs:
        groups.setdefault(run['config'] or '(no name)', []).append(run)
    rows = []
    for name, members in sorted(groups.items())[:CONFIGS_SHOWN]:
        hashes = sorted({m['config_hash'] for m in members if m['config_hash']})
        versions = sorted(
            {', '.join(f'{k} {v}' for k, v in m['versions'].items()) for m in members}
        )
        more = f' and {len(hashes) - 4} more' if len(hashes) > 4 else ''
        rows.append(
            {
                'name': name,
                'runs': len(members),
                'hashes': ', '.join(hashes[:4]) + more,
                'versions': ' | '.join(versions[:3]),
            }
        )
    return rows
