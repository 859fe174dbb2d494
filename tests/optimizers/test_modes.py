"""The execution modes: same numbers, few kernels, little memory, compiled once."""

import inspect
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import bocb_mm.optimizers as optimizers
from bocb_mm.errors import UserError
from bocb_mm.optimizers import base

from .models import data, difference, groups_of, make, train
from .table import CASES, DRAWN, MODE_ARGUMENTS

ALL = pytest.mark.parametrize('name', CASES)
OWN = [n for n in CASES if optimizers.get_spec(n).implementation == 'bocb_mm']


class Kernels(TorchDispatchMode):
    """Counts operations on more than one element, without those that make a view only."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        aliases = [a.alias_info for a in function._schema.returns]
        view = any(a is not None and not a.is_write for a in aliases)
        leaves = tree_leaves((args, kwargs, out))
        large = any(isinstance(t, torch.Tensor) and t.numel() > 1 for t in leaves)
        self.count += large and not view and function.namespace == 'aten'
        return out


SHAPES = [(8, 4, 3, 3), (8,), (8,), (16, 8, 1, 1), (16,), (10, 16), (2, 1, 16), ()]
MATRICES = 4


def parameters(shapes, device='cpu'):
    torch.manual_seed(0)
    params = [nn.Parameter(torch.randn(s, device=device)) for s in shapes]
    for p in params:
        p.grad = torch.randn_like(p)
    return params


def few(name, copies):
    """How many kernels a step may have for so many copies of :data:`SHAPES`."""
    spec, case = optimizers.get_spec(name), CASES[name]
    most = (25 if spec.elementwise else 60) + MATRICES * case.stacks
    return most + case.kernels_per_matrix * MATRICES * copies


@ALL
def test_kernels_are_few_and_do_not_grow_with_the_parameters(name):
    counts = {}
    for copies in (2, 20):
        params = parameters(SHAPES * copies)
        optimizer = optimizers.build_optimizer(
            name, params, lr=1e-3, weight_decay=0.1, foreach=True
        )
        optimizer.step()
        with Kernels() as counter:
            optimizer.step()
        counts[copies] = counter.count
        assert counter.count <= few(name, copies)
    assert counts[20] - counts[2] == CASES[name].kernels_per_matrix * MATRICES * 18


# ---- any settings in any group mean the same in every mode


def settings_of(name):
    """Draws settings of a group from the whole signature, but for how a step is run."""
    arguments = inspect.signature(optimizers.get_spec(name).cls).parameters
    return st.fixed_dictionaries(
        {
            key: DRAWN[key](CASES[name], p.default)
            for key, p in arguments.items()
            if key not in {'params', *MODE_ARGUMENTS}
        }
    )


def odd(seed):
    """Parameters in many shapes and layouts."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    tensors = [random(5, 3, 2, 2), random(4, 6), random(7), random(), random(4, 7)[:, :3]]
    tensors += [random(6, 4, 3, 3).to(memory_format=torch.channels_last), random(3, 8)]
    return [nn.Parameter(t) for t in tensors], random


def run(name, groups, mode, seed=0):
    """Three steps in which some gradients are missing and some lie otherwise."""
    params, random = odd(seed)
    parts = [params[k :: len(groups)] for k in range(len(groups))]
    entries = [{'params': part, **group} for part, group in zip(parts, groups)]
    optimizer = optimizers.build_optimizer(name, entries, **mode)
    for i in range(3):
        for k, p in enumerate(params):
            grad = random(*p.shape)
            if p.dim() == 4 and i == 1:
                grad = grad.contiguous(memory_format=torch.channels_last)
            p.grad = None if k == 2 and i == 0 else grad
        if name == 'Sophia' and i == 1 and optimizer.hessian != 'none':
            optimizer.update_hessian(8)
        optimizer.step()
    return params


@ALL
@settings(max_examples=20, deadline=None)
@given(drawn=st.data())
def test_settings_of_groups_mean_the_same_in_every_mode(name, drawn):
    groups = drawn.draw(st.lists(settings_of(name), min_size=2, max_size=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, 'BLOCK', 8)  # cuts every tensor, where the formula allows it
        # what is compiled gets rate and step count as tensors; dynamo itself is tested below
        patch.setattr(torch, 'compile', lambda f, **_: f)
        try:
            expected = run(name, groups, {'foreach': False})
        except UserError:  # such as nesterov without momentum
            reject()
        for mode in ({}, {'foreach': True}, {'compile': True}):
            for p, q in zip(run(name, groups, mode), expected):
                torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize('mode', [{}, {'foreach': True}, {'compile': True}], ids=str)
@pytest.mark.parametrize('name', ['LAMB', 'Adan'])
def test_each_group_clips_to_its_own_norm(name, mode, compilations):
    """Also a group that does not clip: its gradients count in the norm."""
    limits, found = (1.0, 0.0, 4.0), []
    for inside in (False, True):
        params = parameters([(3, 4), (5, 6), (7, 2)])
        groups = [{'params': [p], 'max_grad_norm': m * inside} for p, m in zip(params, limits)]
        optimizer = optimizers.build_optimizer(name, groups, lr=0.1, weight_decay=0.1, **mode)
        for size in (1.0, 10.0, 0.1):  # a constant factor would cancel
            for p, g in zip(params, parameters([p.shape for p in params])):
                p.grad = size * g.grad
            norm = torch.cat([p.grad.flatten() for p in params]).norm()
            for p, limit in zip(params, limits):
                p.grad *= min(1.0, limit / norm) if limit and not inside else 1.0
            optimizer.step()
        found.append(params)
    for p, q in zip(*found):
        torch.testing.assert_close(p, q)


# ---- blocks


@settings(deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12),
    cut=st.booleans(),
    block=st.integers(4, 64),
)
def test_blocks_have_every_element_once(shapes, cut, block):
    params = [torch.zeros(s) for s in shapes]
    params[::2] = [p.t() for p in params[::2]]  # not contiguous
    grads = [torch.randn(p.shape) for p in params]
    state = {'sum': [torch.ones(p.shape) for p in params]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, 'BLOCK', block)
        for call in base.blocks(base.Call(params, grads, state, {}, {}), cut):
            for p, g, total in zip(call.params, call.grads, call.state['sum']):
                p += g
                total += g
    for p, g, total in zip(params, grads, state['sum']):
        torch.testing.assert_close(p, g)
        torch.testing.assert_close(total, g + 1)


