"""The catalog: rows, defaults, grids, lookups, strictness, registration, the other libraries."""

import dataclasses
import inspect
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import bocb_mm.optimizers as optimizers
from bocb_mm import facts
from bocb_mm.errors import UserError
from bocb_mm.optimizers.catalog import specs
from bocb_mm.optimizers.libraries import REFUSED, pytorch_optimizer, timm_optimizer
from bocb_mm.optimizers.spec import DECAYS, TASKS

from . import signum

PAPER = {  # Table 1 and section 2.2
    'a': ['SGD', 'SGDP', 'LION'],
    'b': ['Adam', 'Adamax', 'NAdam', 'AdamW', 'LAMB', 'RAdam', 'AdamP', 'Adan'],
    'c': ['AdaBound', 'LARS', 'AdaFactor', 'AdaBelief', 'NovoGrad', 'Sophia'],
    'd': ['AdaGrad', 'AdaDelta', 'RMSProp'],
}
CELLS = [('classification', r) for r in optimizers.RECIPES if r not in TASKS]
CELLS += [('classification', None), ('detection', None), ('pose', None)]
SPECS = specs()
ROWS = pytest.mark.parametrize('spec', SPECS, ids=lambda s: s.name)


def test_names_and_categories_are_the_papers():
    paper = optimizers.list_optimizers(paper=True)
    assert paper == [n for names in PAPER.values() for n in names]
    assert optimizers.list_optimizers() == paper + optimizers.list_optimizers(paper=False)
    for category, names in PAPER.items():
        assert optimizers.list_optimizers(category=category, paper=True) == names
    assert optimizers.list_optimizers('ADA*', category='B', paper=True) == [
        'Adam',
        'Adamax',
        'AdamW',
        'AdamP',
        'Adan',
    ]


@ROWS
def test_row_is_complete(spec):
    assert spec.decay in DECAYS and spec.paper and spec.reference and spec.why
    arguments = inspect.signature(spec.cls).parameters
    assert 'foreach' in arguments and 'compile' in arguments
    for key, value in spec.fixed.items():
        assert arguments[key].default == value, f'{key}: the class has another default'
    assert set(spec.sourced) <= set(optimizers.RECIPES)
    assert getattr(spec.cls, 'elementwise', True) == spec.elementwise


@ROWS
def test_defaults_build_and_grids_surround_them(spec):
    for task, recipe in CELLS:
        settings = spec.defaults_for(task, recipe)
        optimizer = optimizers.build_optimizer(spec.name, [nn.Parameter(torch.ones(1))], **settings)
        assert optimizer.param_groups[0]['lr'] == settings['lr'] > 0
        start = spec.default(task, recipe)
        assert start.source and start.sourced == (not start.source.startswith('extrapolated'))
        grid = spec.search_grid(task, recipe)
        for key in ('lr', 'weight_decay'):
            values = grid[key]
            assert len(values) == 5 and list(values) == sorted(set(values))
            assert values.index(settings[key]) == (2 if settings[key] else 0)
        wider = spec.search_grid(task, recipe, n=7)
        assert set(grid['lr']) < set(wider['lr'])
        assert set(grid['weight_decay']) < set(wider['weight_decay'])


# Table A3 and the lists of the paper's code base and of the MM configs (shared/specs/optimizers.md)
SOURCED = {
    ('SGD', 'pytorch'): (0.1, 1e-4),
    ('AdamW', 'deit'): (1e-3, 0.05),
    ('AdamW', 'convnext-cifar'): (1e-3, 0.05),
    ('LAMB', 'rsb-a2'): (5e-3, 0.02),
    ('LAMB', 'rsb-a3'): (8e-3, 0.02),
    ('LAMB', 'rsb-a2-cifar'): (5e-3, 0.02),
    # sail-sg/Adan, CV/timm/supervised.md and args_res50_300.yaml: 3e-2 is that of 100 epochs
    ('Adan', 'rsb-a2'): (0.015, 0.02),
    ('Adam', 'pytorch-cifar'): (1e-3, 0.0),
    ('AdaBelief', 'detection'): (1e-4, 1e-4),
    ('SGD', 'detection'): (0.01, 1e-4),
    ('Adam', 'pose'): (5e-4, 0.0),
    ('AdamW', 'pose'): (5e-4, 0.1),
}


@pytest.mark.parametrize(('name', 'recipe'), SOURCED)
def test_sourced_defaults(name, recipe):
    task, recipe_or_none = (recipe, None) if recipe in TASKS else ('classification', recipe)
    start = optimizers.get_spec(name).default(task, recipe_or_none)
    assert (start.lr, start.weight_decay, start.sourced) == (*SOURCED[name, recipe], True)


