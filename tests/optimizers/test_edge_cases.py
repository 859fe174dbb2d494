"""What odd parameters and gradients do, for each of the twenty and each execution mode."""

import copy
import inspect

import pytest
import torch
from torch import nn

import bocb_mm.optimizers as optimizers
from bocb_mm.errors import UserError

from .table import CASES, MODE_ARGUMENTS

MODES = [{}, {'foreach': False}, {'foreach': True}]
EACH = pytest.mark.parametrize('settings', MODES, ids=['default', 'not foreach', 'foreach'])
ALL = pytest.mark.parametrize('name', CASES)
OWN = [n for n in CASES if optimizers.get_spec(n).implementation == 'bocb_mm']


def odd_parameters(dtype=torch.float64):
    torch.manual_seed(0)
    shapes = {
        'scalar': (),
        'empty': (0, 3),
        'vector': (5,),
        'depthwise': (6, 1, 3, 3),
        'kernel': (4, 3, 3, 3),
        'matrix': (3, 7),
        'position': (1, 4, 6),
        'no_grad': (2, 2),
    }
    params = {k: nn.Parameter(torch.randn(v, dtype=dtype)) for k, v in shapes.items()}
    last = torch.randn(4, 3, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
    params['channels_last'] = nn.Parameter(last)
    for key, p in params.items():
        if key != 'no_grad':
            p.grad = torch.randn_like(p)
    return params


@EACH
@ALL
def test_odd_parameters(name, settings):
    params = odd_parameters()
    before = {k: p.detach().clone() for k, p in params.items()}
    optimizer = optimizers.build_optimizer(
        name, params.values(), lr=1e-2, weight_decay=0.1, **settings
    )
    for _ in range(3):
        optimizer.step()
    for key, p in params.items():
        moved = not torch.equal(p.detach(), before[key])
        assert moved == (key not in ('no_grad', 'empty')), key
        assert p.isfinite().all(), key


@EACH
@ALL
def test_channels_last_moves_as_contiguous(name, settings):
    torch.manual_seed(0)
    weight, grads = torch.randn(4, 3, 3, 3).double(), torch.randn(3, 4, 3, 3, 3).double()
    results = []
    for layout in ('contiguous', 'both', 'weight only'):
        form = torch.contiguous_format if layout == 'contiguous' else torch.channels_last
        p = nn.Parameter(weight.clone().to(memory_format=form))
        optimizer = optimizers.build_optimizer(name, [p], lr=1e-2, weight_decay=0.1, **settings)
        for g in grads:
            p.grad = g.to(memory_format=form) if layout == 'both' else g.clone()
            optimizer.step()
        results.append(p.detach())
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(results[2], results[0], rtol=1e-9, atol=1e-12)


@EACH
@ALL
def test_gradients_are_left_as_they_are(name, settings):
    params = odd_parameters()
    before = {k: p.grad.clone() for k, p in params.items() if p.grad is not None}
    optimizers.build_optimizer(name, params.values(), lr=1e-2, weight_decay=0.1, **settings).step()
    for key, grad in before.items():
        assert torch.equal(params[key].grad, grad), key


@EACH
@ALL
def test_nan_in_a_gradient_reaches_the_weight(name, settings):
    for shape in ((3, 4), (5,)):
        p = nn.Parameter(torch.ones(shape))
        optimizer = optimizers.build_optimizer(name, [p], lr=1e-2, **settings)
        p.grad = torch.ones(shape)
        optimizer.step()
        p.grad.view(-1)[1] = float('nan')
        optimizer.step()
        assert p.view(-1)[1].isnan()


@EACH
@ALL
def test_zero_rate_moves_nothing(name, settings):
    a, b = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3, 3))
    groups = [{'params': [a], 'lr': 0.0, 'weight_decay': 0.1}, {'params': [b], 'lr': 1e-2}]
    a.grad, b.grad = torch.randn(3, 3), torch.randn(3, 3)
    optimizer = optimizers.build_optimizer(name, groups, **settings)
    optimizer.step()
    optimizer.step()
    assert torch.equal(a.detach(), torch.ones(3, 3))
    assert not torch.equal(b.detach(), torch.ones(3, 3))


@EACH
@ALL
def test_zero_gradient_without_decay_moves_nothing(name, settings):
    p = nn.Parameter(torch.randn(3, 3))
    before = p.detach().clone()
    p.grad = torch.zeros(3, 3)
    optimizer = optimizers.build_optimizer(name, [p], lr=1e-2, weight_decay=0.0, **settings)
    optimizer.step()
    optimizer.step()
    assert torch.equal(p.detach(), before)


@EACH
@ALL
def test_bfloat16_parameters(name, settings):
    p = nn.Parameter(torch.ones(8, 8, dtype=torch.bfloat16))
    optimizer = optimizers.build_optimizer(name, [p], lr=0.5, **settings)
    for _ in range(3):
        p.grad = torch.full_like(p, 0.5)
        optimizer.step()
    assert p.dtype == torch.bfloat16 and p.isfinite().all()
    # steps below bfloat16's resolution around 1; SOAP: all but one direction is rounding
    if name not in ('AdaDelta', 'LARS', 'RAdam', 'SOAP', 'Prodigy'):
        assert (p < 1).all()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@ALL
