"""The nine optimizers that PyTorch has: its own numbers in every mode, and where its faults end."""

import inspect

import pytest
import torch
from torch import nn

import bocb_mm.optimizers as optimizers
from bocb_mm.errors import UserError

from .table import CASES

TORCH = {
    'SGD': torch.optim.SGD,
    'Adam': torch.optim.Adam,
    'Adamax': torch.optim.Adamax,
    'NAdam': torch.optim.NAdam,
    'AdamW': torch.optim.AdamW,
    'RAdam': torch.optim.RAdam,
    'AdaGrad': torch.optim.Adagrad,
    'AdaDelta': torch.optim.Adadelta,
    'RMSProp': torch.optim.RMSprop,
}
FUSED = ('SGD', 'Adam', 'AdamW', 'AdaGrad')
OWN = {'SGD': {'momentum': 0.9}, 'RAdam': {'decoupled_weight_decay': True}}  # our other defaults
SETTINGS = [
    *((name, settings) for name in TORCH for settings in ({}, {'weight_decay': 0.1})),
    *((name, {'maximize': True, 'weight_decay': 0.1}) for name in TORCH),
    ('SGD', {'momentum': 0.0}),
    ('SGD', {'nesterov': True, 'weight_decay': 0.1}),
    ('SGD', {'dampening': 0.5}),
    ('Adam', {'amsgrad': True}),
    ('NAdam', {'weight_decay': 0.1, 'decoupled_weight_decay': True}),
    ('RAdam', {'weight_decay': 0.1, 'decoupled_weight_decay': False}),
    ('AdaGrad', {'lr_decay': 0.1, 'initial_accumulator_value': 0.5}),
    ('RMSProp', {'momentum': 0.9, 'centered': True}),
]
NINE = pytest.mark.parametrize('name', TORCH)
LAST = torch.channels_last


def modes(name):
    fused = [{'fused': True}] if name in FUSED else []
    return [{}, {'foreach': False}, {'foreach': True}, {'compile': True}, *fused]


EACH = pytest.mark.parametrize(
    ('name', 'mode'),
    [(name, mode) for name in TORCH for mode in modes(name)],
    ids=lambda value: value if isinstance(value, str) else '-'.join(value) or 'default',
)


def weights(dtype=torch.float64, shapes=((7, 5, 3, 3), (300,), (), (2, 3), (4, 6, 3, 3))):
    torch.manual_seed(0)
    tensors = [torch.randn(s, dtype=dtype) for s in shapes]
    return [nn.Parameter(t.to(memory_format=LAST) if len(t) == 4 else t) for t in tensors[-1:]] + [
        nn.Parameter(t) for t in tensors[:-1]
    ]


def train(optimizer, params, steps=8, first=0, seed=1):
    """Steps with falling rates and the same gradients whenever the same steps are taken."""
    for i in range(first, first + steps):
        generator = torch.Generator().manual_seed(seed + i)
        for p in params:
            g = torch.randn(p.shape, dtype=p.dtype, generator=generator)
            p.grad = torch.empty_like(p).copy_(g)
        for group in optimizer.param_groups:
            group['lr'] = 1e-2 / (1 + i)
        optimizer.step()


def assert_alike(ours, mine, theirs, reference=None, **limits):
    limits = {'rtol': 1e-9, 'atol': 1e-12} | limits
    for p, q in zip(mine, theirs):
        torch.testing.assert_close(p, q, **limits)
        for key, value in reference.state[q].items() if reference else ():
            found = ours.state[p][key]
            torch.testing.assert_close(found, value, check_dtype=False, **limits)


@pytest.mark.parametrize(('name', 'settings'), SETTINGS)
def test_every_mode_is_pytorchs_loop(name, settings, compilations):
    for mode in modes(name):
        if mode == {'fused': True} and settings.get('dampening'):
            continue  # refused: test_fused_with_dampening_is_refused
        mine, theirs = weights(), weights()
        ours = optimizers.build_optimizer(name, mine, **settings, **mode)
        reference = TORCH[name](theirs, foreach=False, **OWN.get(name, {}) | settings)
        train(ours, mine)
        train(reference, theirs)
        # NAdam's product of momenta is a float32 in torch's loop
        slack = {'rtol': 1e-6} if name == 'NAdam' else {}
        assert_alike(ours, mine, theirs, reference, **slack)