def test_adan_clips_under_the_recipes_whose_authors_do():
    for recipe in ('rsb-a2', 'pytorch-cifar'):
        settings = optimizers.get_spec('Adan').defaults_for('classification', recipe)
        assert settings['max_grad_norm'] == 5.0


@pytest.mark.parametrize(('task', 'recipe'), CELLS)
def test_adabound_ends_at_the_rate_of_sgd(task, recipe):
    expected = optimizers.get_spec('SGD').defaults_for(task, recipe)['lr']
    assert optimizers.get_spec('AdaBound').defaults_for(task, recipe)['final_lr'] == expected


def test_wrong_names_are_named():
    p = [nn.Parameter(torch.ones(1))]
    wrong = {
        'AdamW': lambda: optimizers.get_spec('adanw'),
        'weight_decay': lambda: optimizers.build_optimizer('LARS', p, weigth_decay=1),
        'betas': lambda: optimizers.AdamW(p, beta=(0.9, 0.99)),
        'detection': lambda: optimizers.get_spec('SGD').default('detecton'),
        'rsb-a2': lambda: optimizers.get_spec('SGD').default('classification', 'rsb_a4'),
        'one of a, b, c, d': lambda: optimizers.list_optimizers(category='e'),
    }
    for expected, call in wrong.items():
        with pytest.raises(UserError, match=expected):
            call()
    with pytest.raises(TypeError):
        optimizers.build_optimizer('AdamW', p, weigth_decay=1)


@pytest.mark.parametrize(
    ('name', 'settings'),
    [
        ('LARS', {'lr': -1}),
        ('LION', {'betas': (0.9,)}),
        ('LAMB', {'betas': (0.9, 1.0)}),
        ('Sophia', {'hessian': 'hutchinson'}),
        ('AdaBound', {'gamma': 0}),
        ('SGDP', {'momentum': 1.0}),
        ('AdaFactor', {'decay_rate': 0.8}),
    ],
)
def test_values_out_of_range_are_refused(name, settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        optimizers.build_optimizer(name, [nn.Parameter(torch.ones(1))], **settings)


@given(st.text(max_size=12))
def test_any_text_is_a_name_or_a_clear_error(text):
    try:
        assert optimizers.get_spec(text).name.lower() == text.lower()
    except UserError as error:
        assert '\n' not in str(error) or '\n' in text


def test_table_has_every_row():
    table = optimizers.catalog_table()
    assert all(f'| {spec.name} |' in table for spec in SPECS)


@pytest.fixture
def signum_row(monkeypatch):
    """A 21st optimizer: its module, a row of facts, and a row of the tests' table (there)."""
    row = dataclasses.replace(
        facts.OPTIMIZERS['LION'],
        name='Signum',
        in_paper=False,
        class_path=f'{signum.__name__}.Signum',
    )
    monkeypatch.setitem(facts.OPTIMIZERS, 'Signum', row)


def test_a_21st_optimizer_is_listed_built_and_documented(signum_row):
    assert optimizers.list_optimizers('sig*') == ['Signum']
    assert optimizers.list_optimizers()[:20] == [n for names in PAPER.values() for n in names]
    assert '| Signum |' in optimizers.catalog_table()
    assert 'Signum' in dir(optimizers)
    settings = optimizers.get_spec('signum').defaults_for('detection')
    for mode in ({}, {'foreach': True}, {'compile': True}):
        p = nn.Parameter(torch.ones(3))
        p.grad = torch.tensor([2.0, -3.0, 0.0])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, 'compile', lambda f, **_: f)
            settings |= {'lr': 0.5, 'weight_decay': 0.0}
            optimizer = optimizers.build_optimizer('SIGNUM', [p], **settings, **mode)
            optimizer.step()
        assert p.tolist() == [0.5, 1.5, 1.0]
        assert type(optimizer) is optimizers.Signum
    with pytest.raises(UserError, match='did you mean betas'):
        optimizers.Signum([p], beta=0.9)


def test_plain_pytorch_is_enough(root):
    code = (
        'import sys; sys.modules["mmengine"] = None; import bocb_mm.optimizers as o, torch;'
        'o.build_optimizer("LARS", [torch.nn.Parameter(torch.ones(1))])'
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=root)


def test_registry_builds_every_row_and_refuses_misspelt():
    from mmengine.registry import OPTIMIZERS

    p = nn.Parameter(torch.ones(2, 2))
    for spec in SPECS:
        half = {'matrix': True} if hasattr(spec.cls, 'halves') else {}
        for name in (spec.name, spec.name.lower()):
            cfg = {'type': f'bocb_mm.{name}', 'params': [{'params': [p], **half}], 'lr': 0.1}
            assert type(OPTIMIZERS.build(cfg)) is spec.cls
    with pytest.raises(TypeError, match='weight_decay'):
        OPTIMIZERS.build({'type': 'bocb_mm.Adan', 'params': [p], 'weigth_decay': 0.1})


