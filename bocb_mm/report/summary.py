"""What a report says, in words."""

from __future__ import annotations

import math

import pandas as pd

from bocb_mm import facts
from bocb_mm.report import names, paper, stats, tuning
from bocb_mm.report.coupling import Coupling
from bocb_mm.report.model import Report, ResultTable
from bocb_mm.report.style import category_label
from bocb_mm.words import counted

# Of fewer optimizers than this, "failed" says little: the threshold is the best less the quartiles'
# distance, which is always less than the range (unless a quarter of the results are equal).
FEW = 6


def lead(report: Report) -> str:
    """One sentence: what the report is made from."""
    parts = []
    if report.scan.runs:
        parts.append(counted(len(report.scan.runs), 'run'))
    csvs = len(report.of('csv'))
    if csvs:
        parts.append(counted(csvs, 'CSV table'))
    if report.options.paper:
        parts.append('the numbers of the BOCB paper (ICLR 2025)')
    return f'Which optimizers fail on which backbones, from {_and(parts)}.'


def groups(report: Report) -> list[tuple[str, list[str]]]:
    """Headline and sentences for each table and for the rankings."""
    found = [(t.title, sentences(t, report.couplings[t.name])) for t in report.tables]
    return [*found, ('Optimizers', ranking_sentences(report))]


def sentences(table: ResultTable, coupled: list[Coupling]) -> list[str]:
    """What a table says: coverage, failures, the steadiest and the most coupled column."""
    values, failed = table.values, table.failed
    there = int(values.notna().to_numpy().sum())
    lost = int(stats.diverged(values).to_numpy().sum())
    lines = [
        f'{counted(values.shape[0], "optimizer")} {_columns(values)}: {there} of {values.size} '
        f'pairs have a result{_missing(values.size - there)}'
        f'{f", {lost} of them diverged" if lost else ""}. {int(failed.to_numpy().sum())} failed '
        f'by eq. 1 with gamma = {table.gamma:g}{_in_doubt(table)}.'
    ]
    if values.shape[0] < FEW and failed.to_numpy().any():
        lines.append(
            'With so few optimizers look at the range too: eq. 1 fails the worst result of a '
            'column, however close to the best it is.'
        )
    lines += _spread_sentence(table)
    lines += [line for one in coupled for line in coupling_sentences(one, len(coupled) > 1)]
    never = [
        str(o) for o in values.index if not failed.loc[o].any() and values.loc[o].notna().all()
    ]
    if never and min(values.shape) > 1:
        lines.append(f'Never failed: {_and(never)}.')
    return lines + table.notes


def _in_doubt(table: ResultTable) -> str:
    """How many of the failures a search might still undo."""
    counts = table.doubtful_failures()
    parts = [
        f'{counts[tuning.SINGLE]} with {tuning.LEGEND[tuning.SINGLE]}',
        f'{counts[tuning.EDGE]} with the {tuning.LEGEND[tuning.EDGE]}',
    ]
    shown = [part for part, n in zip(parts, counts.values()) if n]
    return f', {_and(shown)}: there the rate may have failed, not the optimizer' if shown else ''


def _spread_sentence(table: ResultTable) -> list[str]:
    """Where the choice of the optimizer moves least and most, task by task.

    Without the worst result the s.d. of a handful says little; then the whole range is taken.
    """
    few = len(table.values) < FEW
    if few:
        spread = stats.finite(table.values).max() - stats.finite(table.values).min()
        what = 'range'
    else:
        spread, what = stats.stability(table.values)['std'], 's.d.'
    spread = spread[table.values.notna().sum() > 2].dropna()
    lines = []
    for group, columns in table.groups().items():
        own = spread[[c for c in columns if c in spread.index]]
        if own.nunique() < 2:
            continue
        calm, wild = own.idxmin(), own.idxmax()
        where = f'In {group}, least' if len(table.groups()) > 1 else 'Least'
        without = '' if few else ', without its worst result'
        lines.append(
            f'{where} moved by the choice of the optimizer: {calm} ({what} {own[calm]:.2f} '
            f'points); most: {wild} ({what} {own[wild]:.2f}{without}).'
        )
    return lines


def _columns(values: pd.DataFrame) -> str:
    """``on 20 backbones``, or where one stands there more than once ``in 11 columns (...)``."""
    backbones = len({names.split_column(str(c))[1] for c in values.columns})
    if backbones == values.shape[1]:
        return f'on {counted(backbones, "backbone")}'
    return f'in {values.shape[1]} columns ({counted(backbones, "backbone")})'


def _missing(n: int) -> str:
    return f', {n} {"is" if n == 1 else "are"} missing' if n else ''