# ---- memory


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


EVEN = [(256, 128, 3, 3)] * 12  # large enough that the blocks of a CPU are a part of it
ONE_LARGE = [(2048, 2048), *[(256, 256, 3, 3)] * 2, (64,)]  # as the first linear layer of VGG


@pytest.mark.parametrize('name', OWN)
@pytest.mark.parametrize(('shapes', 'foreach'), [(EVEN, None), (EVEN, True), (ONE_LARGE, None)])
def test_three_steps_take_few_buffers(shapes, foreach, name):
    """Where rows are summed, the products of one tensor stand beside it."""
    params = parameters(shapes)
    settings = {'lr': 1e-3, 'weight_decay': 0.1, 'foreach': foreach}
    taken = most_beyond_state(lambda p: optimizers.build_optimizer(name, p, **settings), params)
    numbers = 64 * 4 * len(params)  # a few 0-dim tensors for each parameter
    limit = CASES[name].buffers * sum(p.nbytes for p in params) + numbers
    if CASES[name].kernels_per_matrix:
        limit += max(p.nbytes for p in params) + 8 * 4 * sum(len(p) for p in params)
    if CASES[name].stacks:  # the stack, its copy in an iteration, and two products of its rows
        limit += 4 * sum(p.nbytes for p in params)
    assert taken <= limit


# ---- compile


# SGD: torch makes its state lazily; RAdam: torch counts steps in float32
@pytest.mark.parametrize('name', [*OWN, 'SGD', 'RAdam'])
def test_compiled_once_whatever_rate_and_step(name, compilations):
    case = CASES[name]
    models, graphs = [], []
    for mode in ({}, {'compile': True}):
        model = make('cnn')
        groups = groups_of(model, case.lr, 0.05)
        optimizer = optimizers.build_optimizer(name, groups, **mode)
        rates = [g['lr'] for g in groups]
        for i, batch in enumerate(data(6)):
            train(model, optimizer, [batch], rates, i, 6)
            graphs.append(compilations.frame_count)
        models.append(model)
    plain, compiled = graphs[:6], graphs[6:]
    assert plain[-1] == 0
    assert 1 <= compiled[1] == compiled[-1] <= 2  # the first two steps at most
    # torch keeps NAdam's product of momenta in float32, whose rounding depends on the mode
    assert difference(models[1], models[0]) < (1e-7 if name == 'NAdam' else 1e-8)


def test_many_groups_are_one_graph(compilations):
    """As with layer-wise rates: more groups than dynamo compiles variants of one function."""
    params = parameters([(2, k) for k in range(1, 21)])
    groups = [{'params': [p], 'lr': 0.1 / k} for k, p in enumerate(params, 1)]
    optimizer = optimizers.build_optimizer('LION', groups, compile=True)
    for _ in range(3):
        optimizer.step()
    assert compilations.frame_count == 1


@pytest.mark.usefixtures('cxx')
def test_generated_code_follows_layouts():
    """Compiled in earnest: code that reads a gradient's memory in another order is wrong."""
    torch._dynamo.reset()
    found = []
    for mode in ({'compile': True}, {}):
        torch.manual_seed(0)
        w = nn.Parameter(torch.randn(4, 3, 2, 2))
        optimizer = optimizers.build_optimizer('LION', [w], lr=0.1, weight_decay=0.1, **mode)
        for form in ('contiguous_format', 'channels_last', 'contiguous_format'):
            w.grad = torch.randn(4, 3, 2, 2).contiguous(memory_format=getattr(torch, form))
            optimizer.step()
        found.append(w)
    torch._dynamo.reset()
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('name', ['LION', 'AdamW'])
def test_a_machine_without_a_compiler_is_one_line(name, tmp_path):
    """In a process of its own: torch remembers what compiler and generated code it has found."""
    program = (
        'import torch, sys\n'
        'from bocb_mm.optimizers import build_optimizer\n'
        'p = torch.nn.Parameter(torch.ones(3))\n'
        'p.grad = torch.ones(3)\n'
        f'optimizer = build_optimizer({name!r}, [p], compile=True)\n'
        'try:\n'
        '    for _ in range(2): optimizer.step()\n'
        'except ValueError as error:\n'
        '    sys.exit(str(error))\n'
    )
    env = os.environ | {'CXX': '/no/such', 'TORCHINDUCTOR_CACHE_DIR': str(tmp_path)}
    done = subprocess.run(
        [sys.executable, '-c', program], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith('compile=True: torch needs a C++ compiler')


def test_no_gradient_at_all_compiles_nothing(compilations):
    p = nn.Parameter(torch.ones(2))
    optimizers.build_optimizer('LION', [p], lr=0.1, compile=True).step()
    assert compilations.frame_count == 0
    assert torch.equal(p, torch.ones(2))


def test_foreach_and_compile_exclude_each_other():
    p = nn.Parameter(torch.ones(2))
    for name in ('AdamW', 'LARS'):
        with pytest.raises(UserError, match='choose one'):
            optimizers.build_optimizer(name, [p], foreach=True, compile=True)