@NINE
def test_arguments_and_defaults_are_those_of_the_torch_class(name):
    ours, theirs = (
        inspect.signature(c).parameters for c in (getattr(optimizers, name), TORCH[name])
    )
    hidden = {'capturable', 'differentiable'}
    assert list(ours) == [*(key for key in theirs if key not in hidden), 'compile']
    changed = {
        k: p.default for k, p in ours.items() if k in theirs and p.default != theirs[k].default
    }
    assert changed == OWN.get(name, {})


@NINE
def test_fused_is_not_forced(name, monkeypatch):
    for kernel in ('sgd', 'adam', 'adamw', 'adagrad'):
        monkeypatch.setattr(torch, f'_fused_{kernel}_', pytest.fail)
    optimizer = optimizers.build_optimizer(name, params := weights(torch.float32), lr=1e-2)
    train(optimizer, params, 2)
    assert not optimizer.param_groups[0].get('fused')


@NINE
def test_compiled_once_whatever_rate_and_step(name, compilations):
    optimizer = optimizers.build_optimizer(
        name, params := weights(shapes=((4, 3), (5,))), compile=True
    )
    train(optimizer, params, 3)
    frames = compilations.frame_count
    assert 1 <= frames <= 2
    train(optimizer, params, 6, first=3)
    assert compilations.frame_count == frames


@EACH
def test_parameter_that_is_a_slice(name, mode, compilations):
    big = torch.randn(6, 8, dtype=torch.float64)
    before, whole = big.clone(), nn.Parameter(big[:, :3].clone())
    part = nn.Parameter(big[:, :3])
    ours = optimizers.build_optimizer(name, [part], weight_decay=0.1, **mode)
    if mode == {'fused': True}:
        with pytest.raises(UserError, match='part of a larger tensor'):
            train(ours, [part], 1)
        assert torch.equal(big, before)
        return
    train(ours, [part])
    reference = TORCH[name]([whole], weight_decay=0.1, foreach=False, **OWN.get(name, {}))
    train(reference, [whole])
    assert_alike(ours, [part], [whole])
    assert torch.equal(big[:, 3:], before[:, 3:])


@EACH
def test_memory_format_changed_after_a_step(name, mode, compilations):
    mine, theirs = weights(), weights()
    ours = optimizers.build_optimizer(name, mine, weight_decay=0.1, **mode)
    reference = TORCH[name](theirs, weight_decay=0.1, foreach=False, **OWN.get(name, {}))
    for first, form in ((0, None), (3, LAST), (6, torch.contiguous_format)):
        for p in mine:
            if form and p.dim() == 4:
                p.data = p.data.contiguous(memory_format=form)
        train(ours, mine, 3, first)
        train(reference, theirs, 3, first)
    assert_alike(ours, mine, theirs, atol=1e-9)


@EACH
def test_gradients_in_another_layout(name, mode, compilations):
    mine, theirs = weights(), weights()
    ours = optimizers.build_optimizer(name, mine, weight_decay=0.1, **mode)
    reference = TORCH[name](theirs, weight_decay=0.1, foreach=False, **OWN.get(name, {}))

    def turn(*_):
        for p in (p for p in mine if p.dim() == 4):
            p.grad = p.grad.contiguous(memory_format=LAST)

    ours.register_step_pre_hook(turn)
    train(ours, mine)
    train(reference, theirs)
    assert_alike(ours, mine, theirs, atol=1e-9)


@pytest.mark.usefixtures('cxx')
def test_compiled_code_with_other_layouts():
    """With generated code, which relies on layouts."""
    torch._dynamo.reset()
    made = []
    for mode in ({}, {'compile': True}):
        torch.manual_seed(0)
        p = nn.Parameter(torch.randn(4, 3, 2, 2))
        optimizer = optimizers.SGD([p], lr=0.1, **mode)
        for i in range(6):
            if i == 4:
                p.data = p.data.to(memory_format=LAST)
            p.grad = torch.randn(4, 3, 2, 2).to(
                memory_format=LAST if i % 2 else torch.preserve_format
            )
            optimizer.step()
        made.append(p)
    torch._dynamo.reset()
    torch.testing.assert_close(*made)


