"""What a compiled step takes for the same as before: with generated code, which relies on layouts."""

import pytest
import torch
from torch import nn

import bocb_mm.optimizers as optimizers
from bocb_mm.optimizers import compiled

LAST = torch.channels_last


@pytest.fixture
def pair():
    """Two weights of one shape under LION, compiled and not, with the same start."""
    torch._dynamo.reset()
    made = []
    for way in ({'compile': True}, {}):
        torch.manual_seed(0)
        weights = [nn.Parameter(torch.randn(4, 3, 2, 2)) for _ in range(2)]
        made.append(optimizers.build_optimizer('LION', weights, lr=0.1, weight_decay=0.1, **way))
    yield made
    torch._dynamo.reset()


def weights_of(optimizer):
    return optimizer.param_groups[0]['params']


def step(pair, which=(0, 1), layouts=(), shared=False):
    """One step of both with the same gradients for some of the weights, laid out as they are."""
    gradients = torch.randn(2, 4, 3, 2, 2)
    for optimizer in pair:
        weights = weights_of(optimizer)
        for k, w in enumerate(weights):
            w.grad = None
            if k in which:
                w.grad = torch.empty_like(w).copy_(gradients[0 if shared else k])
        for k, layout in layouts:
            weights[k].grad = weights[k].grad.contiguous(memory_format=layout)
        if shared:
            weights[1].grad = weights[0].grad
        optimizer.step()


def assert_same(pair):
    for a, b in zip(*map(weights_of, pair)):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
        of_a, of_b = pair[0].state[a]['exp_avg'], pair[1].state[b]['exp_avg']
        torch.testing.assert_close(of_a, of_b, rtol=1e-6, atol=1e-6)


def lay(pair, k, layout):
    """As ``model.to(memory_format=layout)`` does."""
    for optimizer in pair:
        w = weights_of(optimizer)[k]
        w.data = w.data.contiguous(memory_format=layout)


def test_weights_laid_out_anew(pair):
    step(pair, which=[0])  # the state of the first lies as a contiguous weight
    lay(pair, 0, LAST)
    step(pair, which=[0])
    lay(pair, 1, LAST)
    step(pair, which=[1])  # alike but for its state, which is laid out as it is
    step(pair, which=[0])
    assert_same(pair)


def test_gradient_laid_out_otherwise(pair):
    step(pair)
    step(pair, layouts=[(0, LAST)])
    step(pair)
    assert_same(pair)


def test_state_replaced_and_loaded(pair):
    step(pair)
    for optimizer in pair:
        state = optimizer.state[weights_of(optimizer)[0]]
        state['exp_avg'] = state['exp_avg'].contiguous(memory_format=LAST)
    step(pair)
    for optimizer in pair:
        optimizer.load_state_dict(optimizer.state_dict())
    step(pair)
    assert_same(pair)


def test_gradient_that_two_weights_share(pair):
    step(pair, shared=True)
    step(pair)
    step(pair, shared=True)
    assert_same(pair)


def test_weights_of_another_size(pair):
    step(pair)
    for optimizer in pair:
        w = weights_of(optimizer)[1]
        w.data = w.data[:2]
        optimizer.state[w]['exp_avg'] = optimizer.state[w]['exp_avg'][:2].clone()
        w.grad = None
    torch.manual_seed(1)
    gradients = [torch.randn(4, 3, 2, 2), torch.randn(2, 3, 2, 2)]
    for optimizer in pair:
        for w, g in zip(weights_of(optimizer), gradients):
            w.grad = g.clone()
        optimizer.step()
    assert_same(pair)


def test_compiles_for_new_layouts_only(compilations):
    weights = [nn.Parameter(torch.randn(3)) for _ in range(4)]
    optimizer = optimizers.build_optimizer('LION', weights, lr=0.1, compile=True)
    for chosen in ([0, 1], [0, 1], [2, 3], [0, 1], [2], [3], [2, 3]):
        for k, w in enumerate(weights):
            w.grad = torch.randn(3) if k in chosen else None
        optimizer.step()
    assert compilations.frame_count == 2  # for two weights and for one


def test_more_layouts_than_the_limit(compilations, monkeypatch):
    monkeypatch.setattr(compiled, 'LIMIT', 2)
    made = []
    for way in ({'compile': True}, {}):
        torch.manual_seed(0)
        weights = [nn.Parameter(torch.randn(n, 2)) for n in range(1, 6)]
        optimizer = optimizers.build_optimizer('LION', weights, lr=0.1, **way)
        for k in (0, 1, 2, 3, 4, 0, 1, 2, 3, 4):
            for w in weights:
                w.grad = torch.randn(w.shape) if w is weights[k] else None
            optimizer.step()
        made.append(optimizer)
    assert_same(made)
    assert len(made[0]._compiled._steps) == 3  # the third for all further ones


def test_no_gradient_at_all_compiles_nothing(compilations):
    p = nn.Parameter(torch.ones(2))
    optimizers.build_optimizer('LION', [p], lr=0.1, compile=True).step()
    assert compilations.frame_count == 0
    assert torch.equal(p, torch.ones(2))
