"""What an optimizer with a matrix update gets, and at which rate: by role, in every toolbox."""

from __future__ import annotations

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from bocb_mm.backbones import list_backbones
from bocb_mm.errors import UserError
from bocb_mm.optim_wrappers.__main__ import group_table, main
from bocb_mm.optim_wrappers.param_groups import Half, param_groups
from bocb_mm.optim_wrappers.roles import parameters_with_roles
from bocb_mm.optimizers import build_optimizer
from tests.optim_wrappers.toy import ToyNet

LIBRARY = [
    *(f'timm.{n}' for n in ('muon', 'adamuon', 'nmuon', 'nadamuon')),
    *(f'pytorch_optimizer.{n}' for n in ('muon', 'adamuon', 'adago', 'muonclip', 'normuon')),
]
ALL = ['Muon', 'NorMuon', *LIBRARY]


class Attention(nn.Module):
    num_heads = 2

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)


class Net(nn.Module):
    """One parameter of every part."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.stem = nn.Conv2d(3, 8, 3)
        self.backbone.norm = nn.BatchNorm2d(8)
        self.backbone.pos_embed = nn.Parameter(torch.zeros(1, 4, 8))
        self.backbone.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.backbone.tokens = nn.Embedding(7, 8)
        self.backbone.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.backbone.grouped = nn.Conv2d(8, 8, 3, groups=2)
        self.backbone.kernel = nn.Conv2d(8, 16, 3)
        self.backbone.attention = Attention()
        self.neck = nn.Conv2d(16, 4, 1)
        self.bbox_head = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 1))


MATRICES = {
    'backbone.grouped.weight': 2,
    'backbone.kernel.weight': 1,
    'backbone.attention.qkv.weight': 3,
    'backbone.attention.proj.weight': 1,
    'neck.weight': 1,
}


def wrapper(model, optimizer, **paramwise):
    cfg = {'constructor': 'bocb_mm.OptimWrapperConstructor', 'optimizer': optimizer}
    return build_optim_wrapper(model, {**cfg, 'paramwise_cfg': paramwise})


def settings_of(model, optimizer, **paramwise):
    """Settings of its group by name of the parameter."""
    built = wrapper(model, optimizer, **paramwise).optimizer
    names = {id(p): n for n, p in model.named_parameters()}
    return {names[id(p)]: group for group in built.param_groups for p in group['params']}


def in_matrix_half(group):
    return group.get('matrix', group.get('use_muon', False)) is True


@pytest.mark.parametrize('name', ALL)
def test_the_same_parameters_are_matrices_for_every_optimizer(name):
    found = settings_of(Net(), {'type': f'bocb_mm.{name}', 'lr': 0.02, 'aux_lr': 1e-3})
    assert {n for n, group in found.items() if in_matrix_half(group)} == set(MATRICES)
    if name in ('Muon', 'NorMuon'):
        assert {n: found[n].get('split', 1) for n in MATRICES} == MATRICES
    assert {g['lr'] for n, g in found.items() if n in MATRICES} == {0.02}
    assert {g['lr'] for n, g in found.items() if n not in MATRICES} == {1e-3}


@pytest.mark.parametrize('name', ALL)
def test_multipliers_act_on_each_half_by_its_own_rate(name):
    """With ``bias_lr_mult=2`` pytorch_optimizer's biases learned 95 times as fast."""
    optimizer = {
        'type': f'bocb_mm.{name}', 'lr': 0.02, 'weight_decay': 0.1, 'aux_lr': 1e-3, 'aux_weight_decay': 0.5
    }  # fmt: skip
    found = settings_of(
        Net(), optimizer, bias_lr_mult=2.0, head_lr_mult=0.5, backbone_lr_mult=0.1,
        dwconv_decay_mult=0.25, custom_keys={'neck': {'lr_mult': 3.0}},
    )  # fmt: skip
    expected = {
        'backbone.kernel.weight': (0.002, 0.1),
        'backbone.kernel.bias': (2e-4, 0.0),
        'backbone.norm.weight': (1e-4, 0.0),
        'backbone.stem.weight': (1e-4, 0.5),
        'backbone.depthwise.weight': (1e-4, 0.125),
        'neck.weight': (0.06, 0.1),
        'bbox_head.1.weight': (5e-4, 0.5),
        'bbox_head.1.bias': (1e-3, 0.0),
    }
    for key, (lr, decay) in expected.items():
        assert (found[key]['lr'], found[key]['weight_decay']) == pytest.approx((lr, decay)), key