@pytest.mark.parametrize('mode', [{}, {'fused': True}], ids=['default', 'fused'])
@pytest.mark.parametrize('name', FUSED)
def test_overflow_in_the_first_step_of_a_gradient_scaler(name, mode):
    mine, theirs = weights(torch.float32), weights(torch.float32)
    ours = optimizers.build_optimizer(name, mine, **mode)
    scaler = torch.amp.GradScaler('cpu', init_scale=4.0)
    scaler.scale(torch.ones(()))
    for p in mine:
        p.grad = torch.full_like(p, float('inf'))
    scaler.step(ours)
    scaler.update()
    assert_alike(ours, mine, theirs, rtol=0, atol=0)
    scaled = ours.register_step_pre_hook(lambda *_: None)  # hooks do not get in the way
    for p in mine:
        p.grad = torch.ones_like(p) * scaler.get_scale()
    scaler.step(ours)
    scaled.remove()
    reference = TORCH[name](theirs, foreach=False, **OWN.get(name, {}))
    for q in theirs:
        q.grad = torch.ones_like(q)
    reference.step()
    assert_alike(ours, mine, theirs, reference, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('mode', [{}, {'fused': True}], ids=['default', 'fused'])
@pytest.mark.parametrize('name', FUSED)
def test_first_gradient_that_comes_late(name, mode):
    """Under a gradient scaler and without."""
    for scaled in (False, True):
        mine, theirs = weights(torch.float32), weights(torch.float32)
        ours = optimizers.build_optimizer(name, mine, weight_decay=0.1, **mode)
        reference = TORCH[name](theirs, foreach=False, weight_decay=0.1, **OWN.get(name, {}))
        scaler = torch.amp.GradScaler('cpu', init_scale=4.0, enabled=scaled)
        scaler.scale(torch.ones(()))
        for late in (mine[0], None, mine[1], None):
            for p, q in zip(mine, theirs):
                p.grad = None if p is late else torch.ones_like(p) * scaler.get_scale()
                q.grad = None if p is late else torch.ones_like(q)
            scaler.step(ours)
            scaler.update()
            reference.step()
        assert_alike(ours, mine, theirs, reference, rtol=1e-6, atol=1e-7)


@EACH
def test_cast_to_bfloat16_after_building(name, mode, compilations):
    model = nn.Linear(40, 30)
    optimizer = optimizers.build_optimizer(name, model.parameters(), lr=0.5, **mode)
    model.bfloat16()
    before = [p.detach().clone() for p in model.parameters()]
    for _ in range(2):
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        if mode == {'fused': True} and name == 'SGD':
            with pytest.raises(UserError, match='bfloat16'):
                optimizer.step()
            return
        optimizer.step()
    for p, q in zip(model.parameters(), before):
        assert ((p - q).abs() > 0).float().mean() > (0.2 if name == 'AdaDelta' else 0.99)


def test_fused_with_dampening_is_refused():
    optimizer = optimizers.SGD([p := nn.Parameter(torch.ones(2))], dampening=0.5, fused=True)
    p.grad = torch.ones(2)
    with pytest.raises(UserError, match='dampening'):
        optimizer.step()


@pytest.mark.parametrize('foreach', [False, True, None])
@pytest.mark.parametrize(('name', 'settings'), SETTINGS)
def test_complex_parameters_are_pairs_of_real_ones(name, settings, foreach):
    a = torch.randn(4, 3, dtype=torch.complex128)
    p, q = nn.Parameter(a), nn.Parameter(torch.view_as_real(a).clone())
    ours = optimizers.build_optimizer(name, [p], foreach=foreach, **settings)
    reference = TORCH[name]([q], foreach=False, **OWN.get(name, {}) | settings)
    for g in torch.randn(5, 4, 3, dtype=torch.complex128):
        p.grad, q.grad = g.clone(), torch.view_as_real(g).clone()
        ours.step()
        reference.step()
    torch.testing.assert_close(torch.view_as_real(p), q, rtol=1e-9, atol=1e-12)


@EACH
def test_scheduled_betas_and_other_histories(name, mode, compilations):
    """Each parameter misses another step: the counts agree, NAdam's product of momenta does not."""
    mine, theirs = weights(), weights()
    ours = optimizers.build_optimizer(name, mine, lr=0.1, **mode)
    reference = TORCH[name](theirs, lr=0.1, foreach=False, **OWN.get(name, {}))
    for i in range(8):
        for optimizer, params in ((ours, mine), (reference, theirs)):
            group = optimizer.param_groups[0]
            if 'betas' in group:
                group['betas'] = (0.5 + 0.05 * i, 0.999)
            if 'momentum' in group and name == 'SGD':
                group['momentum'] = 0.5 + 0.05 * i
            torch.manual_seed(i)
            for k, p in enumerate(params):
                g = torch.randn(p.shape, dtype=p.dtype)
                p.grad = None if i == k else torch.empty_like(p).copy_(g)
            optimizer.step()
    assert_alike(ours, mine, theirs, **({'rtol': 1e-6} if name == 'NAdam' else {}))


@EACH
def test_group_that_joins_after_steps(name, mode, compilations):
    a, b = (nn.Parameter(torch.ones(3, 2)) for _ in range(2))
    settings = {'initial_accumulator_value': 0.5} if name == 'AdaGrad' else {}
    ours = optimizers.build_optimizer(name, [a], **settings, **mode)
    train(ours, [a], 3)
    ours.add_param_group({'params': [b], 'weight_decay': 0.1})
    train(ours, [a, b], 3)
    c = nn.Parameter(torch.ones(3, 2))
    alone = TORCH[name]([c], weight_decay=0.1, foreach=False, **settings, **OWN.get(name, {}))
    train(alone, [nn.Parameter(torch.ones(3, 2)), c], 3)
    assert_alike(ours, [b], [c], alone, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('name', CASES)
def test_refused_gradient_has_counted_no_step(name):
    dense, table = nn.Parameter(torch.ones(2, 3)), nn.Embedding(5, 3, sparse=True)
    optimizer = optimizers.build_optimizer(name, [dense, table.weight], lr=1e-2)
    for p in optimizer.param_groups[0]['params']:
        p.grad = torch.ones_like(p)
    optimizer.step()
    table.zero_grad()
    table(torch.tensor([1, 2])).sum().backward()
    before = repr(optimizer.state_dict()), dense.detach().clone()
    with pytest.raises(UserError, match='sparse'):
        optimizer.step()
    assert repr(optimizer.state_dict()) == before[0] and torch.equal(dense, before[1])


@pytest.fixture
def plain_ones_exist():
    """Objects of torch's classes, which add their hooks to the class when the first one is made."""
    for cls in TORCH.values():
        cls([nn.Parameter(torch.ones(1))])


@pytest.mark.parametrize('foreach', [None, True])
@pytest.mark.parametrize('name', CASES)
def test_step_hooks_fire_once_with_all_parameters(name, foreach, plain_ones_exist):
    from torch.optim.optimizer import (
        register_optimizer_step_post_hook,
        register_optimizer_step_pre_hook,
    )

    params = [nn.Parameter(torch.ones(3, n)) for n in (2, 3, 50)]
    optimizer = optimizers.build_optimizer(name, params, lr=1e-2, foreach=foreach)
    seen = []

    def hook(label):
        return lambda o, *_: seen.append((label, sum(len(g['params']) for g in o.param_groups)))

    handles = [
        optimizer.register_step_pre_hook(hook('before')),
        optimizer.register_step_post_hook(hook('after')),
        register_optimizer_step_pre_hook(hook('all before')),
        register_optimizer_step_post_hook(hook('all after')),
    ]
    try:
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
    finally:
        for handle in handles:
            handle.remove()
    assert seen == [('all before', 3), ('before', 3), ('after', 3), ('all after', 3)]


@pytest.mark.parametrize('mode', [{'foreach': True}, {'compile': True}], ids=str)
@pytest.mark.parametrize('name', CASES)
def test_step_inside_a_compiled_training_step(name, mode, monkeypatch):
    """As mmengine's ``compile=True``: forward, backward and step in one compiled function."""
    compile = torch.compile
    monkeypatch.setattr(torch, 'compile', lambda f, **_: compile(f, backend='eager'))
    torch._dynamo.reset()
    results = []
    for outer in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
        optimizer = optimizers.build_optimizer(name, model.parameters(), lr=1e-2, **mode)
        x = torch.randn(5, 4)

        def train_step(model=model, optimizer=optimizer, x=x):
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        step = compile(train_step, backend='eager') if outer else train_step
        results.append([step().item() for _ in range(4)])
    torch._dynamo.reset()
    assert results[0] == pytest.approx(results[1], rel=1e-6)
    assert results[0][-1] != results[0][0]
