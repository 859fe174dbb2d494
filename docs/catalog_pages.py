"""Pages that follow from the catalogs and the commands, made when the site is built.

One page an optimizer, one a backbone, the experiments, what to try first, --help of every command,
the columns of shared results. Nothing here is written by hand, so a new row has its page.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
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
    _write(folder / 'zoo.md', zoo_page())
    _write(folder / 'which_optimizer.md', which_page())
    for name, text in result_parts().items():
        _write(folder / 'parts' / f'results_{name}.md', text)


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
        ('arithmetic', f'`{spec.implementation}`'),
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
            'How it steps, what it costs and what it equals elsewhere: [optimizers](../../optimizers.md), '
            '[benchmark](../../optimizers_benchmark.md).',
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


def which_page() -> str:
    """What to try first on every backbone of the paper, by task."""
    rows = []
    for name in backbones.list_backbones():
        found = [recommend.recommend(tables(), name, task) for task in TASKS]
        first = [', '.join(a.optimizer for a in advice) for advice, _ in found]
        rows.append((f'[{name}](backbones/{name}.md)', *first))
    return '\n\n'.join(
        [
            '# Which optimizer for my backbone?',
            '**One of the paper\'s twenty:** three to try first, by their distance from the best in the '
            "paper's tables, failures counted. Where the paper has no results for a task, those of the "
            'same network on other tasks stand in, else those of its kind; the page of a backbone says which, '
            'and with which rate and decay to start.',
            _table(('backbone', *TASKS), rows),
            '**With results of your own** they count three times as much as the paper\'s: '
            '`bocb report work_dirs --recommend R-50 --task detection`.',
            '**A network of your own:** take the row of its nearest relative by stages and operator '
            '([backbones](backbones.md)), then measure: [my own backbone](../own_backbone.md) trains and searches it '
            'with several optimizers, and the [report](../report.md) says whether they differ beyond chance.',
            '**The recipe matters as much:** a rate that suits one optimizer says nothing of another '
            '([defaults](../optimizers.md#defaults-and-grids), [search](../search.md)).',
        ]
    )  # fmt: skip


def zoo_page() -> str:
    """Every experiment of the paper that has a config."""
    found = zoo.experiments(shipped.configs())
    rows = [(f'`{e.config}`', e.backbone, e.task, e.data, e.recipe or '-') for e in found]
    head = ('config', 'backbone', 'task', 'data', 'recipe or pre-training')
    return '\n\n'.join(
        [
            '# Experiments',
            f"The paper's experiments as configs, {len(found)} of them: `bocb train CONFIG --optimizer NAME` is any cell of "
            'its tables, `mim train bocb_mm FILE.py` works too, and `mim search bocb_mm` finds them (the wheel brings '
            '`model-index.yml` and `metafile.yml`, made of this same list). Nobody has trained them with this package yet: '
            'there are no weights to download. [What each does](../configs.md).',
            _table(head, rows),
        ]
    )  # fmt: skip


def commands_page() -> str:
    """What each sub-command says of itself."""
    parts = ['# Commands', f'```text\n{cli.usage()}\n```']
    for name, (module, _) in cli.commands().items():
        parts += [f'## bocb {name}', f'```text\n{_help(name, module)}\n```']
    return '\n\n'.join(parts)


def _help(name: str, module: str) -> str:
    """What ``bocb NAME --help`` prints, 100 columns wide, and its own sub-commands' help."""
    shown = io.StringIO()
    with (
        mock.patch.dict('os.environ', COLUMNS='100'),
        mock.patch.object(sys, 'argv', [f'bocb {name}']),
        contextlib.redirect_stdout(shown),
        contextlib.suppress(SystemExit),
    ):
        importlib.import_module(module).main(['--help'])
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
        'required': _table(head, [(f'`{k}`', v) for k, v in shared.REQUIRED.items()]),
        'optional': _table(head, [(f'`{k}`', v) for k, v in shared.OPTIONAL.items()]),
        'files': _table(('file', 'settings', 'data'), rows) if rows else none,
    }


def _figures(name: str, folder: Path, draw: Any, axis: str) -> Iterator[str]:
    """A figure for each of the paper's tables with results of one name, and the numbers below."""
    for table in tables():
        labels = [str(label) for label in getattr(table.values, axis)]
        mine = [c for c in labels if c == name or names.split_column(c)[1] == name]
        for label in mine:
            found = table.values[label] if axis == 'columns' else table.values.loc[label]
            if found.notna().sum() < 2:
                continue
            title = table.title if label == name else f'{table.title}: {label}'
            path = folder / 'figures' / f'{table.name}_{names.slug(label)}.svg'
            draw(table, label, path)
            yield f'## {title}, the paper'
            yield f'![{title} of {name}; the numbers stand in the table below](../figures/{path.name})'
            yield f'*{"Best first" if axis == "columns" else "Distance from the best of each column"} {OPEN}.*'
            rows = found.dropna().sort_values(ascending=False)
            of = 'optimizer' if axis == 'columns' else 'backbone'
            yield _details(_table((of, 'result'), [(str(k), f'{v:g}') for k, v in rows.items()]))


def _details(text: str) -> str:
    return f':::{{dropdown}} The numbers\n{text}\n:::'


def _index(kind: str, table: str, listed: Iterable[str]) -> str:
    """The catalog's table with a link a name."""
    for name in listed:
        table = table.replace(f'\n| {name} |', f'\n| [{name}]({kind}/{name}.md) |')
    entries = '\n'.join(f'{kind}/{name}' for name in listed)
    return f'# All {kind}\n\n{table}\n\n```{{toctree}}\n:hidden:\n\n{entries}\n```'


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    return markdown([list(head), *([cell.replace('|', '/') for cell in row] for row in rows)])


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding='utf-8') != text + '\n':
        path.write_text(text + '\n', encoding='utf-8')