def test_0_dim_parameters_keep_their_dtype_where_coefficients_are_tensors(name, dtype, monkeypatch):
    monkeypatch.setattr(torch, 'compile', lambda f, **_: f)
    arguments = inspect.signature(optimizers.get_spec(name).cls).parameters
    flags = [k for k, p in arguments.items() if p.default is False and k not in MODE_ARGUMENTS]
    for settings in ({}, *({flag: True} for flag in flags)):
        params = [nn.Parameter(torch.ones(s, dtype=dtype)) for s in ((), (2, 3))]
        optimizer = optimizers.build_optimizer(name, params, lr=0.1, **settings, compile=True)
        for _ in range(2):
            for p in params:
                p.grad = torch.full_like(p, 0.5)
            optimizer.step()
        tensors = [v for state in optimizer.state.values() for v in state.values()]
        kept = [t for t in tensors if isinstance(t, torch.Tensor) and t.shape in ((), (2, 3))]
        assert {t.dtype for t in params} == {dtype}
        assert all(p.isfinite().all() for p in params)
        if name in OWN:
            assert {t.dtype for t in kept} == {dtype}


@EACH
@ALL
def test_slice_of_a_larger_tensor(name, settings):
    """What lies between the rows of the slice stays as it is."""
    torch.manual_seed(0)
    big, grads = torch.randn(6, 5).double(), torch.randn(3, 6, 3).double()
    kept, whole = big.clone(), nn.Parameter(big[:, :3].clone())
    part = nn.Parameter(big[:, :3])
    settings = {'lr': 1e-2, 'weight_decay': 0.1, **settings}
    for p in (part, whole):
        optimizer = optimizers.build_optimizer(name, [p], **settings)
        for g in grads:
            p.grad = g.clone()
            optimizer.step()
    torch.testing.assert_close(part, whole, rtol=1e-9, atol=1e-12)
    assert torch.equal(big[:, 3:], kept[:, 3:])
    assert not torch.equal(big[:, :3], kept[:, :3])


@EACH
@ALL
def test_memory_format_may_change_between_steps(name, settings):
    """As ``model.to(memory_format=...)`` does it, which leaves the state as it lies."""
    torch.manual_seed(0)
    start, grads = torch.randn(4, 3, 3, 3).double(), torch.randn(3, 4, 3, 3, 3).double()
    found = []
    for changes in (False, True):
        p = nn.Parameter(start.clone())
        optimizer = optimizers.build_optimizer(name, [p], lr=1e-2, weight_decay=0.1, **settings)
        for i, g in enumerate(grads):
            if changes and i == 1:
                p.data = p.data.to(memory_format=torch.channels_last)
            p.grad = torch.empty_like(p).copy_(g)
            optimizer.step()
        found.append(p)
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('name', OWN)
def test_complex_parameters_are_refused(name):
    p = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    with pytest.raises(UserError, match='complex64'):
        optimizers.build_optimizer(name, [p])
    optimizer = optimizers.build_optimizer(name, [nn.Parameter(torch.ones(2))])
    with pytest.raises(UserError, match='complex64'):
        optimizer.add_param_group({'params': [p]})
    assert len(optimizer.param_groups) == 1


@EACH
@ALL
def test_sparse_gradient_is_refused_and_changes_nothing(name, settings):
    dense, table = nn.Parameter(torch.ones(2)), nn.Embedding(5, 3, sparse=True)
    optimizer = optimizers.build_optimizer(name, [dense, table.weight], lr=1e-2, **settings)
    optimizer.zero_grad()
    dense.grad, table.weight.grad = torch.ones(2), torch.ones(5, 3)
    optimizer.step()
    before = copy.deepcopy(optimizer.state_dict())
    params = [dense.detach().clone(), table.weight.detach().clone()]
    optimizer.zero_grad()
    table(torch.tensor([1, 2])).sum().backward()
    dense.grad = torch.ones(2)
    with pytest.raises(UserError, match='sparse'):
        optimizer.step()
    assert repr(optimizer.state_dict()) == repr(before)
    assert torch.equal(dense, params[0]) and torch.equal(table.weight, params[1])


@EACH
@pytest.mark.parametrize(
    ('name', 'values'),
    [('SGDP', {'momentum': 0.0}), ('LARS', {'momentum': 0.0}), ('NovoGrad', {'betas': (0, 0.98)})],
)
def test_without_momentum(name, values, settings):
    p = nn.Parameter(torch.ones(2, 3))
    optimizer = optimizers.build_optimizer(name, [p], **values, **settings)
    for _ in range(2):
        p.grad = torch.ones(2, 3)
        optimizer.step()
    assert (p < 1).all() and p.isfinite().all()


