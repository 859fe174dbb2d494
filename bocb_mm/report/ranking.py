"""The rankings of all optimizers over the tables of a report, and the paper's beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from bocb_mm.errors import UserError
from bocb_mm.report import names, paper, stats
from bocb_mm.report.load import best_settings
from bocb_mm.report.model import ResultTable
from bocb_mm.report.records import Summary

# What the computation rank may go by: C.5 says memory, the caption of Table 4 training hours.
COSTS = {
    'memory': 'peak_memory_mb',
    'time': 'seconds_per_iteration',
    'step': 'optimizer_step_ms',
}


def joined(tables: Iterable[ResultTable]) -> pd.DataFrame:
    """All tables side by side; their columns are named ``table: column``."""
    parts = []
    for table in tables:
        part = table.values.copy()
        part.index = pd.Index([names.optimizer(str(o)) for o in part.index])
        part.columns = pd.Index([f'{table.name}: {c}' for c in part.columns])
        parts.append(part)
    whole = pd.concat(parts, axis=1)
    return whole.loc[names.in_paper_order(whole.index)]


def costs(tables: Iterable[ResultTable], runs: list[Summary], cost: str) -> pd.DataFrame:
    """What an optimizer costs on each backbone: median over the runs of its best setting.

    Args:
        tables: Tables made from ``runs``.
        runs: The summaries.
        cost: A key of :data:`COSTS`.
    """
    if cost not in COSTS:
        raise UserError(f'cost {cost!r}: one of {", ".join(COSTS)} is expected')
    rows = []
    for table in tables:
        for cell in table.cells.itertuples():
            found = [runs[i][COSTS[cost]] for i in cell.runs]
            found = [v for v in found if v is not None and np.isfinite(v) and v > 0]
            if found:
                rows.append((cell.optimizer, f'{table.name}: {cell.column}', np.median(found)))
    frame = pd.DataFrame(rows, columns=['optimizer', 'column', 'cost'])
    return frame.pivot(index='optimizer', columns='column', values='cost')


def rank_runs(
    tables: list[ResultTable],
    runs: list[Summary],
    weights: Mapping[str, float] | None = None,
    cost: str = 'memory',
) -> pd.DataFrame:
    """Rankings from results: performance, hyper-parameter, BOCB, computation, overall.

    Args:
        tables: Tables of one source.
        runs: The runs they were made from; without any, two aspects stay empty.
        weights: Of the aspects, see :func:`stats.rank_optimizers`.
        cost: What computation is ranked by, a key of :data:`COSTS`.
    """
    whole = joined(tables)
    tasks = {f'{t.name}: {c}': task for t in tables for c, task in t.tasks.items()}
    searched = best_settings(tables)
    variation = pd.Series(dtype=float)
    if len(searched) and searched['backbone'].nunique() > 1:
        table = stats.hparam_variation(searched, by='optimizer')
        variation = stats.hyperparameter_rank(table)
    aspects = pd.DataFrame(
        {
            'performance': stats.performance_rank(whole, tasks),
            'hyperparameter': variation.reindex(whole.index),
            'bocb': stats.bocb_flag(whole),
            'computation': stats.computation_rank(costs(tables, runs, cost)).reindex(whole.index),
        },
        index=whole.index,
    )
    return by_overall(stats.rank_optimizers(aspects, weights))


def rank_paper(weights: Mapping[str, float] | None = None) -> pd.DataFrame:
    """The overall ranking that the paper's own four rank columns give by its rule."""
    return by_overall(stats.rank_optimizers(paper.rankings(), weights))


def by_overall(ranks: pd.DataFrame) -> pd.DataFrame:
    """``ranks``, best first; equal ones in the paper's order."""
    ordered = ranks.loc[names.in_paper_order(ranks.index)]
    return ordered.sort_values('overall', kind='stable')


def against_paper(ranks: pd.DataFrame) -> pd.DataFrame:
    """``ranks`` beside Table 4 as printed: each aspect's rank, the printed one, the difference."""
    printed = paper.rankings()
    parts = {}
    for aspect in (*stats.WEIGHTS, 'overall'):
        parts[aspect] = ranks[aspect]
        parts[f'{aspect}_printed'] = printed[aspect].reindex(ranks.index)
        parts[f'{aspect}_difference'] = parts[aspect] - parts[f'{aspect}_printed']
    return pd.DataFrame(parts).rename_axis(index='optimizer')
