"""Which optimizers to try first on a backbone, with rate and decay, and why."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bocb_mm import facts
from bocb_mm.errors import unknown_name
from bocb_mm.report import extended, load, names, probed, stats
from bocb_mm.report.model import ResultTable
from bocb_mm.runs.record import TASKS
from bocb_mm.words import counted

# A result of one's own says more than the paper's: it counts so many times as much.
_OWN_WEIGHT = 3
# A gap beyond this many points is as bad as any; a failure (eq. 1) costs this many on top.
_WORST_GAP, _FAILURE = 10.0, 3.0


@dataclass
class Advice:
    """One optimizer to try.

    Attributes:
        optimizer: Its name.
        lr: Learning rate to start from, None where nothing is known.
        weight_decay: Weight decay to start from.
        source: Where the rate and the decay come from.
        reasons: Why this optimizer, in words.
        score: Expected distance from the best in points, failures included; small is good.
    """

    optimizer: str
    lr: float | None
    weight_decay: float | None
    source: str
    reasons: list[str] = field(default_factory=list)
    score: float = math.nan

    @property
    def setting(self) -> str:
        """Rate, decay and source in a line."""
        if self.lr is None:
            return self.source
        decay = '' if self.weight_decay is None else f', weight decay {self.weight_decay:g}'
        return f'lr {self.lr:g}{decay} ({self.source})'


def asked(tables: Iterable[ResultTable]) -> list[tuple[str, str]]:
    """Every backbone and task that the columns of some tables speak about, each once.

    Example:
        >>> asked(load.paper_tables())[-1]
        ('CNX-T', 'detection')
    """
    return list(
        dict.fromkeys(
            (names.split_column(c)[1], _task(t, c)) for t in tables for c in map(str, t.values)
        )
    )


def _task(table: ResultTable, column: str) -> str:
    """The task of a column; a CSV that does not say it is taken for classification."""
    task = table.tasks[column].partition(',')[0]
    known = table.source == 'runs' or task in TASKS
    return task if known else 'classification'


def recommend(
    tables: Iterable[ResultTable],
    backbone: str,
    task: str = 'classification',
    n: int = 3,
    pretraining: str = '',
) -> tuple[list[Advice], str]:
    """The ``n`` optimizers to try first for a backbone and a task.

    Every column of results for that backbone and task counts: the user's three times, the paper's
    once. An optimizer's score is its mean distance from the column's best (at most 10 points), with
    3 points more where it failed (eq. 1); what was not tried is filled by the additive fit. Where
    nobody has results for the pair, those of the same backbone on other tasks stand in, else of its
    class, else of all.

    Args:
        tables: Tables of a report; the paper's are added if they are not among them.
        backbone: Any spelling.
        task: ``'classification'``, ``'detection'``, ``'pose'``, or one that the tables have.
        n: How many.
        pretraining: Optimizer or recipe that pre-trained the checkpoint, as it stands in a column's
            parentheses: in Table 3, R-50 from SGD, LARS, A2 and Adan are four different answers.

    Returns:
        The advice, best first, and a sentence on what it rests on.

    Raises:
        UnknownNameError: Neither the paper nor any table has the backbone or the task.

    Example:
        >>> advice, _ = recommend([], 'DeiT-S')
        >>> [a.optimizer for a in advice]
        ['Adan', 'LAMB', 'AdaFactor']
    """
    known = extended.whole(tables)
    if not any(t.source == 'paper' for t in known):
        known += load.paper_tables()
    columns = [(t, c) for t in known for c in map(str, t.values.columns)]
    lost = {names.split_column(c)[1] for t, c in columns if not _learned(t, c)}
    columns = [(t, c) for t, c in columns if _learned(t, c)]
    tasks = {*TASKS, *(_task(t, c) for t, c in columns)}
    if task not in tasks:
        raise unknown_name('task', task, tasks, f'one of {", ".join(sorted(tasks))}')
    seen = {names.split_column(c)[1] for _, c in columns} | lost
    by_key = {facts.key(name): name for name in seen if facts.key(name)}
    row = facts.find_backbone(backbone)
    # A network of the user's own in any case, else one of the catalog by any name.
    wanted = by_key.get(facts.key(backbone)) or (row.name if row else backbone)
    if wanted not in seen and wanted not in facts.BACKBONES:
        raise unknown_name('backbone', backbone, {*facts.BACKBONES, *seen})
    chosen, basis = _evidence(columns, wanted, task)
    basis += f'; every run of {wanted} itself diverged in some table' if wanted in lost else ''
    chosen, basis = _of_pretraining(chosen, basis, pretraining)
    gaps = pd.DataFrame(_gaps(t, c, i) for i, (t, c) in enumerate(chosen))
    ranked = _scores(gaps).sort_values(['score', 'place']).head(n)
    found = []
    for optimizer, row in ranked.iterrows():
        lr, decay, source = _rate(known, str(optimizer), wanted, task)
        own = gaps_of(chosen, str(optimizer))
        found.append(Advice(str(optimizer), lr, decay, source, own, float(row['score'])))
    return found, basis


def _learned(table: ResultTable, column: str) -> bool:
    """Whether a column has a result at all; one whose every run diverged says nothing."""
    return bool(stats.finite(table.values[[column]]).notna().any().any())


def _evidence(
    columns: list[tuple[ResultTable, str]], wanted: str, task: str
) -> tuple[list[tuple[ResultTable, str]], str]:
    """The columns that speak about a backbone and a task, from near to far, and which they are."""
    split = [(t, c, _task(t, c), names.split_column(c)[1]) for t, c in columns]
    kind = names.backbone_class(wanted)
    near = [(t, c) for t, c, of, b in split if b == wanted and of == task]
    if near:
        return near, f'{counted(len(near), "column")} of results for {wanted} in {task}'
    other = [(t, c) for t, c, _, b in split if b == wanted]
    if other:
        return other, f'no results for {wanted} in {task}: its results on other tasks stand in'
    same = [(t, c) for t, c, _, b in split if kind and names.backbone_class(b) == kind]
    if same:
        return same, f'no results for {wanted}: those of its class ({kind}) stand in'
    rest = [(t, c) for t, c, of, _ in split if of == task]
    return rest or columns, f'no results for {wanted} or its class: all backbones stand in'


def _of_pretraining(
    chosen: list[tuple[ResultTable, str]], basis: str, pretraining: str
) -> tuple[list[tuple[ResultTable, str]], str]:
    """The columns that started from a pre-training, where there are some; else what is mixed."""
    starts = {names.split_column(c)[2]: None for t, c in chosen if _task(t, c) != 'classification'}
    wanted = names.training(pretraining) if pretraining else ''
    same = [(t, c) for t, c in chosen if names.split_column(c)[2] == wanted]
    if wanted and same:
        return same, f'{basis}; {len(same)} of them from the pre-training {wanted}'
    if wanted:
        return chosen, f'{basis}; none from the pre-training {wanted}: all stand in'
    if len(starts) > 1:
        return chosen, f'{basis}, from {", ".join(starts)}: --pretraining NAME tells yours apart'
    return chosen, basis


def from_probes(paths: Iterable[str], backbone: str, task: str) -> list[str]:
    """What probes of a backbone have found, a line each.

    Args:
        paths: Folders; those that hold a ``probe.json`` count.
        backbone: Any spelling.
        task: Of the probe.
    """
    lines = []
    for path in paths:
        if not Path(path, probed.FILE_NAME).is_file():
            continue
        found = probed.read(Path(path))
        subject = found['subject']
        if subject['task'] == task and _same_network(subject['backbone'], backbone):
            lines.append(f'probe {path}: {found["sentences"][0]} {found["sentences"][2]}')
    return lines


def _same_network(one: str, other: str) -> bool:
    rows = [facts.find_backbone(name) for name in (one, other)]
    return facts.key(one) == facts.key(other) or (rows[0] is not None and rows[0] == rows[1])


def _gaps(table: ResultTable, column: str, place: int) -> dict:
    """Distances from the best of one column by optimizer, and whether they failed."""
    values = table.values[[column]]
    gap = (stats.finite(values).max() - values)[column].clip(upper=_WORST_GAP)
    failed = table.failed[column]
    weight = 1 if table.source == 'paper' else _OWN_WEIGHT
    cells = {
        names.optimizer(str(o)): (gap[o], bool(failed[o]))
        for o in gap.index
        if not np.isnan(gap[o])
    }
    return {'place': place, 'weight': weight, 'cells': cells}


def _scores(gaps: pd.DataFrame) -> pd.DataFrame:
    """Mean distance of each optimizer over the columns, as if all had been tried on all.

    What was not tried in a column is filled by the fit of :func:`stats.additive_effects`; a column
    stands in it as often as it weighs.
    """
    columns: dict[str, pd.Series] = {}
    for place, weight, cells in zip(gaps['place'], gaps['weight'], gaps['cells']):
        penalised = pd.Series({o: gap + _FAILURE * failed for o, (gap, failed) in cells.items()})
        columns |= {f'{place}.{copy}': penalised for copy in range(weight)}
    score = stats.additive_effects(pd.DataFrame(columns)).round(6)
    order = {o: i for i, o in enumerate(names.in_paper_order(score.index))}
    return pd.DataFrame({'score': score, 'place': [order[o] for o in score.index]})


def gaps_of(chosen: list[tuple[ResultTable, str]], optimizer: str) -> list[str]:
    """An optimizer's results in words, one line a column."""
    lines = []
    for table, column in chosen:
        row = next((o for o in table.values.index if names.optimizer(str(o)) == optimizer), None)
        if row is None or math.isnan(table.values.at[row, column]):
            continue
        values = stats.finite(table.values)[column]
        value = table.values.at[row, column]
        whose = 'paper' if table.source == 'paper' else 'yours'
        ranks = values.rank(ascending=False, method='min')
        place = int(ranks[row]) if math.isfinite(value) else 0
        doubt = table.doubts.get((row, column), ('', ''))[1]
        verdict = f', failed (eq. 1{f"; {doubt}" if doubt else ""})'
        verdict = verdict if bool(table.failed.at[row, column]) else ''
        result = (
            f'{table.sign(column) * value:.2f}, rank {place} of {values.notna().sum()}'
            if place
            else 'diverged'
        )
        lines.append(f'{whose}, {names.short_title(table.name)}, {column}: {result}{verdict}')
    return lines