def coupling_sentences(found: Coupling, several: bool) -> list[str]:
    """Share and p-value of a task, who stands out, and whether that rests on one optimizer."""
    if math.isnan(found.share):
        return []
    where = f'Coupling in {found.group}' if several else 'Coupling'
    p_value = '' if math.isnan(found.p_value) else f' (p = {found.p_value:.2g}{_range(found)})'
    lines = [
        f'{where}: {found.share:.0%} of what the choice of the optimizer moves is peculiar to '
        f'single columns{p_value}; tested: {found.method}.'
    ]
    columns = found.columns.dropna(subset=['p_holm'])
    if found.beyond_chance:
        lines.append(f'Coupled beyond chance, corrected for all: {_and(found.beyond_chance)}.')
    elif len(columns):
        first = columns['p_value'].idxmin()
        lines.append(
            f'No single column stands out after correction for {len(columns)} tests; nearest is '
            f'{first} (share {columns.at[first, "share"]:.0%}, '
            f'p = {columns.at[first, "p_value"]:.2g}).'
        )
    return lines + _sensitivity_sentences(found)


def _range(found: Coupling) -> str:
    """The range of the p-value when each optimizer is left out in turn."""
    low, high = (f'{p:.2g}' for p in found.p_range)
    if low == 'nan':
        return ''
    each = 'with each optimizer left out in turn'
    return f', the same {each}' if low == high else f', {low} to {high} {each}'


def _sensitivity_sentences(found: Coupling) -> list[str]:
    """What becomes of the verdict on the columns without an optimizer, or without two."""
    if not len(found.left_out):
        return []
    now = set(found.beyond_chance)
    changed: dict[str, list[str]] = {}
    for row in found.left_out.sort_values('n', kind='stable').itertuples():
        then = set(filter(None, row.beyond_chance.split('; ')))
        words = [f'{_and(sorted(then - now))} stands out'] if then - now else []
        words += [f'{_and(sorted(now - then))} no longer stands out'] if now - then else []
        others = changed.setdefault(' and '.join(words), [])
        if not any(one in row.Index.split(' and ') for one in others):  # one of the two would do
            others.append(row.Index)
    changed.pop('', None)
    if not changed:
        return ['Left out in turn, no optimizer changes which columns stand out.']
    return [f'Without {_or(out)}, {what}.' for what, out in changed.items()]


def ranking_sentences(report: Report) -> list[str]:
    """The first three of the overall ranking, and how the printed one differs."""
    ranks = report.rankings.dropna(subset=['overall'])
    lines = []
    if len(ranks) == 1:
        lines.append('With one optimizer there is nothing to rank.')
    elif len(ranks):
        ordered = ranks.sort_values('overall', kind='stable')
        first = [str(o) for o in ordered.index[: max(1, min(3, len(ordered) // 2))]]
        lines.append(
            f'Best overall: {_and(first)} (C.5: performance, tuning, BOCB and computation).'
        )
    if report.rankings_source == 'paper':
        printed = paper.rankings()['overall'].reindex(ranks.index)
        moved = [str(o) for o in ranks.index if ranks.at[o, 'overall'] != printed[o]]
        if moved:
            lines.append(
                f'By its own rule and rank columns, the printed Overall row of Table 4 is right in '
                f'{len(ranks) - len(moved)} of {len(ranks)} places; {_and(moved)} are tied and '
                'stand the other way round.'
            )
    return lines


def printed_notes(comparison: pd.DataFrame) -> list[str]:
    """How the bottom lines printed under Table 1 relate to its numbers."""
    n = len(comparison)
    off = comparison['mean_difference'].abs() > 0.0051
    worst = comparison['mean_difference'].abs().idxmax()
    mean = (comparison['mean_trimmed'] - comparison['mean_printed']).abs() < 0.0051
    std = (comparison['std_trimmed'] - comparison['std_printed']).abs() < 0.051
    spread = (comparison['range'] - comparison['range_printed']).abs() < 0.51
    others = _and([str(c) for c in comparison.index[~spread]])
    return [
        f'The printed Mean differs from the table in {off.sum()} of {n} columns, most in {worst} '
        f'({comparison.at[worst, "mean_printed"]:.2f} printed, '
        f'{comparison.at[worst, "mean"]:.2f} by the stated rule). Leaving out the two best results '
        f'as well gives {mean.sum()} of the {n} printed means and {std.sum()} of the standard '
        'deviations.',
        f'The printed Range leaves out the worst result only, as stated: it fits {spread.sum()} of '
        f'{n} columns (not {others}).',
    ]


def _and(items: list[str], word: str = 'and') -> str:
    return f' {word} '.join([', '.join(items[:-1]), items[-1]] if len(items) > 1 else items)


def _or(items: list[str]) -> str:
    return _and(items, 'or')


def kind_label(optimizer: str) -> str:
    """The category of an optimizer in words, and whether it is one of the paper's."""
    row = facts.find_optimizer(optimizer)
    if row is None:
        return category_label('')
    return category_label(row.category) + ('' if row.in_paper else "; not one of the paper's")
