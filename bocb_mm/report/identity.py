"""Which table and column a run belongs to: what differs must not share a cell.

Two runs of one name may train different networks (every ``TIMMBackbone`` has that name) or on
different data (every ``CocoDataset`` is "coco"). Where the records tell them apart, they get tables
and columns of their own, named by what differs; where they differ in schedule only, the table says
so. Records of older versions know less, and what they do not know separates nobody.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable
from operator import itemgetter
from pathlib import PurePath
from typing import Any

from bocb_mm.report import names
from bocb_mm.report.records import Summary

# What the paper's Table 3 holds: COCO with 80 classes, or with 17 key points.
PAPERS_COCO = {'detection': 80, 'pose': 17}


def places(runs: list[Summary]) -> list[tuple[str, str]]:
    """Name of the result table and head of the column of every run."""
    tables = [_table(run) for run in runs]
    for field, label in (('n_classes', _classes_label), ('n_train', _samples_label)):
        of = list(zip(tables, (run['task'] for run in runs)))
        found = _labels(of, runs, itemgetter(field), label)
        tables = [f'{t}-{names.slug(d)}' if d else t for t, d in zip(tables, found)]
    two_recipes = _with_several_recipes(tables, runs)
    columns = []
    for table, run in zip(tables, runs):
        shown = table.startswith('table2_imagenet') or (table, run['backbone']) in two_recipes
        recipe = run['recipe'] if shown else ''
        head = names.column(run['task'], run['backbone'], run['pretraining'], recipe)
        columns.append((table, head))
    for identity, label in (
        (_architecture, _arguments_label),
        (lambda run: run['n_parameters'], lambda run, _: f'{run["n_parameters"]:,} parameters'),
        (_start, lambda run, _: f'from {run["pretraining"]}' if run['pretraining'] else ''),
        (lambda run: run['metric'] or None, lambda run, _: run['metric']),
    ):
        found = _labels(columns, runs, identity, label)
        columns = [(t, names.with_detail(h, d) if d else h) for (t, h), d in zip(columns, found)]
    return columns


def _table(run: Summary) -> str:
    name = names.table_name(run['task'], run['dataset'])
    classes = run['n_classes']
    if name == 'table3_coco' and classes not in (None, PAPERS_COCO[run['task']]):
        what = 'key-points' if run['task'] == 'pose' else 'classes'
        return f'{run["task"]}_coco-{classes}-{what}'
    return name


def _labels(
    groups: Iterable[Hashable],
    runs: list[Summary],
    identity: Callable[[Summary], Hashable | None],
    label: Callable[[Summary, list[Summary]], str],
) -> list[str]:
    """A label for each run of a group whose runs differ in ``identity``, ``''`` for the others.

    Runs whose identity is not known (None) get none, and separate nobody.
    """
    members: dict[Hashable, dict[Hashable, list[int]]] = {}
    for place, (group, run) in enumerate(zip(groups, runs)):
        known = identity(run)
        if known is not None:
            members.setdefault(group, {}).setdefault(known, []).append(place)
    found = [''] * len(runs)
    for kinds in members.values():
        if len(kinds) < 2:
            continue
        first = [runs[indices[0]] for indices in kinds.values()]
        for run, indices in zip(first, kinds.values()):
            for place in indices:
                found[place] = label(run, first)
    return found


def _classes_label(run: Summary, others: list[Summary]) -> str:
    return _folder(run, others) or f'{run["n_classes"]} classes'


def _samples_label(run: Summary, others: list[Summary]) -> str:
    return _folder(run, others) or f'{run["n_train"]} samples'


def _folder(run: Summary, others: list[Summary]) -> str:
    """Folders and file of a run's annotations that the others' do not have in theirs.

    Paths differ between machines: they name data sets, and never tell them apart.
    """
    parts = [PurePath(r['ann_file']).with_suffix('').parts for r in others if r['ann_file']]
    if len(parts) < len(others):
        return ''
    shared = set(parts[0]).intersection(*parts[1:])
    own = [p for p in PurePath(run['ann_file']).with_suffix('').parts if p not in shared]
    names_ = ['-'.join([p for p in one if p not in shared][-2:]) for one in parts]
    return '-'.join(own[-2:]) if len(set(names_)) == len(names_) else ''


def _architecture(run: Summary) -> Hashable | None:
    """The backbone's arguments; an older record has none, nor has a network of the catalog."""
    known = run['architecture']
    return json.dumps(known, sort_keys=True, default=str) if known else None


def _arguments_label(run: Summary, others: list[Summary]) -> str:
    """The arguments in which networks of one name differ."""
    keys = sorted({k for r in others for k in r['architecture']})
    own = run['architecture']
    differ = [k for k in keys if len({_text(r['architecture'].get(k)) for r in others}) > 1]
    return ', '.join(f'{k}={_text(own[k])}' if k in own else f'no {k}' for k in differ)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _start(run: Summary) -> Hashable | None:
    """What a classifier started from; the heads of the other tasks say it anyway."""
    return run['pretraining'] if run['task'] not in PAPERS_COCO else None


def _with_several_recipes(tables: list[str], runs: list[Summary]) -> set[tuple[str, str]]:
    recipes: dict[tuple[str, str], set[str]] = {}
    for table, run in zip(tables, runs):
        recipes.setdefault((table, run['backbone']), set()).add(run['recipe'])
    return {place for place, found in recipes.items() if len(found) > 1}


def mixtures(runs: list[Summary], columns: list[str]) -> list[str]:
    """One sentence for each column whose runs differ in schedule, batch, image size or data.

    Args:
        runs: The runs of one table.
        columns: The column of each.
    """
    found = []
    for column in dict.fromkeys(columns):
        members = [r for r, c in zip(runs, columns) if c == column and r['status'] == 'completed']
        parts = [text for of, what in _MIXED if (text := _several(map(of, members), what))]
        if parts:
            found.append(
                f'{column} mixes runs of {"; of ".join(parts)}: its cells compare unequals.'
            )
    return found


def _iterations(run: Summary) -> int | None:
    """Iterations of an epoch, where the record does not know the batch size."""
    if run['batch_size'] is not None or not run['epochs']:
        return None
    return round(run['iterations'] / run['epochs'])


_MIXED: tuple[tuple[Callable[[Summary], Any], str], ...] = (
    (lambda r: r['max_epochs'], 'epochs'),
    (lambda r: r['iterations'] if r['max_epochs'] is None else None, 'iterations'),
    (lambda r: r['batch_size'], 'samples a batch'),
    (_iterations, 'iterations an epoch'),
    (lambda r: ' x '.join(map(str, r['image_size'])) or None, 'pixels'),
)


def _several(values: Iterable[Any], what: str) -> str:
    known = sorted({v for v in values if v is not None}, key=lambda v: (str(type(v)), v))
    if len(known) < 2:
        return ''
    shown = [str(v) for v in known[:4]] + (['more'] if len(known) > 4 else [])
    return f'{", ".join(shown[:-1])} and {shown[-1]} {what}'
