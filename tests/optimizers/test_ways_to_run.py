"""Dispatches, memory and compilation of a step."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import bocb_mm.optimizers as optimizers
from bocb_mm.errors import UserError
from bocb_mm.optimizers import multi_tensor
from bocb_mm.optimizers.multi_tensor import Batch

from .models import data, difference, groups_of, make, train
from .table import CASES


class Dispatches(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, out))
        self.count += any(isinstance(t, torch.Tensor) and t.numel() > 1 for t in leaves)
        return out


def network(depth):
    """Kernels of the kinds of ResNet-50 and their norms, many or few."""
    torch.manual_seed(0)
    shapes = [(8, 4, 3, 3), (8,), (8,), (16, 8, 1, 1), (16,), (10, 16)] * depth
    params = [nn.Parameter(torch.randn(s)) for s in shapes]
    for p in params:
        p.grad = torch.randn_like(p)
    return params


def count(name, params):
    optimizer = optimizers.build_optimizer(name, params, lr=1e-3, weight_decay=0.1, foreach=True)
    optimizer.step()
    optimizer.step()
    with Dispatches() as counter:
        optimizer.step()
    return counter.count


@pytest.mark.parametrize('name', CASES)
def test_dispatches_are_few_and_do_not_grow_with_the_parameters(name):
    few, many = count(name, network(2)), count(name, network(20))
    assert few == many
    assert many <= (25 if optimizers.get_spec(name).elementwise else 60)


SHAPES = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12)


@settings(deadline=None)
@given(shapes=SHAPES, cut=st.booleans(), block=st.integers(4, 64))
def test_blocks_have_every_element_once(shapes, cut, block):
    params = [torch.zeros(s) for s in shapes]
    params[::2] = [p.t() for p in params[::2]]  # not contiguous
    grads = [torch.randn(p.shape) for p in params]
    state = {'sum': [torch.ones(p.shape) for p in params]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multi_tensor, 'BLOCK', block)
        for ps, gs, found in multi_tensor.blocks(Batch(params, grads, state, 1, None), cut):
            for p, g, total in zip(ps, gs, found['sum']):
                p += g
                total += g
    for p, g, total in zip(params, grads, state['sum']):
        torch.testing.assert_close(p, g)
        torch.testing.assert_close(total, g + 1)


@given(sizes=st.lists(st.integers(1, 100), max_size=20), parts=st.integers(1, 4))
def test_shares_are_about_equal(sizes, parts):
    shares = multi_tensor.divided(sizes, parts)
    assert sorted(k for share in shares for k in share) == list(range(len(sizes)))
    totals = [sum(sizes[k] for k in share) for share in shares]
    assert len(totals) == parts
    assert max(totals) - min(totals) <= max(sizes, default=0)


def most_beyond_state(build, params):
    """Largest sum of what an optimizer takes in three steps and has not freed, in bytes."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        optimizer = build(params)
        for _ in range(3):
            optimizer.step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == '[memory]']
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    tensors = tree_leaves(list(optimizer.state.values()))
    return most - sum(t.nbytes for t in tensors if isinstance(t, torch.Tensor))


OWN = [n for n in CASES if optimizers.get_spec(n).implementation == 'bocb_mm']


EVEN = [(256, 128, 3, 3)] * 12  # large enough that the blocks of a CPU are a part of it
ONE_LARGE = [(2048, 2048), *[(256, 256, 3, 3)] * 2, (64,)]  # as the first linear layer of VGG


@pytest.mark.parametrize('name', OWN)
@pytest.mark.parametrize(('shapes', 'foreach'), [(EVEN, None), (EVEN, True), (ONE_LARGE, None)])
def test_three_steps_take_one_buffer_at_most(shapes, foreach, name):
    params = [nn.Parameter(torch.randn(s)) for s in shapes]
    for p in params:
        p.grad = torch.randn_like(p)
    settings = {'lr': 1e-3, 'weight_decay': 0.1, 'foreach': foreach}
    taken = most_beyond_state(lambda p: optimizers.build_optimizer(name, p, **settings), params)
    numbers = 64 * 4 * len(params)  # a few 0-dim tensors for each weight
    assert taken <= sum(p.nbytes for p in params) + numbers


# SGD: torch makes its state lazily; RAdam: torch counts steps in float32
@pytest.mark.parametrize('name', [*OWN, 'SGD', 'RAdam'])
def test_compiled_once_whatever_rate_and_step(name, compilations):
    case = CASES[name]
    models, graphs = [], []
    for way in ({}, {'compile': True}):
        model = make('cnn')
        groups = groups_of(model, case.lr, 0.05)
        optimizer = optimizers.build_optimizer(name, groups, **way)
        rates = [g['lr'] for g in groups]
        for i, batch in enumerate(data(6)):
            train(model, optimizer, [batch], rates, i, 6)
            graphs.append(compilations.frame_count)
        models.append(model)
    plain, compiled = graphs[:6], graphs[6:]
    assert plain[-1] == 0
    assert 1 <= compiled[1] == compiled[-1] <= 2  # the first two steps at most
    # torch keeps NAdam's product of momenta in float32, whose rounding depends on the way to run
    assert difference(models[1], models[0]) < (1e-7 if name == 'NAdam' else 1e-8)


def test_foreach_and_compile_exclude_each_other():
    p = nn.Parameter(torch.ones(2))
    for name in ('AdamW', 'LARS'):
        with pytest.raises(UserError, match='choose one'):
            optimizers.build_optimizer(name, [p], foreach=True, compile=True)
