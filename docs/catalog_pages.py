"""Pages that follow from the catalogs and the commands, made when the site is built.

One page an optimizer, one a backbone, the experiments, what to try first, --help of every command,
the columns of shared results. Nothing here is written by hand, so a new row has its page.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import catalog_figures

from bocb_mm import backbones, facts, optimizers, shipped
from bocb_mm.cli import main as cli
from bocb_mm.facts import zoo
from bocb_mm.facts.tables import markdown
from bocb_mm.optimizers.spec import DECAYS, RECIPES
from bocb_mm.report import load, names, paper, recommend, shared
from bocb_mm.report.model import ResultTable

TASKS = ('classification', 'detection', 'pose')
SHOWN = {'columns': 'Best first', 'index': 'Distance from the best of each column'}
SHOWN_TASKS = {'Object Detection': ['detection'], 'Body 2D Keypoint': ['pose']}
# Columns of the catalogs' tables that only the page of a row shows, so that the rest fits.
ON_PAGES = {
    'optimizers': {'implementation'},
    'backbones': {'blocks', 'input', 'from', 'maps (channels@stride)'},
}
INTRO = {
    'optimizers': 'Each has a page: its maths, what to start from and by which source, what the '
    'paper measured with it. What the columns mean stands below the table. '
    '[How to use them](../optimizers.md).',
    'backbones': 'Each has a page: what it is, published weights, what to try first, what the '
    'paper measured on it. [How to use them](../backbones.md).',
}
OPEN = '(hollow: failed by eq. 1; an arrow: further down)'


def write(folder: Path) -> None:
    """Write every generated page into ``folder``."""
    for kind, catalog, listed, page in (
        ('optimizers', optimizers, optimizers.list_optimizers(), optimizer_page),
        ('backbones', backbones, backbones.list_backbones(), backbone_page),
    ):
        for name in listed:
            _write(folder / kind / f'{name}.md', page(name, folder))
        _write(folder / f'{kind}.md', _index(kind, catalog.catalog_table(), listed))
    _write(folder / 'commands.md', commands_page())
    parts = {'first_choices': first_choices(), 'experiments': experiments(), **result_parts()}
    for name, text in parts.items():  # what pages written by hand include
        _write(folder / 'parts' / f'{name}.md', text)


@functools.cache
def tables() -> tuple[ResultTable, ...]:
    """The paper's tables."""
    return tuple(load.paper_tables())


def optimizer_page(name: str, folder: Path) -> str:
    """Facts, maths, defaults with their sources, and the paper's results of one optimizer."""
    spec = optimizers.get_spec(name)
    known = [
        ('paper', f'{spec.paper} ({spec.reference})'),
        ('category', f'{spec.category}: {facts.OPTIMIZER_CATEGORIES[spec.category]}'),
        ('weight decay', f'{spec.decay}: {DECAYS[spec.decay]}'),
        ('implemented by', f'`{spec.implementation}`'),
        *([('needs', spec.needs)] if spec.needs else []),
        ('also called', ', '.join(spec.aliases) or '-'),
        ('in a config', f"`optimizer=dict(type='bocb_mm.{name}', ...)`"),
        ('on the command line', f'`bocb train CONFIG --optimizer {name}`'),
    ]
    starts = [
        (recipe, f'{d.lr:g}', f'{d.weight_decay:g}', d.source)
        for recipe in RECIPES
        for d in [facts.default(name, recipe)]
    ]
    return '\n\n'.join(
        [
            f'# {name}',
            _table(('', ''), known),
            f'```{{eval-rst}}\n.. autoclass:: bocb_mm.optimizers.{name}\n```',
            'What it equals elsewhere: [optimizers](../../optimizers.md#what-equals-what); '
            'what it costs: [benchmark](../../optimizers_benchmark.md).',
            '## Learning rate and weight decay to start from',
            'A source that begins with *extrapolated* is none: search there.',
            _table(('recipe or task', 'learning rate', 'weight decay', 'source'), starts),
            *_ranks(name),
            *_figures(name, folder, catalog_figures.optimizer_row, 'index'),
        ]
    )  # fmt: skip


def _ranks(name: str) -> Iterator[str]:
    """The paper's Table 4 for one optimizer."""
    ranks = paper.rankings()
    if name in ranks.index:
        row = ranks.loc[name]
        yield '## Rank among the twenty, the paper'
        yield _table(list(row.index), [[f'{v:g}' for v in row]])


def backbone_page(name: str, folder: Path) -> str:
    """Facts, sizes, weights, what to try first, and the paper's results of one backbone."""
    spec = backbones.get_spec(name)
    known = [
        ('network', f'{spec.paper_name} ({spec.venue})'),
        ('category', facts.BACKBONE_CATEGORIES[spec.category]),
        ('stages, blocks', f'{spec.stage_wise}, {spec.block_wise}'),
        ('operator', spec.operator),
        ('built by', f'`{spec.source}`'),
        ('feature maps (channels@stride)', spec.maps),
        ('weights with 1000 classes', f'{spec.parameters.total_1000:,}'),
        ('recipe on CIFAR-100', f'{spec.recipe}, images of {spec.input_size} px'),
        ('in a config', f"`backbone=dict(type='bocb_mm.{name}')`"),
        ('also called', ', '.join(spec.aliases) or '-'),
    ]
    weights = [f'`{checkpoint}`' for checkpoint in spec.checkpoints]
    return '\n\n'.join(
        [
            f'# {name}',
            _table(('', ''), known),
            '## Published weights',
            ' '.join(weights) + ' ([how](../../backbones.md))' if weights else 'None is known.',
            '## What to try first',
            *_advice(name),
            *_figures(name, folder, catalog_figures.backbone_column, 'columns'),
        ]
    )


