"""What the dialog of a cell shows: its numbers, the settings tried, its runs and their curves."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from bocb_mm.report import records, stats
from bocb_mm.report.model import Report, ResultTable
from bocb_mm.report.records import Summary
from bocb_mm.report.tables import number

# Settings that the page shows of a cell; the CSV files have them all.
SETTINGS_SHOWN = 40


def of_table(report: Report, table: ResultTable) -> dict[str, dict]:
    """What the dialog of each cell shows, by ``row,column``."""
    rows = {o: i for i, o in enumerate(table.values.index)}
    columns = {c: i for i, c in enumerate(table.values.columns)}
    threshold = stats.failure_threshold(table.values, table.gamma)
    place = stats.finite(table.values).rank(ascending=False, method='min')
    tried: dict[tuple, list[Any]] = {}
    if len(table.settings):
        ordered = table.settings.sort_values(['value', 'mean'], ascending=False)
        for setting in ordered.itertuples():
            tried.setdefault((setting.optimizer, setting.column), []).append(setting)
    found = {}
    for cell in table.cells.itertuples():
        pair = (cell.optimizer, cell.column)
        settings = tried.get(pair, [])
        runs = [report.scan.runs[i] for i in cell.runs]
        facts = _facts(table, cell, place.at[pair], threshold[cell.column])
        found[f'{rows[cell.optimizer]},{columns[cell.column]}'] = {
            'optimizer': str(cell.optimizer),
            'column': str(cell.column),
            'facts': facts + _origin(runs),
            'tried': len(settings),
            'settings': _settings(table, settings),
            'runs': [_run_view(run) for run in runs],
        }
    return found


def _facts(table: ResultTable, cell: Any, rank: float, threshold: float) -> list[tuple]:
    """The numbers of a cell."""
    pair, sign = (cell.optimizer, cell.column), table.sign(cell.column)
    digits = table.digits
    low, high = sorted((sign * cell.ci_low, sign * cell.ci_high))
    return [
        ('Result', number(sign * cell.value, digits)),
        ('Metric', table.metrics.get(cell.column, '')),
        ('Seeds', cell.n if table.source == 'runs' else ''),
        ('Diverged seeds', cell.n_diverged or ''),
        ('s.d. of the seeds', '' if math.isnan(cell.sd) else f'{cell.sd:.3f}'),
        ('95 % interval (bootstrap)', '' if math.isnan(low) else f'{low:.2f} to {high:.2f}'),
        ('Rank in this column', '' if math.isnan(rank) else int(rank)),
        ('Failed (eq. 1)', verdict(table, pair, cell.value, threshold)),
        ('Learning rate', '' if pd.isna(cell.lr) else f'{cell.lr:g}'),
        ('Weight decay', '' if pd.isna(cell.weight_decay) else f'{cell.weight_decay:g}'),
        ('Search', table.doubts.get(pair, ('', ''))[1]),
        ('The paper', reference(table, pair, digits)),
    ]


def _origin(runs: list[Summary]) -> list[tuple]:
    """Where rate and decay come from, as far as the runs know."""
    origins = sorted({r['lr_origin'] for r in runs} - {''})
    sources = sorted({r['lr_source'] for r in runs} - {''})
    return [('Rate and decay are', ', '.join(origins)), ('Their source', '; '.join(sources))]


def reference(table: ResultTable, place: tuple, digits: int) -> str:
    """The paper's value of a cell and the difference, ``''`` where it has none."""
    if table.reference is None or math.isnan(table.reference.at[place]):
        return ''
    theirs = table.reference.at[place]
    change = table.values.at[place] - theirs
    shown = f' ({change:+.{digits}f})' if math.isfinite(change) else ''
    return f'paper {number(theirs, digits)}{shown}'


def verdict(table: ResultTable, pair: tuple, value: float, threshold: float) -> str:
    """Whether a cell failed, against what, and whether a search might still undo that."""
    if math.isinf(value):
        text = 'yes: diverged'
    else:
        sign, failed = table.sign(pair[1]), bool(table.failed.at[pair])
        side = 'below' if sign > 0 else 'above'
        text = f'{"yes: " if failed else "no: not "}{side} {sign * threshold:.2f}'
    doubt = table.doubts.get(pair)
    return f'{text}; {doubt[1]}' if doubt and table.failed.at[pair] else text


def _settings(table: ResultTable, settings: list[Any]) -> list[list[str]]:
    if len(settings) < 2:
        return []
    digits = table.digits
    return [
        [
            '–' if pd.isna(s.lr) else f'{s.lr:g}',
            '–' if pd.isna(s.weight_decay) else f'{s.weight_decay:g}',
            number(table.sign(s.column) * (s.mean if math.isfinite(s.mean) else s.value), digits),
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
    by_iteration = run['max_epochs'] is None and not run['epochs']
    facts = [
        ('Directory', run['path']),
        ('Status', run['status']),
        ('Message', run['message']),
        ('Seed', run['seed']),
        ('Best / last', f'{_raw(run["best"])} / {_raw(run["last"])} ({run["metric"]})'),
        ('Epochs', '' if by_iteration else f'{run["epochs"]} of {run["max_epochs"] or "?"}'),
        ('Iterations', run['iterations'] or ''),
        ('Batch size', run['batch_size']),
        ('Optimizer settings', settings),
        ('Network', ', '.join(f'{k}={v}' for k, v in run['architecture'].items())),
        ('Pre-training', run['pretraining']),
        ('Loaded at the start', '; '.join(map(_loaded, run['pretrained']))),
        ('Recipe', run['recipe']),
        ('Training annotations', run['ann_file']),
        ('Time of an iteration', '' if seconds is None else f'{seconds * 1000:.1f} ms'),
        ('Time of a step', '' if step is None else f'{step:.2f} ms'),
        ('Peak memory', '' if memory is None else f'{memory:.0f} MiB'),
        ('Parameters', '' if run['n_parameters'] is None else f'{run["n_parameters"]:,}'),
        ('Config', f'{run["config"]} {run["config_hash"]}'.strip()),
        ('Versions', ', '.join(f'{k} {v}' for k, v in run['versions'].items())),
        ('Warnings', '; '.join(map(str, run['warnings']))),
        ('Started', run['started']),
    ]
    return {'facts': facts, 'metric': run['metric'], **records.curves(run)}


def _loaded(part: Any) -> str:
    """What was loaded into a part of the model, as the record has it."""
    known = part if isinstance(part, dict) else {}
    return f'{known.get("tensors")} of {known.get("of")} tensors from {known.get("source")}'


def _raw(value: float | None) -> str:
    return '–' if value is None else f'{value:.5g}'