LIBRARY_NAMES = [
    'timm.muon',
    'timm.mars',
    'timm.adopt',
    'timm.sgd',
    'pytorch_optimizer.muon',
    'pytorch_optimizer.SOAP',
    'pytorch_optimizer.prodigy',
    'pytorch_optimizer.ademamix',
    'pytorch_optimizer.schedulefreeadamw',
]


@pytest.mark.parametrize('name', LIBRARY_NAMES)
def test_library_optimizers_lower_a_loss(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    lr = 1.0 if 'prodigy' in name else 0.01
    optimizer = optimizers.build_optimizer(name, model.parameters(), lr=lr)
    if 'schedulefree' in name:
        assert callable(optimizer.eval)
        optimizer.train()
    x = torch.randn(32, 4)
    losses = []
    with torch.compiler.set_stance('force_eager'):  # timm's Muon compiles its matrix iteration
        for _ in range(100):
            loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_library_names_are_checked():
    p = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(UserError, match='muon'):
        timm_optimizer('muonn')
    with pytest.raises(UserError, match='closure'):
        pytorch_optimizer('LBFGS')
    with pytest.raises(UserError, match='weight_decay'):
        pytorch_optimizer('soap')(params=[p], weigth_decay=1)
    for build, expected in (
        (timm_optimizer('sgdp'), 'timm.sgdp has no default for lr'),
        (timm_optimizer('csgdp'), 'lr'),
        (pytorch_optimizer('ranger21'), 'no default for num_iterations'),
        (pytorch_optimizer('adamw'), r"lr='5e-2' is text.*0\.05"),
    ):
        with pytest.raises(UserError, match=expected):
            build(params=[p], **({'lr': '5e-2'} if 'text' in expected else {}))
    with pytest.raises(UserError, match='pytorch_optimizer.adamw: .*learning rate'):
        pytorch_optimizer('adamw')(params=[p], lr=-1.0)
    with pytest.raises(UserError, match='empty'):
        timm_optimizer('lamb')(params=[])
    with pytest.raises(UserError, match='pairs of LoRA factors'):
        pytorch_optimizer('lorarite')
    magma = pytorch_optimizer('magma')(params=[p], lr=0.1, weight_decay=0.1, mask_prob=1.0)
    assert magma.param_groups[0]['weight_decay'] == 0.1  # of the AdamW inside
    import timm.optim
    from pytorch_optimizer import get_supported_optimizers

    assert set(REFUSED['timm']) <= set(timm.optim.list_optimizers())
    assert set(REFUSED['pytorch_optimizer']) <= set(get_supported_optimizers())


@pytest.mark.parametrize('name', ['pytorch_optimizer.sm3', 'pytorch_optimizer.fromage'])
def test_a_librarys_optimizer_without_decay_gets_none(name):
    settings = optimizers.get_spec(name).defaults_for('classification')
    assert set(settings) == {'lr'}
    optimizers.build_optimizer(name, [nn.Parameter(torch.ones(2, 2))], **settings)


def test_trying_out_refuses_what_building_does_whatever_the_device():
    optimizers.try_out('Muon', {'lr': 0.1, 'foreach': True, 'fused': True})
    for name, settings in (('SGD', {'momentun': 0.9}), ('timm.sgdp', {}), ('LION', {'lr': -1.0})):
        with pytest.raises(UserError):
            optimizers.try_out(name, settings)


@pytest.mark.parametrize('name', ['timm.adopt', 'bocb_mm.timm.sgdp', 'Pytorch_Optimizer.SOAP'])
@pytest.mark.parametrize(('task', 'recipe'), CELLS)
def test_a_librarys_optimizer_has_a_row_whose_defaults_are_not_sourced(name, task, recipe):
    spec = optimizers.get_spec(name)
    assert spec.name == name.lower().removeprefix('bocb_mm.') and not spec.in_paper
    start = spec.default(task, recipe)
    assert not start.sourced and 'states no rate for a task' in start.source
    if 'sgdp' in name:  # the library has no rate at all
        assert start.lr == optimizers.get_spec('SGD').default(task, recipe).lr
    grid = spec.search_grid(task, recipe)
    assert start.lr in grid['lr'] and start.weight_decay in grid['weight_decay']
    p = nn.Parameter(torch.ones(2, 2))
    built = optimizers.build_optimizer(name, [p], **spec.defaults_for(task, recipe))
    assert built.param_groups[0]['lr'] == pytest.approx(start.lr)


def test_library_rows_are_in_no_list_and_refused_as_the_optimizers_are():
    assert not optimizers.list_optimizers('timm*')
    for name, expected in (('timm.adoptt', 'adopt'), ('pytorch_optimizer.lbfgs', 'closure')):
        with pytest.raises(UserError, match=expected):
            optimizers.get_spec(name)