@pytest.mark.parametrize('name', ALL)
def test_a_step_moves_what_is_no_matrix_as_adamw_does(name):
    """Root mean square of the first step over the auxiliary rate: 1 for Adam with random gradients."""
    torch.manual_seed(0)
    model = Net()
    optimizer = wrapper(model, {'type': f'bocb_mm.{name}', 'lr': 0.02, 'aux_lr': 1e-3}).optimizer
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    with torch.compiler.set_stance('force_eager'):
        optimizer.step()
    for n, p in model.named_parameters():
        moved = (p.detach() - before[n]).square().mean().sqrt().item()
        if n not in MATRICES:
            assert moved == pytest.approx(1e-3, rel=1.0), n
        assert moved > 0


def test_the_default_of_the_auxiliary_half_is_as_strong_as_the_matrix_half():
    found = settings_of(Net(), {'type': 'bocb_mm.Muon', 'lr': 0.02, 'weight_decay': 0.0025})
    head = found['bbox_head.1.weight']
    assert (head['lr'], head['weight_decay']) == pytest.approx((1e-3, 0.05))
    same = {
        'type': 'bocb_mm.Muon',
        'lr': 1e-3,
        'weight_decay': 0.05,
        'adjust_lr_fn': 'match_rms_adamw',
    }
    head = settings_of(Net(), same)['bbox_head.1.weight']
    assert (head['lr'], head['weight_decay']) == (1e-3, 0.05)


@pytest.mark.parametrize(('fused', 'matrices'), [('parts', 3), ('heads', 6), ('whole', 1)])
def test_query_key_and_value_in_one_layer(fused, matrices):
    """Each is orthogonal by itself: a group of three equals three layers."""
    torch.manual_seed(0)
    model = Net()
    optimizer = wrapper(model, {'type': 'bocb_mm.Muon', 'lr': 1.0}, fused=fused).optimizer
    weight = model.backbone.attention.qkv.weight
    weight.grad = torch.randn_like(weight)
    parts = [nn.Parameter(p.detach().clone()) for p in weight.chunk(matrices)]
    for part, grad in zip(parts, weight.grad.chunk(matrices)):
        part.grad = grad.clone()
    optimizer.step()
    build_optimizer('Muon', parts, lr=1.0).step()
    torch.testing.assert_close(weight, torch.cat(parts))


def test_a_custom_key_chooses_the_half():
    custom = {'bbox_head.0': {'matrix': True}, 'neck': {'matrix': False}}
    found = settings_of(Net(), {'type': 'bocb_mm.Muon', 'lr': 0.02}, custom_keys=custom)
    assert in_matrix_half(found['bbox_head.0.weight']) and not in_matrix_half(found['neck.weight'])
    assert not in_matrix_half(found['bbox_head.0.bias'])


@pytest.mark.parametrize('name', list_backbones())
def test_every_backbone_has_a_body_a_stem_and_no_vector_in_it(name):
    from bocb_mm.backbones import build_backbone

    model = nn.Module()
    model.backbone, model.head = build_backbone(name), nn.Linear(8, 8)
    parts: dict[str, list] = {}
    for p in parameters_with_roles(model):
        if p.role == 'weight':
            parts.setdefault(p.part, []).append(p)
        else:
            assert not p.is_matrix
    for p in parts['stem']:
        assert p.parameter.shape[1] == 3, p.name
    assert parts['stem'] and [p.name for p in parts['head']][-1] == 'head.weight'
    for p in parts['body']:
        assert min(p.parameter.shape[:2]) > 1 and not p.depthwise and p.matrices() in (1, 2, 3)
    weights = sum(p.parameter.numel() for group in parts.values() for p in group)
    assert sum(p.parameter.numel() for p in parts['body']) > 0.9 * weights


@pytest.mark.parametrize(
    ('name', 'heads'),
    [
        ('deit_small_distilled_patch16_224', {'head', 'head_dist'}),
        ('resnet18', {'fc'}),
        ('vgg11', {'head.fc'}),
    ],
)
def test_heads_of_bare_timm_networks(name, heads):
    import timm

    with torch.device('meta'):
        model = timm.create_model(name)
    found = {
        p.name.rpartition('.')[0]
        for p in parameters_with_roles(model)
        if p.part == 'head' and p.role == 'weight'
    }
    assert found == heads


