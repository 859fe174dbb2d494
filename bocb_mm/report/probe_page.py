"""The page of a probe: the answer first, then the numbers it rests on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import bocb_mm
from bocb_mm.report import gap, html, layers, stats, style
from bocb_mm.report.figures import Figure, render
from bocb_mm.report.gap import Interval
from bocb_mm.report.probe_words import FRESH, TUNING, amount, digits, margin_of, unit

Result = Mapping[str, Any]


def page(result: Result) -> str:
    """The whole page, one file that opens from disk.

    Args:
        result: Of :func:`bocb_mm.report.probed.analyse`, with what the probe adds.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = resources.files(__package__) / 'page'
    css, template = (
        (folder / name).read_text(encoding='utf-8') for name in ('report.css', 'probe.html.j2')
    )
    name = result['subject']['backbone']
    drawn = {f.name: html.figure_view(name, f, render(f)[0]) for f in figures(result)}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(
        css=Markup(css),
        subject=result['subject'],
        sentences=result['sentences'],
        margin=margin_of(result),
        unit=unit(result) or "the metric's own unit",
        figures=drawn,
        facts=_facts(result),
        optimizers=[_optimizer(result, row) for row in result['optimizers']],
        lengths=[_length(result, row) for row in result['lengths']],
        references=[
            {**r, 'interval': f'{Interval.of(r["interval"]):.{digits(result)}f}'}
            for r in result['references']
        ],
        runs=[_run(result, run) for run in result['runs']],
        not_tried=result.get('not_tried', []),
        version=bocb_mm.__version__,
    )


def _shown(result: Result, value: float | None, more: int = 0) -> str:
    """A result with its own sign."""
    n = digits(result) + more
    return '–' if value is None else f'{result["subject"]["sign"] * value:.{n}f}'


def _facts(result: Result) -> list[tuple[str, str]]:
    subject, found, behind = result['subject'], result['gap'], result['range']
    a, b = found[gap.ADAPTIVE] or 'none', found[gap.FIXED] or 'none'
    rows = [
        ('Verdict', found['words']),
        ('Budget of a run', subject['budget']),
        (f'Gap G: {a} minus {b}', amount(result, Interval.of(found['interval']))),
        ('Range R over the optimizers', amount(result, Interval.of(behind['interval']))),
        ('Margin', margin_of(result)),
        ('Fresh seeds', str(found['seeds'])),
        *_to_decide(found),
        ('Data, metric', f'{subject["dataset"]}, {subject["metric"]}'),
        ('Protocol', f'version {subject["protocol"]}'),
    ]
    cost = result.get('cost')
    if cost:
        rows.append(('Cost', f'{cost["runs"]} runs, {cost["run_seconds"] / 60:.1f} minutes in all'))
    for name, value in result.get('covariates', {}).items():
        words = {
            'first_to_median': 'Gradient norm, first layer over median layer',
            'block_spread': 'Gradient norm, spread over blocks (s.d. of log10)',
        }
        rows.append((words.get(name, name), f'{value:.3g} (at the start; not validated)'))
    return rows


def _to_decide(found: Result) -> list[tuple[str, str]]:
    if found['verdict'] != gap.UNDECIDED:
        return []
    n = found['seeds_to_decide']
    return [('Seeds that would decide', str(n or f'more than {gap.MOST_SEEDS}, or unknown'))]


def _optimizer(result: Result, row: Result) -> dict[str, Any]:
    expected = [v for v in row['expected']]
    if result['subject']['sign'] < 0:
        expected[1:] = expected[:0:-1]
    mean, low, high = (_shown(result, v) for v in expected)
    cost = Interval.of(row['default_cost'])
    return {
        'name': row['name'],
        'color': style.look(row['name']).color,
        'family': row['family'],
        'best': result['best'] is not None and result['best']['name'] == row['name'],
        'lr': '–' if row['lr'] is None else f'{row["lr"]:g}',
        'edge': row['edge'],
        'default': f'{row["default_lr"]:g}',
        'decay': '–' if row['weight_decay'] is None else f'{row["weight_decay"]:g}',
        'expected': mean if low == '–' else f'{mean} [{low}, {high}]',
        'n': len(row['fresh']),
        'cost': 'diverges' if row['default_diverged'] else '–' if math.isnan(cost.estimate)
        else '0, it is the best' if row['lr'] == row['default_lr']
        else f'{cost:.{digits(result)}f}',
        'sensitivity': '–' if row['lr_sensitivity'] is None
        else f'{row["lr_sensitivity"]:.{digits(result)}f}',
        'ease': '–' if row['tuning_ease'] is None else f'{row["tuning_ease"]:.0%}',
        'diverged': '–' if row['diverged_share'] is None else f'{row["diverged_share"]:.0%}',
    }  # fmt: skip


