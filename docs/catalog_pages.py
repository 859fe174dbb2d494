"""Pages that follow from the catalogs and the commands: one an optimizer, one a backbone, --help.

Nothing here is written by hand, so that a new row of a catalog has its page.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bocb_mm import backbones, facts, optimizers
from bocb_mm.optimizers.spec import DECAYS, RECIPES
from bocb_mm.report import paper

TOOLS = ('train', 'test', 'sweep', 'layer_metrics', 'bocb_report', 'doctor', 'gpu_check')


def write(folder: Path) -> None:
    """Write every generated page into ``folder``."""
    for kind, catalog, names, page in (
        ('optimizers', optimizers, optimizers.list_optimizers(), optimizer_page),
        ('backbones', backbones, backbones.list_backbones(), backbone_page),
    ):
        for name in names:
            _write(folder / kind / f'{name}.md', page(name))
        _write(folder / f'{kind}.md', _index(kind, catalog.catalog_table(), names))
    _write(folder / 'commands.md', commands_page())


def optimizer_page(name: str) -> str:
    """Facts, maths, defaults with their sources, and the paper's results of one optimizer."""
    spec = optimizers.get_spec(name)
    defaults = [
        (recipe, f'{d.lr:g}', f'{d.weight_decay:g}', d.source)
        for recipe in RECIPES
        for d in [_default(spec, recipe)]
    ]
    known = [
        ('paper', f'{spec.paper} ({spec.reference})'),
        ('category', f'{spec.category}: {facts.OPTIMIZER_CATEGORIES[spec.category]}'),
        ('weight decay', f'{spec.decay}: {DECAYS[spec.decay]}'),
        ('arithmetic', f'`{spec.implementation}`'),
        *([('needs', spec.needs)] if spec.needs else []),
        ('in a config', f"`optimizer=dict(type='bocb_mm.{name}', ...)`"),
    ]
    return '\n\n'.join(
        [
            f'# {name}',
            _table(('', ''), known),
            f'```{{eval-rst}}\n.. autoclass:: bocb_mm.optimizers.{name}\n```',
            '## Learning rate and weight decay to start from',
            _table(('recipe', 'learning rate', 'weight decay', 'source'), defaults),
            *_results('backbone', lambda table: table.loc[name] if name in table.index else None),
        ]
    )


def backbone_page(name: str) -> str:
    """Facts, feature maps, and the paper's results of one backbone."""
    spec = backbones.get_spec(name)
    known = [
        ('network', f'{spec.paper_name} ({spec.venue})'),
        ('category', facts.BACKBONE_CATEGORIES[spec.category]),
        ('stages, blocks', f'{spec.stage_wise}, {spec.block_wise}'),
        ('operator', spec.operator),
        ('recipe on CIFAR-100', f'{spec.recipe}, images of {spec.input_size} px'),
        ('in a config', f"`backbone=dict(type='bocb_mm.{name}')`"),
    ]
    return '\n\n'.join(
        [
            f'# {name}',
            _table(('', ''), known),
            *_results('optimizer', lambda table: table[name] if name in table.columns else None),
        ]
    )


def commands_page() -> str:
    """What each tool says of itself."""
    parts = ['# Commands']
    for tool in TOOLS:
        script = Path(__file__).resolve().parents[1] / 'tools' / f'{tool}.py'
        shown = subprocess.run(
            [sys.executable, script, '--help'], capture_output=True, text=True, check=True
        )
        parts += [f'## tools/{tool}.py', f'```text\n{shown.stdout.rstrip()}\n```']
    return '\n\n'.join(parts)


def _results(of: str, column: Any) -> Iterable[str]:
    """The results of one name in each of the paper's tables, best first."""
    for table in paper.TABLES:
        found = column(paper.read(table))
        if found is not None and found.notna().any():
            rows = found.dropna().sort_values(ascending=False)
            yield f'## {paper.TITLES[table]}, the paper'
            yield _table((of, 'result'), [(str(k), f'{v:g}') for k, v in rows.items()])


def _default(spec: Any, recipe: str) -> facts.Default:
    tasks = ('detection', 'pose')
    return spec.default(recipe) if recipe in tasks else spec.default('classification', recipe)


def _index(kind: str, table: str, names: Iterable[str]) -> str:
    entries = '\n'.join(f'{kind}/{name}' for name in names)
    return f'# All {kind}\n\n{table}\n\n```{{toctree}}\n:hidden:\n\n{entries}\n```'


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [list(head)]
    cells += [['---'] * len(cells[0]), *map(list, rows)]
    return '\n'.join(f'| {" | ".join(row)} |' for row in cells)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding='utf-8') != text + '\n':
        path.write_text(text + '\n', encoding='utf-8')