def test_no_head_by_name_is_the_last_kernel():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    assert [p.part for p in parameters_with_roles(model) if p.role == 'weight'] == [
        'stem',
        'body',
        'head',
    ]


REFUSED = {
    'no constructor': (
        {'optimizer': {'type': 'bocb_mm.Muon', 'lr': 0.02}},
        "Muon would take heads.*constructor='bocb_mm.OptimWrapperConstructor'",
    ),
    "a library's, no constructor": (
        {'optimizer': {'type': 'bocb_mm.timm.muon', 'weight_decay': 0.1}, 'paramwise_cfg': {'norm_decay_mult': 0.0}},
        "timm.muon would take heads.*constructor='bocb_mm.OptimWrapperConstructor'",
    ),
    "torch's": ({'optimizer': {'type': 'Muon'}}, "write type='bocb_mm.Muon'"),
    'aux_lr of AdamW': (
        {'optimizer': {'type': 'bocb_mm.AdamW', 'aux_lr': 1e-3}},
        r'aux_lr=0.001: bocb_mm.AdamW has no auxiliary half.*leave it out',
    ),
    'negative aux_lr': (
        {'optimizer': {'type': 'bocb_mm.Muon', 'aux_lr': -1.0}},
        'aux_lr=-1.0: expected a number of at least 0',
    ),
    'aux_lr as text': (
        {'optimizer': {'type': 'bocb_mm.Muon', 'aux_lr': '5e-2'}},
        'is text, not a number; write 0.05',
    ),
    'fused': (
        {'optimizer': {'type': 'bocb_mm.Muon'}, 'paramwise_cfg': {'fused': 'thirds'}},
        "fused='thirds': expected one of parts, heads, whole",
    ),
}  # fmt: skip


@pytest.mark.parametrize('case', REFUSED)
def test_refused(case):
    cfg, message = REFUSED[case]
    if 'no constructor' not in case:
        cfg = {**cfg, 'constructor': 'bocb_mm.OptimWrapperConstructor'}
    with pytest.raises(UserError, match=message) as caught:
        build_optim_wrapper(Net(), cfg)
    assert '\n' not in str(caught.value)


def test_a_network_without_hidden_matrices_is_refused():
    with pytest.raises(UserError, match='ToyNet has no hidden matrix.*take AdamW'):
        wrapper(ToyNet(), {'type': 'bocb_mm.Muon', 'lr': 0.02})


def test_in_plain_pytorch():
    model = Net()
    groups = param_groups(model, lr=0.02, auxiliary=Half(lr=1e-3, weight_decay=0.05))
    optimizer = build_optimizer('Muon', groups, lr=0.02)
    assert {g['lr'] for g in optimizer.param_groups} == {0.02, 1e-3}


def test_the_table_has_every_parameter_once():
    model = Net()
    table = group_table(wrapper(model, {'type': 'bocb_mm.Muon', 'lr': 0.02}).optimizer)
    rows = [[c.strip() for c in line.split('|')[1:-1]] for line in table.splitlines()[2:]]
    assert sum(int(r[1]) for r in rows) == len(list(model.parameters()))
    assert sum(int(r[2].replace(',', '')) for r in rows) == sum(
        p.numel() for p in model.parameters()
    )
    by_role = {r[0]: r for r in rows}
    assert by_role['weight, in 3'][4:] == ['Muon', '0.02', '0']
    assert by_role['stem+head+depthwise+embedding'][4:] == ['AdamW of Muon', '0.001', '0']


def test_the_command_shows_a_config(tmp_path, capsys):
    config = tmp_path / 'c.py'
    config.write_text(
        "default_scope = 'mmengine'\n"
        "model = dict(type='mmengine.ToyRegressor')\n"
        "optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))\n"
    )
    from mmengine.registry import MODELS

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS.module_dict, 'ToyRegressor', lambda: nn.Linear(2, 3))
        main([str(config)])
    assert '| 3x2, 3 | SGD | 0.1 | 0 |' in capsys.readouterr().out
    (tmp_path / 'broken.py').write_text('model = [\n')
    for name, words in (('missing.py', 'no such config'), ('broken.py', 'cannot be read')):
        with pytest.raises(SystemExit) as stopped:
            main([str(tmp_path / name)])
        assert stopped.value.code == 2 and words in capsys.readouterr().err