def _length(result: Result, row: Result) -> dict[str, str]:
    growth, n = Interval.of(row['growth']), digits(result)
    grows = 'grows' if growth.low > 0 else 'shrinks' if growth.high < 0 else 'no change is shown'
    told = 'not known yet' if math.isnan(growth.estimate) else f'{growth:.{n}f}: {grows}'
    return {
        'length': f'{row["length"]:g} times the length',
        'gap': f'{Interval.of(row["interval"]):.{n}f}',
        'words': row['words'],
        'growth': told,
    }


def _run(result: Result, run: Result) -> dict[str, Any]:
    return {
        'optimizer': run['optimizer'],
        'color': style.look(run['optimizer']).color,
        'lr': f'{run["lr"]:g}',
        'seed': run['seed'],
        'stage': run['stage'] + ('' if run['length'] == 1 else f' x {run["length"]:g}'),
        'value': _shown(result, run['value'], 1) if run['status'] == 'completed' else run['status'],
        'seconds': '–' if run['seconds'] is None else f'{run["seconds"]:.0f}',
        'message': run['message'],
    }


# -- figures ------------------------------------------------------------------------------------


def figures(result: Result) -> Iterator[Figure]:
    """The figures that the results allow."""
    runs = [r for r in result['runs'] if r['status'] != 'no result']
    if runs:
        yield Figure(
            'rates', '', 'Result over learning rate',
            'The line joins the tuning runs, one seed each, a cross at the bottom is one that '
            'diverged; rings are the fresh seeds at the best rate, and only they are reported. A '
            'bar at the bottom is the default rate.',
            _says(result), partial(_rates, result),
        )  # fmt: skip
    if not math.isnan(Interval.of(result['gap']['interval']).low):
        yield Figure(
            'gap', '', 'Best adaptive minus best fixed rate',
            'The verdict is what the whole interval says: right of the band coupled to adaptive '
            'rates, left of it to fixed ones, inside not coupled at this budget, else undecided.',
            f'Gap {amount(result, Interval.of(result["gap"]["interval"]))}, margin '
            f'{result["margin"]:g}.',
            partial(_gap, result),
        )  # fmt: skip
    yield from _layers(result)


def _says(result: Result) -> str:
    return '; '.join(
        f'{r["name"]} is best at {r["lr"]:g}' for r in result['optimizers'] if r['lr'] is not None
    )


def _rates(result: Result) -> Any:
    made, grid = style.figure(style.TEXT, 3.3)
    axes, sign = grid[0, 0], result['subject']['sign']
    shown = (TUNING, FRESH)
    values = [r['value'] for r in result['runs'] if r['value'] is not None and r['stage'] in shown]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    # Rates far below the best would press the differences that matter into a line; fresh results
    # are in sight whatever they are, as the verdict is about them.
    confirmed = [v for row in result['optimizers'] for v in row['fresh'] or ()]
    low = min([max(low, high - max(25.0, 6 * result['margin'])), *confirmed])
    floor = low - 0.06 * max(high - low, 1.0)
    for row in result['optimizers']:
        look, mine = (
            style.look(row['name']),
            [r for r in result['runs'] if r['optimizer'] == row['name']],
        )
        tuned = sorted((r for r in mine if r['stage'] == TUNING), key=lambda r: r['lr'])
        worked = [r for r in tuned if r['value'] is not None]
        axes.plot(
            [r['lr'] for r in worked], [r['value'] for r in worked], ls=look.dash, lw=1.1, ms=3.2,
            marker=look.marker, mew=0, color=look.color, label=row['name'],
        )  # fmt: skip
        lost = [r['lr'] for r in tuned if r['status'] == 'diverged']
        axes.plot(lost, [floor] * len(lost), 'x', ms=4.5, mew=1.1, color=look.color)
        fresh = [r for r in mine if r['stage'] == FRESH and r['value'] is not None]
        axes.plot(
            [r['lr'] for r in fresh], [r['value'] for r in fresh], 'o', ms=4.6, mfc='none',
            mec=look.color, mew=0.9, zorder=5,
        )  # fmt: skip
        axes.plot([row['default_lr']], [floor], '|', ms=9, mew=1.3, color=look.color, zorder=4)
    axes.set_xscale('log')
    axes.xaxis.set_major_formatter(lambda rate, _: f'{rate:g}')
    axes.minorticks_off()
    axes.set_ylim(2 * floor - low, high + 0.06 * max(high - low, 1.0))
    if sign < 0:
        axes.yaxis.set_major_formatter(lambda value, _: f'{-value:g}')
    axes.set(
        xlabel='learning rate (bar at the bottom: default)', ylabel=result['subject']['metric']
    )
    axes.grid(axis='y')
    made.legend(loc='outside lower center', ncols=min(6, len(result['optimizers'])))
    return made


