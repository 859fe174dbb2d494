"""Dependencies point one way: what may not be imported cannot be, no import points upwards or in a circle."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'bocb_mm'

# Floors of the house (design.md), top to bottom: a room imports only from rooms below it.
FLOORS = (
    'cli', 'gpu_check', 'probe', 'search', 'launch', 'hooks', 'resume', 'config', 'optim_wrappers', 'backbones',
    'optimizers', 'datasets', 'metrics', 'checkpoints', 'report', 'runs', 'facts', 'registry', 'doctor', 'compat',
    'stand_ins', 'shipped', 'errors', 'words',
)  # fmt: skip

# what is imported -> packages that importing it must not load
RULES = {
    'bocb_mm': ('torch', 'mmengine', 'pandas', 'numpy'),
    'bocb_mm.stand_ins': ('torch', 'mmengine', 'numpy'),
    'bocb_mm.runs': ('torch', 'mmengine'),
    'bocb_mm.errors': ('torch', 'mmengine'),
    'bocb_mm.shipped': ('torch', 'mmengine', 'numpy'),
    'bocb_mm.cli.main': ('torch', 'mmengine', 'numpy', 'pandas'),
    'bocb_mm.cli.train': ('torch', 'mmengine', 'numpy', 'pandas'),
    'bocb_mm.cli.sweep': ('torch', 'mmengine', 'numpy', 'pandas'),
    'bocb_mm.cli.probe': ('torch', 'mmengine', 'numpy', 'pandas'),
    'bocb_mm.cli.optimizers': ('torch', 'mmengine', 'numpy', 'pandas'),
    'bocb_mm.cli.backbones': ('torch', 'mmengine', 'numpy', 'pandas'),
    'bocb_mm.facts': ('torch', 'mmengine', 'numpy'),
    'bocb_mm.report.build': ('torch', 'mmengine'),
    'bocb_mm.report.recommend': ('torch', 'mmengine'),
    'bocb_mm.doctor': ('torch', 'mmengine'),
    'bocb_mm.metrics': ('mmengine', 'mmcv', 'mmdet'),
    'bocb_mm.optimizers': ('mmengine', 'mmcv', 'timm', 'pytorch_optimizer'),
    'bocb_mm.backbones': ('mmcv', 'mmpretrain', 'mmdet', 'timm'),
    'bocb_mm.registry': ('mmcv', 'mmpretrain', 'mmdet', 'mmpose'),
}


def modules() -> dict[str, Path]:
    """Every module of the package by its name."""
    files = PACKAGE.rglob('*.py')
    names = {'.'.join(f.relative_to(PACKAGE.parent).with_suffix('').parts): f for f in files}
    return {name.removesuffix('.__init__'): file for name, file in names.items()}


def imports(file: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the package that a file imports, at its top or in a function."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            below = {f'{node.module}.{alias.name}' for alias in node.names}
            found |= (below & known.keys()) or {node.module}
    return found


def room(module: str) -> str:
    """The package or single module of the top level that a module belongs to."""
    return module.split('.')[1] if '.' in module else ''


def test_every_room_has_its_floor():
    assert {room(name) for name in modules()} - {''} <= set(FLOORS)


def test_no_import_points_upwards():
    known = modules()
    arrows = [
        f'{name} -> {target}'
        for name, file in known.items()
        for target in imports(file, known)
        if room(name) and room(target) and FLOORS.index(room(target)) < FLOORS.index(room(name))
    ]
    assert not arrows


def test_no_import_goes_in_a_circle():
    known = modules()
    left = {name: imports(file, known) for name, file in known.items()}
    while ends := [name for name, targets in left.items() if not targets & left.keys() - {name}]:
        left = {name: targets for name, targets in left.items() if name not in ends}
    assert not left, f'a circle in {sorted(left)}'


@pytest.mark.parametrize('module', RULES)
def test_importing_loads_nothing_it_must_not(module, root):
    # None in sys.modules makes the import of a package fail, as if it were not installed.
    blocked = ''.join(f'sys.modules[{name!r}] = None; ' for name in RULES[module])
    code = f'import sys; {blocked}import {module}'
    done = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Names with an underscore that are public all the same, or that no public name stands for.
FREE = {
    '_BatchNorm', '_NormBase', '_ConvNd',  # torch's classes that all norms and convolutions share
    '_orig_mod',  # torch.compile's mark of the module it wraps
    '_ext',  # mmcv's compiled operators, for which stand_ins steps in
    '_replace', '_exit',  # namedtuple and os
    '_bocb_schedule_free_switch',  # our own mark on an optimizer
    '_core',  # numpy's package, named in the pickles it writes
}  # fmt: skip


def private_names(tree: ast.AST) -> set[str]:
    """Names with one leading underscore that a module takes from something else than itself."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id in ('self', 'cls')
            found |= set() if own else {node.attr}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {*node.module.split('.'), *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {part for alias in node.names for part in alias.name.split('.')}
    return {name for name in found if name[0] == '_' and name[:2] != '__'}


def test_private_names_of_other_packages_stand_in_compat_only():
    """`torch._foreach_*` has no public name."""
    found = {
        (name, module)
        for module, file in modules().items()
        if module != 'bocb_mm.compat'
        for name in private_names(ast.parse(file.read_text(encoding='utf-8')))
        if name not in FREE and not name.startswith('_foreach_')
    }
    assert not found
