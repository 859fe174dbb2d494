"""The page: one file that opens from disk, with every table, figure and run in it."""

from __future__ import annotations

import base64
import json
import math
import platform
import re
from datetime import datetime, timezone
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any

import pandas as pd

import bocb_mm
from bocb_mm.report import coupling, names, paper, ranking, records, stats, summary, tables
from bocb_mm.report.figures import Figure
from bocb_mm.report.load import ResultTable
from bocb_mm.report.records import Summary
from bocb_mm.report.tables import number

if TYPE_CHECKING:
    from bocb_mm.report.build import Report

# Of a long list the page shows so many; the CSV files have them all.
SETTINGS_SHOWN, PROBLEMS_SHOWN, CONFIGS_SHOWN = 40, 100, 60


def cell_data(report: Report) -> str:
    """What the dialogs of the cells show, as JSON for :func:`page`."""
    return script_json({'tables': [{'cells': _details(report, t)} for t in report.tables]})


def page(report: Report, data: str, drawn: list[tuple[Figure, bytes]], problems: list[str]) -> str:
    """The whole page.

    Args:
        report: What to show.
        data: Of :func:`cell_data`.
        drawn: Figures with their SVG.
        problems: Lines on inputs that could not be used.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = resources.files(__package__) / 'page'
    text = {p: (folder / p).read_text(encoding='utf-8') for p in _FILES}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    views = [
        _table_view(report, t, [d for d in drawn if d[0].table == t.name]) for t in report.tables
    ]
    return environment.from_string(text['report.html.j2']).render(
        css=Markup(text['report.css']),
        js=Markup(text['report.js']),
        data=Markup(data),
        lead=summary.lead(report),
        summary=[{'title': t, 'lines': lines} for t, lines in summary.groups(report)],
        tables=views,
        rankings=_rankings_view(report),
        provenance=_provenance(report),
        configs=_configs(report.scan.runs),
        problems=_shortened(problems, PROBLEMS_SHOWN),
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


def _table_view(report: Report, table: ResultTable, drawn: list[tuple[Figure, bytes]]) -> dict:
    values, failed, best = table.values, table.failed, table.top
    digits = tables.decimals(values)
    cells = {(c.optimizer, c.column): c for c in table.cells.itertuples()}
    rows = []
    for optimizer in values.index:
        shown = []
        for column in values.columns:
            place = (optimizer, column)
            value, cell = values.at[place], cells.get(place)
            mark = ' '.join(w for w, on in (('top', best), ('failed', failed)) if on.at[place])
            shown.append(
                {
                    'text': number(value, digits),
                    'sort': '' if math.isnan(value) else -1e9 if math.isinf(value) else value,
                    'mark': mark or ('missing' if math.isnan(value) else ''),
                    'there': cell is not None,
                    'sub': _spread(cell, digits),
                    'reference': _reference(table, place, digits),
                }
            )
        kind = names.optimizer_class(str(optimizer))
        rows.append(
            {
                'name': str(optimizer),
                'kind': kind,
                'kind_label': summary.kind_label(str(optimizer)),
                'failed': bool(failed.loc[optimizer].any()),
                'cells': shown,
            }
        )
    notes = []
    if table.source == 'paper' and table.name.startswith('table1_cifar100'):
        notes = summary.printed_notes(paper.printed_against_table(stats.stability(values)))
    return {
        'id': re.sub(r'[^0-9A-Za-z_-]', '-', table.name),
        'short': names.short_title(table.name),
        'title': table.title,
        'legend': tables.legend(table),
        'columns': [str(c) for c in values.columns],
        'rows': rows,
        'bottom': tables.bottom_rows(table),
        'notes': notes,
        'figures': [_figure_view(table, f, svg) for f, svg in drawn],
    }


def _spread(cell: Any, digits: int) -> str:
    if cell is None or cell.n + cell.n_diverged < 2:
        return ''
    lost = f', {cell.n_diverged} diverged' if cell.n_diverged else ''
    spread = f'± {cell.sd:.{digits}f} ' if cell.n > 1 else ''
    return f'{spread}(n = {cell.n}{lost})'


def _reference(table: ResultTable, place: tuple, digits: int) -> str:
    if table.reference is None or math.isnan(table.reference.at[place]):
        return ''
    change = table.values.at[place] - table.reference.at[place]
    shown = f' ({change:+.{digits}f})' if math.isfinite(change) else ''
    return f'paper {number(table.reference.at[place], digits)}{shown}'


def _figure_view(table: ResultTable, figure: Figure, svg: bytes) -> dict:
    box = re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg[:2000])
    width, height = (float(v) for v in box.groups()) if box else (252.0, 252.0)
    return {
        'name': figure.name,
        'title': figure.title,
        'caption': figure.caption,
        'alt': f'{figure.title}, {table.title}. {figure.says}',
        'data': base64.b64encode(svg).decode(),
        'width': round(width * 4 / 3),
        'height': round(height * 4 / 3),
        'size': 'wide full' if width > 450 else 'wide' if width > 300 else 'column',
        'rem': round(width / 72 * 8.5, 1),  # one scale for all: the same letters in each
    }


def _details(report: Report, table: ResultTable) -> dict[str, dict]:
    """What the dialog of each cell shows, by ``row,column``."""
    rows = {o: i for i, o in enumerate(table.values.index)}
    columns = {c: i for i, c in enumerate(table.values.columns)}
    threshold = stats.failure_threshold(table.values, table.gamma)
    failed, place = table.failed, stats.finite(table.values).rank(ascending=False, method='min')
    tried: dict[tuple, list[Any]] = {}
    if len(table.settings):
        ordered = table.settings.sort_values(['value', 'mean'], ascending=False)
        for setting in ordered.itertuples():
            tried.setdefault((setting.optimizer, setting.column), []).append(setting)
    digits = tables.decimals(table.values)
    found = {}
    for cell in table.cells.itertuples():
        key = (cell.optimizer, cell.column)
        low, high = coupling.bootstrap_interval(cell.seed_values)
        facts = [
            ('Result', number(cell.value, digits)),
            ('Seeds', cell.n if table.source == 'runs' else ''),
            ('Diverged seeds', cell.n_diverged or ''),
            ('s.d. of the seeds', '' if math.isnan(cell.sd) else f'{cell.sd:.3f}'),
            ('95 % interval (bootstrap)', '' if math.isnan(low) else f'{low:.2f} to {high:.2f}'),
            ('Rank on this backbone', '' if math.isnan(place.at[key]) else int(place.at[key])),
            ('Failed (eq. 1)', _verdict(failed.at[key], cell.value, threshold[cell.column])),
            ('Learning rate', '' if pd.isna(cell.lr) else f'{cell.lr:g}'),
            ('Weight decay', '' if pd.isna(cell.weight_decay) else f'{cell.weight_decay:g}'),
            ('The paper', _reference(table, key, digits)),
        ]
        settings = tried.get(key, [])
        found[f'{rows[cell.optimizer]},{columns[cell.column]}'] = {
            'optimizer': str(cell.optimizer),
            'column': str(cell.column),
            'facts': facts,
            'tried': len(settings),
            'settings': _settings(settings, digits),
            'runs': [_run_view(report.scan.runs[i]) for i in cell.runs],
        }
    return found


def _verdict(failed: bool, value: float, threshold: float) -> str:
    if math.isinf(value):
        return 'yes: diverged'
    return f'{"yes: below" if failed else "no: not below"} {threshold:.2f}'


def _settings(settings: list[Any], digits: int) -> list[list[str]]:
    if len(settings) < 2:
        return []
    return [
        [
            '–' if pd.isna(s.lr) else f'{s.lr:g}',
            '–' if pd.isna(s.weight_decay) else f'{s.weight_decay:g}',
            number(s.mean if math.isfinite(s.mean) else s.value, digits),
            str(s.n),
            str(s.n_diverged),
        ]
        for s in settings[:SETTINGS_SHOWN]
    ]


def _run_view(run: Summary) -> dict:
    settings = ', '.join(f'{k}={v}' for k, v in run['optimizer_settings'].items())
    seconds, step, memory = (
        run[k] for k in ('seconds_per_iteration', 'optimizer_step_ms', 'peak_memory_mb')
    )
    facts = [
        ('Directory', run['path']),
        ('Status', run['status']),
        ('Message', run['message']),
        ('Seed', run['seed']),
        ('Best / last', f'{_raw(run["best"])} / {_raw(run["last"])} ({run["metric"]})'),
        ('Epochs', f'{run["epochs"]} of {run["max_epochs"] or "?"}'),
        ('Optimizer settings', settings),
        ('Pre-training', run['pretraining']),
        ('Recipe', run['recipe']),
        ('Time of an iteration', '' if seconds is None else f'{seconds * 1000:.1f} ms'),
        ('Time of a step', '' if step is None else f'{step:.2f} ms'),
        ('Peak memory', '' if memory is None else f'{memory:.0f} MiB'),
        ('Weights', '' if run['n_parameters'] is None else f'{run["n_parameters"]:,}'),
        ('Config', f'{run["config"]} {run["config_hash"]}'.strip()),
        ('Versions', ', '.join(f'{k} {v}' for k, v in run['versions'].items())),
        ('Warnings', '; '.join(map(str, run['warnings']))),
        ('Started', run['started']),
    ]
    return {'facts': facts, 'metric': run['metric'], **records.curves(run)}


def _raw(value: float | None) -> str:
    return '–' if value is None else f'{value:.5g}'


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
    note += 'Equal scores are ordered by performance.'
    if report.rankings_source != 'paper':
        note += ' BOCB is 1 for an optimizer with an outlier (Q25 - 1.5 IQR) on some backbone.'
    return {'heads': heads, 'rows': rows, 'note': note}


def _rank(value: float) -> str:
    return '–' if math.isnan(value) else f'{value:g}'


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