def _advice(name: str) -> Iterator[str]:
    """The recommended optimizers of each task with their reasons."""
    for task in TASKS:
        advice, basis = recommend.recommend(tables(), name, task)
        rows = [(a.optimizer, a.setting, '; '.join(a.reasons) or '-') for a in advice]
        yield f'**{task.capitalize()}** ({basis}):'
        yield _table(('optimizer', 'start from', 'why'), rows)


def first_choices() -> str:
    """What to try first on every backbone of the paper, by task."""
    rows = []
    for name in backbones.list_backbones():
        found = [recommend.recommend(tables(), name, task)[0] for task in TASKS]
        first = [', '.join(advice.optimizer for advice in three) for three in found]
        rows.append((f'[{name}](generated/backbones/{name}.md)', *first))
    return _table(('backbone', *TASKS), rows)


def experiments() -> str:
    """Every experiment of the paper that has a config."""
    found = zoo.experiments(shipped.configs())
    rows = [
        (
            f'`{e.config.removeprefix("pretrain/")}`',  # the end of a name is enough
            f'[{e.backbone}](generated/backbones/{e.backbone}.md)',
            ', '.join([e.data, *SHOWN_TASKS.get(e.task, [])]),
            e.recipe or facts.BACKBONES[e.backbone].recipe,  # on CIFAR-100, the network's own
        )
        for e in found
    ]
    return _table(('config', 'backbone', 'data', 'recipe or pre-training'), rows)


def commands_page() -> str:
    """What each sub-command says of itself."""
    parts = ['# Commands', f'```text\n{cli.usage()}\n```']
    for name, (module, _) in cli.commands().items():
        shown = _help(name, module)
        parts += [f'## bocb {name}', f'```text\n{shown}\n```']
        found = re.search(r'\{([a-z,-]+)\}\s+\.\.\.', shown)  # it has sub-commands of its own
        for sub in found[1].split(',') if found else ():
            text = _help(name, module, sub)
            parts += [f'### bocb {name} {sub}', f'```text\n{text}\n```']
    return '\n\n'.join(parts)


def _help(name: str, module: str, *sub: str) -> str:
    """What ``bocb NAME [SUB] --help`` prints, 80 columns wide."""
    shown = io.StringIO()
    with (
        mock.patch.dict('os.environ', COLUMNS='80'),
        mock.patch.object(sys, 'argv', [f'bocb {name}']),
        contextlib.redirect_stdout(shown),
        contextlib.suppress(SystemExit),
    ):
        importlib.import_module(module).main([*sub, '--help'])
    return shown.getvalue().rstrip()


def result_parts() -> dict[str, str]:
    """Columns of shared results, and the files that there are."""
    head = ('column', 'what')
    files = sorted((shipped.root() / 'results').glob('*.csv'))
    rows = [
        (path.name, str(len(found)), ', '.join(dict.fromkeys(r['dataset'] for r in found)))
        for path in files
        for found in [shared.rows(path)]
    ]
    none = 'Nothing yet: what was measured before this format has no records left.'
    return {
        'results_required': _table(head, [(f'`{k}`', v) for k, v in shared.REQUIRED.items()]),
        'results_optional': _table(head, [(f'`{k}`', v) for k, v in shared.OPTIONAL.items()]),
        'results_files': _table(('file', 'settings', 'data'), rows) if rows else none,
    }


def _figures(name: str, folder: Path, draw: Any, axis: str) -> Iterator[str]:
    """A figure for each of the paper's tables with results of one name, and the numbers below."""
    for table in tables():
        labels = [str(label) for label in getattr(table.values, axis)]
        spelled = names.optimizer if axis == 'index' else _backbone_of
        mine = [label for label in labels if spelled(label) == name]
        for label in mine:
            found = table.values[label] if axis == 'columns' else table.values.loc[label]
            if found.notna().sum() < 2:
                continue
            several = axis == 'columns' and label != name
            title = f'{table.title}: {label}' if several else table.title
            path = folder / 'figures' / f'{table.name}_{names.slug(label)}.svg'
            draw(table, label, path)
            yield f'## {title}, the paper'
            yield f'![{title} of {name}; the numbers are below](../figures/{path.name})'
            yield f'*{SHOWN[axis]} {OPEN}.*'
            rows = found.dropna().sort_values(ascending=False)
            of = 'optimizer' if axis == 'columns' else 'backbone'
            yield _details(_table((of, 'result'), [(str(k), f'{v:g}') for k, v in rows.items()]))


def _backbone_of(column: str) -> str:
    return names.backbone(names.split_column(column)[1])


def _details(text: str) -> str:
    return f':::{{dropdown}} The numbers\n{text}\n:::'


def _index(kind: str, table: str, listed: Iterable[str]) -> str:
    """The catalog's table with a link a name."""
    table = _without(table, ON_PAGES[kind])
    for name in listed:
        table = table.replace(f'\n| {name} |', f'\n| [{name}]({kind}/{name}.md) |')
    entries = '\n'.join(f'{kind}/{name}' for name in listed)
    return f'# All {kind}\n\n{INTRO[kind]}\n\n{table}\n\n```{{toctree}}\n:hidden:\n\n{entries}\n```'


def _without(table: str, columns: Iterable[str]) -> str:
    """A Markdown table, and the text around it, without some columns."""
    lines = table.splitlines()
    head = next(line for line in lines if line.startswith('|'))
    kept = [i for i, cell in enumerate(head.split('|')) if cell.strip() not in columns]
    return '\n'.join(
        '|'.join(line.split('|')[i] for i in kept) if line.startswith('|') else line
        for line in lines
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    return markdown([list(head), *([cell.replace('|', '/') for cell in row] for row in rows)])


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding='utf-8') != text + '\n':
        path.write_text(text + '\n', encoding='utf-8')
