"""Shrink of a step with decay alone, and what a checkpoint keeps."""

import copy
import io
import pickle

import pytest
import torch

import bocb_mm.optimizers as optimizers

from .models import data, difference, groups_of, make, train
from .table import CASES


def feed(name, optimizer):
    if name != 'Sophia':
        return None
    return lambda i: optimizer.update_hessian(512) if i % 10 == 0 else None


@pytest.mark.parametrize('foreach', [False, True])
@pytest.mark.parametrize('name', [n for n, c in CASES.items() if c.shrink])
def test_step_without_gradient_shrinks_as_documented(name, foreach):
    lr, wd = 1e-3, 0.05
    p = torch.nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64))
    before = p.detach().clone()
    p.grad = torch.zeros_like(p)
    optimizer = optimizers.build_optimizer(name, [p], lr=lr, weight_decay=wd, foreach=foreach)
    for _ in range(CASES[name].idle + 1):
        optimizer.step()
    torch.testing.assert_close(p.detach(), before * CASES[name].shrink(lr, wd), rtol=1e-12, atol=0)


# lr 1e-3, decay 0.05; measured shrink of one step (shared/specs/optimizers.md, "One weight decay")
COUPLED = {'RMSProp': 9.7e-5, 'AdaDelta': 1e-7}


@pytest.mark.parametrize('name', [n for n, c in CASES.items() if not c.shrink])
def test_step_without_gradient_shrinks_where_coupled(name):
    p = torch.nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64))
    before = p.detach().clone()
    p.grad = torch.zeros_like(p)
    optimizers.build_optimizer(name, [p], lr=1e-3, weight_decay=0.05).step()
    assert (p.abs() < before.abs()).all() and (p.sign() == before.sign()).all()


def test_trust_ratio_shrink():
    """All of the update is decay, so LAMB moves by lr of the norm, LARS by lr 0.001 of it at most."""
    for name, expected in (('LAMB', 1 - 1e-3), ('LARS', 1 - 1e-3 * 0.05)):
        p = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
        p.grad = torch.zeros_like(p)
        optimizers.build_optimizer(name, [p], lr=1e-3, weight_decay=0.05).step()
        torch.testing.assert_close(p[0, 0].item(), expected, rtol=1e-12, atol=0)


def build(name, model, **settings):
    groups = groups_of(model, CASES[name].lr, 0.05)
    return optimizers.build_optimizer(name, groups, **settings), [g['lr'] for g in groups]


def halves(name, before, after, through):
    """Twenty-five steps, ``through`` (optimizer to fresh optimizer of a copied model), 25 more."""
    model = make('cnn')
    optimizer, rates = build(name, model, **before)
    batches = data(50)
    train(model, optimizer, batches[:25], rates, after_backward=feed(name, optimizer))
    fresh_model = copy.deepcopy(model)
    fresh, _ = build(name, fresh_model, **after)
    through(optimizer, fresh)
    train(fresh_model, fresh, batches[25:], rates, 25, after_backward=feed(name, fresh))
    return fresh_model, fresh


def through_file(optimizer, fresh):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, map_location='cpu', weights_only=True))


@pytest.mark.parametrize('name', CASES)
def test_resumed_run_is_bit_equal(name):
    model = make('cnn')
    optimizer, rates = build(name, model)
    train(model, optimizer, data(50), rates, after_backward=feed(name, optimizer))
    resumed, _ = halves(name, {}, {}, through_file)
    for p, q in zip(model.parameters(), resumed.parameters()):
        assert torch.equal(p, q)


CHANGES = {
    'default to foreach': ({}, {'foreach': True}),
    'foreach to loop': ({'foreach': True}, {'foreach': False}),
    'default to compiled': ({}, {'compile': True}),
    'compiled to default': ({'compile': True}, {}),
}


@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('name', CASES)
def test_mode_may_change_on_resume(name, change, monkeypatch):
    """Equal to an uninterrupted run whose execution mode changes at the same step, bit by bit."""
    before, after = CHANGES[change]
    monkeypatch.setattr(torch, 'compile', lambda f, **_: f)

    def in_memory(optimizer, fresh):
        """No file: the state tensors themselves move over."""
        old = [p for g in optimizer.param_groups for p in g['params']]
        new = [p for g in fresh.param_groups for p in g['params']]
        for p, q in zip(old, new):
            fresh.state[q] = optimizer.state[p]
        for g, h in zip(optimizer.param_groups, fresh.param_groups):
            kept = {'params', 'foreach', 'fused', 'capturable', 'differentiable'}
            h.update({k: v for k, v in g.items() if k not in kept})

    resumed, optimizer = halves(name, before, after, through_file)
    moved, _ = halves(name, before, after, in_memory)
    same, _ = halves(name, before, before, through_file)
    for p, q in zip(resumed.parameters(), moved.parameters()):
        assert torch.equal(p, q)
    # torch keeps NAdam's product of momenta in float32, whose rounding depends on the mode
    limit = 1e-7 if name == 'NAdam' and 'compiled' in change else 1e-8
    assert difference(resumed, same) < limit
    flag = getattr(optimizer, 'foreach', optimizer.param_groups[0].get('foreach'))
    assert bool(flag) == after.get('foreach', False)
    assert optimizer.compile == after.get('compile', False)


@pytest.mark.parametrize('name', CASES)
def test_copies_and_pickles_go_on_alike(name):
    model = make('cnn')
    optimizer, rates = build(name, model)
    train(model, optimizer, data(3), rates, after_backward=feed(name, optimizer))
    both = copy.deepcopy((model, optimizer)), pickle.loads(pickle.dumps((model, optimizer)))
    for other_model, other in ((model, optimizer), *both):
        train(other_model, other, data(3), rates, 3, after_backward=feed(name, other))
        assert difference(other_model, model) == 0 or other is optimizer


def test_adabound_keeps_its_base_rate():
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = optimizers.AdaBound([p], lr=1e-2)
    optimizer.param_groups[0]['lr'] = 1e-3
    state = optimizer.state_dict()
    fresh = optimizers.AdaBound([p], lr=5e-1)
    fresh.load_state_dict(state)
    assert fresh.param_groups[0]['base_lr'] == 1e-2
    c = fresh.coefficients(fresh.param_groups[0], 1000)
    assert c['upper'] == pytest.approx(0.1 * 0.1 * (1 + 1 / (1e-3 * 1000)))  # f (1 + 1/(gamma t))


def test_adabound_takes_a_zero_rate():
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = optimizers.AdaBound([p], lr=0.0)
    p.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(p.detach(), torch.ones(2))
    optimizer.param_groups[0]['lr'] = 1e-2
    optimizer.step()
    assert (p < 1).all() and p.isfinite().all()