def _rate(
    tables: list[ResultTable], optimizer: str, backbone: str, task: str
) -> tuple[float | None, float | None, str]:
    """Where to start: own best on the pair, own most common best on the task, a published one."""
    own: list[tuple[bool, float, float, float]] = []
    for table in (t for t in tables if t.source == 'runs'):
        for cell in table.cells.itertuples():
            usable = math.isfinite(cell.value) and not pd.isna(cell.lr)
            if usable and cell.optimizer == optimizer and _task(table, cell.column) == task:
                same = names.split_column(cell.column)[1] == backbone
                own.append((same, cell.value, cell.lr, cell.weight_decay))
    exact = [o for o in own if o[0]]
    if exact:
        _, _, lr, decay = max(exact, key=lambda o: o[1])
        return lr, _none(decay), 'your best run on this backbone'
    if own:
        pairs = pd.Series([(o[2], o[3]) for o in own])
        lr, decay = pairs.mode().iloc[0]
        alike = sum(pair == (lr, decay) for pair in pairs)
        return lr, _none(decay), f'best on {alike} of the {len(own)} other columns of your runs'
    row = facts.find_optimizer(optimizer)
    recipe = facts.DEFAULT_RECIPE if task == 'classification' else task
    if row and recipe in facts.RECIPES:
        known = facts.default(row.name, recipe)
        return known.lr, known.weight_decay, known.source
    return None, None, 'no published rate for this task'


def _none(value: float) -> float | None:
    return None if pd.isna(value) else value


def as_text(advice: list[Advice], basis: str, backbone: str, task: str) -> str:
    """The advice for a terminal."""
    lines = [f'{backbone}, {task}: {basis}', '']
    for place, item in enumerate(advice, 1):
        lines.append(f'{place}. {item.optimizer:<10} {item.setting}')
        lines += [f'     {reason}' for reason in item.reasons]
    return '\n'.join(lines)