@ALL
def test_closure_is_called_with_gradients(name):
    p = nn.Parameter(torch.ones(2, 2))
    optimizer = optimizers.build_optimizer(name, [p], lr=1e-2)

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    for _ in range(CASES[name].idle + 1):
        loss = optimizer.step(closure)
    assert loss.item() == 4.0
    assert not torch.equal(p.detach(), torch.ones(2, 2))


@ALL
def test_parameters_may_join_later(name):
    """A parameter thawed after some steps starts with its own step count."""
    a, b = nn.Parameter(torch.ones(3, 3).double()), nn.Parameter(torch.ones(3, 3).double())
    alone = nn.Parameter(torch.ones(3, 3).double())
    both = optimizers.build_optimizer(name, [a, b], lr=1e-2, weight_decay=0.1)
    single = optimizers.build_optimizer(name, [alone], lr=1e-2, weight_decay=0.1)
    # what joins all gradients: clipping, the estimate of d
    key = {'LAMB': 'max_grad_norm', 'Prodigy': 'd_coef'}.get(name)
    if key:
        both.param_groups[0][key] = single.param_groups[0][key] = 0.0
    torch.manual_seed(0)
    for i, g in enumerate(torch.randn(6, 3, 3).double()):
        a.grad = g
        if i >= 3:
            b.grad = g
            alone.grad = g
            single.step()
        both.step()
    torch.testing.assert_close(b.detach(), alone.detach(), rtol=1e-12, atol=0)


def test_sophia_warns_when_nobody_feeds_its_hessian():
    p = nn.Parameter(torch.ones(2))
    optimizer = optimizers.Sophia([p], lr=1e-3)
    p.grad = torch.ones(2)
    with pytest.warns(UserWarning, match='update_hessian'):
        for _ in range(optimizers.Sophia.PATIENCE):
            optimizer.step()


def test_sophia_without_hessian_moves_by_the_rate():
    """The behaviour of openmixup, where nothing updates the Hessian."""
    p = nn.Parameter(torch.zeros(4).double())
    optimizer = optimizers.Sophia([p], lr=1e-3, hessian='none')
    p.grad = torch.tensor([1.0, -1e-6, 1e6, 0.0]).double()
    optimizer.step()
    assert p.tolist() == [-1e-3, 1e-3, -1e-3, 0.0]
    with pytest.raises(UserError, match='hessian'):
        optimizer.update_hessian(8)


def test_sophia_takes_the_hessian_of_each_group():
    """A group with ``'none'`` moves by its rate, whatever the others do."""
    params = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    for order in (0, 1):
        groups = [{'params': [p]} for p in params]
        groups[order]['hessian'] = 'none'
        optimizer = optimizers.Sophia(groups, lr=0.5)
        assert optimizer.hessian == 'gnb'
        for p in params:
            p.data.fill_(1.0)
            p.grad = torch.ones(3)
        optimizer.update_hessian(1000)
        optimizer.step()
        assert params[order].tolist() == [0.5] * 3
        assert params[1 - order][0].item() == pytest.approx(0.95625)  # as in the class's example
    with pytest.warns(UserWarning, match='update_hessian'):
        starved = optimizers.Sophia(
            [{'params': params[:1], 'hessian': 'none'}, {'params': params[1:]}]
        )
        for _ in range(optimizers.Sophia.PATIENCE):
            starved.step()


def test_lars_without_adaptation_is_sgd():
    """The behaviour of openmixup with LARS's default arguments."""
    torch.manual_seed(0)
    start, grads = torch.randn(3, 4).double(), torch.randn(5, 3, 4).double()
    results = []
    for name, settings in (('LARS', {'adapt': False, 'exclude_1d': False}), ('SGD', {})):
        p = nn.Parameter(start.clone())
        optimizer = optimizers.build_optimizer(name, [p], lr=0.1, weight_decay=1e-4, **settings)
        for g in grads:
            p.grad = g.clone()
            optimizer.step()
        results.append(p.detach())
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize('name', ['LARS', 'LAMB'])
def test_adaptation_is_by_group_and_not_by_decay(name):
    torch.manual_seed(0)
    start, grad = 5 * torch.randn(3, 4).double(), torch.randn(3, 4).double()
    moved = {}
    for adapt in (True, False):
        for wd in (0.0, 0.1):
            p = nn.Parameter(start.clone())
            p.grad = grad.clone()
            group = {'params': [p], 'adapt': adapt, 'weight_decay': wd}
            optimizers.build_optimizer(name, [group], lr=0.1).step()
            moved[adapt, wd] = (p.detach() - start).norm() / start.norm()
    expected = 0.1 if name == 'LAMB' else 0.1 * 0.001  # lr, times the trust coefficient
    assert moved[True, 0.0].item() == pytest.approx(expected, rel=1e-6)
    # LARS divides by |g| + wd |p|, which is at least |g + wd p|
    assert 0.3 * expected < moved[True, 0.1].item() <= expected * (1 + 1e-6)
    assert moved[False, 0.0].item() != pytest.approx(expected, rel=0.2)