def _gap(result: Result) -> Any:
    rows = [(result['subject']['backbone'], Interval.of(result['gap']['interval']), style.BLUE)]
    rows += [
        (f'at {r["length"]:g} times the length', Interval.of(r['interval']), style.SKY)
        for r in result['lengths']
    ]
    rows += [
        (f'{r["backbone"]} (reference)', Interval.of(r['interval']), style.GRAY)
        for r in result['references']
    ]
    made, grid = style.figure(style.TEXT, 0.85 + 0.26 * len(rows))
    axes, margin = grid[0, 0], result['margin']
    axes.axvspan(-margin, margin, color=style.PALE, lw=0)
    axes.axvline(0, color=style.INK, lw=0.6)
    for place, (_, found, color) in enumerate(rows):
        if not math.isnan(found.low):
            axes.plot([found.low, found.high], [place, place], color=color, lw=2.2)
        axes.plot([found.estimate], [place], 'o', ms=5, color=color)
    axes.set_yticks(range(len(rows)), [style.label(name, 34) for name, _, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis='y', length=0)
    reach = max(
        1.6 * margin, *(1.1 * abs(v) for _, i, _ in rows for v in (i.low, i.high) if v == v)
    )
    axes.set_xlim(-reach, reach)
    axes.set_xlabel(
        f'{unit(result) or result["subject"]["metric"]}; band: the margin of {margin:g}'
    )
    return made


_TITLES = {
    'entropy': 'Entropy of the layers',
    'l2_norm': 'L2 norm of the layers',
    'pca_energy': 'Top-k PCA energy of the layers',
}


def _layers(result: Result) -> Iterator[Figure]:
    """The paper's advice: look at the layers after each optimizer."""
    found = _snapshots(result)
    if not found:
        return
    for metric, title in _TITLES.items():
        if any(s.layers[metric].notna().any() for s in found):
            yield Figure(
                f'layers_{metric}', '', title,
                'One ridge an optimizer over the layers in network order, at its best rate.',
                _medians(found, metric),
                partial(layers.ridges, found, metric),
            )  # fmt: skip
    if any((s.layers['eligible'] & s.layers['alpha'].notna()).any() for s in found):
        column = found[0].column
        fresh = {
            r['name']: np.mean(r['fresh']) if r['fresh'] else np.nan for r in result['optimizers']
        }
        failed = stats.failed(pd.DataFrame({column: fresh}), result['margin'])
        yield Figure(
            'layers_alpha', '', 'PL exponent alpha',
            'Median over the layers whose alpha means something, with quartiles; hatched where the '
            'optimizer failed by eq. 1 among those of this probe.',
            _medians(found, 'alpha'),
            partial(layers.alpha_bars, found, failed),
        )  # fmt: skip


def _medians(found: list[layers.Snapshot], metric: str) -> str:
    each = layers.medians(found, metric).items()
    return f'Medians {", ".join(f"{optimizer} {v:.3g}" for (optimizer, _), v in each)}.'


def _snapshots(result: Result) -> list[layers.Snapshot]:
    """Layer metrics of the confirmed runs that have them, one an optimizer."""
    found: dict[str, layers.Snapshot] = {}
    name = result['subject']['backbone']
    for run in result['runs']:
        file = Path(run['directory'], 'layer_metrics.csv')
        if run['stage'] != FRESH or run['optimizer'] in found or not run['directory']:
            continue
        if file.is_file():
            try:
                read = layers.read_last(str(file))
            except (OSError, ValueError, KeyError):
                continue  # the page is not worth less for it
            if len(read):
                found[run['optimizer']] = layers.Snapshot(run['optimizer'], name, read)
    return list(found.values())
