"""What a report says, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from bocb_mm import facts
from bocb_mm.report import coupling, names, paper, stats
from bocb_mm.report.load import ResultTable
from bocb_mm.report.style import category_label

if TYPE_CHECKING:
    from bocb_mm.report.build import Report

# Up to so many optimizers, "failed" says little: the threshold is the best less the quartiles'
# distance, which is always less than the range (unless a quarter of the results are equal).
FEW = 5


def lead(report: Report) -> str:
    """One sentence: what the report is made from."""
    parts = []
    if report.scan.runs:
        n = len(report.scan.runs)
        parts.append(f'{n:,} run{"s" if n > 1 else ""}')
    csvs = len(report.of('csv'))
    if csvs:
        parts.append(f'{csvs} CSV table{"s" if csvs > 1 else ""}')
    if report.options.paper:
        parts.append('the numbers of the BOCB paper (ICLR 2025)')
    return f'Which optimizers fail on which backbones, from {_and(parts)}.'


def groups(report: Report) -> list[tuple[str, list[str]]]:
    """Headline and sentences for each table and for the rankings."""
    found = [(t.title, sentences(t, report.couplings[t.name])) for t in report.tables]
    return [*found, ('Optimizers', ranking_sentences(report))]


def sentences(table: ResultTable, coupled: coupling.Coupling) -> list[str]:
    """What a table says: coverage, failures, the steadiest and the most coupled backbone."""
    values, failed = table.values, table.failed
    there = int(values.notna().to_numpy().sum())
    lost = int(stats.diverged(values).to_numpy().sum())
    lines = [
        f'{_count(values.shape[0], "optimizer")} {_columns(values)}: {there} of {values.size} '
        f'pairs have a result{_missing(values.size - there)}'
        f'{f", {lost} of them diverged" if lost else ""}. {int(failed.to_numpy().sum())} failed '
        f'by eq. 1 with gamma = {table.gamma:g}.'
    ]
    if values.shape[0] <= FEW and failed.to_numpy().any():
        lines.append(
            'With so few optimizers look at the range too: eq. 1 fails the worst result of a '
            'column, however close to the best it is.'
        )
    kept = stats.stability(values)[values.notna().sum() > 2].dropna(subset=['std'])
    if len(kept) > 1:
        calm, wild = kept['std'].idxmin(), kept['std'].idxmax()
        lines.append(
            f'Least moved by the choice of the optimizer: {calm} (s.d. {kept.at[calm, "std"]:.2f} '
            f'points); most: {wild} (s.d. {kept.at[wild, "std"]:.2f}, without its worst result).'
        )
    lines += _coupling_sentences(coupled)
    never = [
        str(o) for o in values.index if not failed.loc[o].any() and values.loc[o].notna().all()
    ]
    if never and min(values.shape) > 1:
        lines.append(f'Never failed: {_and(never)}.')
    return lines


def _columns(values: pd.DataFrame) -> str:
    """``on 20 backbones``, or where one stands there more than once ``in 11 columns (...)``."""
    n = len({names.split_column(str(c))[:2] for c in values.columns})
    if n == values.shape[1]:
        return f'on {_count(n, "backbone")}'
    backbones = len({names.split_column(str(c))[1] for c in values.columns})
    return f'in {values.shape[1]} columns ({_count(backbones, "backbone")})'


def _count(n: int, what: str) -> str:
    return f'{n} {what}{"s" * (n != 1)}'


def _missing(n: int) -> str:
    return f', {n} {"is" if n == 1 else "are"} missing' if n else ''


def _coupling_sentences(coupled: coupling.Coupling) -> list[str]:
    if math.isnan(coupled.share):
        return []
    lines = []
    p_value = '' if math.isnan(coupled.p_value) else f' (p = {coupled.p_value:.2g})'
    lines.append(
        f'Coupling: {coupled.share:.0%} of what the choice of the optimizer moves is peculiar to '
        f'single backbones{p_value}; tested: {coupled.method}.'
    )
    columns = coupled.columns.dropna(subset=['p_holm'])
    sure = [str(c) for c in columns.index[columns['p_holm'] < 0.05]]
    if sure:
        lines.append(f'Coupled beyond chance, corrected for all: {_and(sure)}.')
    elif len(columns):
        first = columns['p_value'].idxmin()
        lines.append(
            f'No single backbone stands out after correction for {len(columns)} tests; nearest is '
            f'{first} (share {columns.at[first, "share"]:.0%}, '
            f'p = {columns.at[first, "p_value"]:.2g}).'
        )
    return lines


def ranking_sentences(report: Report) -> list[str]:
    """The first three of the overall ranking, and how the printed one differs."""
    ranks = report.rankings.dropna(subset=['overall'])
    lines = []
    if len(ranks) == 1:
        lines.append('With one optimizer there is nothing to rank.')
    elif len(ranks):
        first = [str(o) for o in ranks.sort_values('overall', kind='stable').index[:3]]
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
    off = (comparison['mean_difference'].abs() > 0.0051).sum()
    trimmed = ((comparison['mean_trimmed'] - comparison['mean_printed']).abs() < 0.0051).sum()
    worst = comparison['mean_difference'].abs().idxmax()
    return [
        f'The printed Mean differs from the table in {off} of {len(comparison)} columns, most in '
        f'{worst} ({comparison.at[worst, "mean_printed"]:.2f} printed, '
        f'{comparison.at[worst, "mean"]:.2f} by the stated rule). Leaving out the two best results '
        f'as well gives {trimmed} of the {len(comparison)} printed means.'
    ]


def _and(items: list[str]) -> str:
    return ' and '.join([', '.join(items[:-1]), items[-1]] if len(items) > 1 else items)


def kind_label(optimizer: str) -> str:
    """The category of an optimizer in words, and whether it is one of the paper's."""
    row = facts.find_optimizer(optimizer)
    if row is None:
        return category_label('')
    return category_label(row.category) + ('' if row.in_paper else "; not one of the paper's")
