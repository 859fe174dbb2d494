"""The Hessian passes: when, from what, with what factor, and that they leave no trace."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import build_optim_wrapper
from torch import nn

from bocb_mm.errors import UserError
from bocb_mm.optim_wrappers import SophiaAmpOptimWrapper, SophiaOptimWrapper, hessian
from bocb_mm.optimizers import build_optimizer
from tests.optim_wrappers.toy import CrossEntropyLoss, ToyNet, toy_batch


@pytest.fixture(autouse=True)
def toy_loss_is_known(monkeypatch):
    """The toy's loss has mmpretrain's interface, so it may have mmpretrain's sampler."""
    key = f'{CrossEntropyLoss.__module__.split(".")[0]}.CrossEntropyLoss'
    monkeypatch.setitem(hessian._SAMPLERS, key, hessian._cross_entropy)


def wrap(model, kind=SophiaOptimWrapper, optimizer=None, **options):
    optimizer = optimizer or build_optimizer('Sophia', model.parameters(), lr=0.01)
    return kind(optimizer=optimizer, **options)


class Recorder(torch.optim.SGD):
    """Keeps what ``update_hessian`` and ``step`` find in ``.grad``."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr)
        self.hessians, self.steps = [], []

    def _grads(self):
        return [p.grad.clone() for g in self.param_groups for p in g['params']]

    def update_hessian(self, batch_size):
        self.hessians.append((batch_size, self._grads()))

    def step(self, closure=None):
        self.steps.append(self._grads())
        return super().step(closure)


def test_by_config_alone():
    wrapper = build_optim_wrapper(
        ToyNet(),
        {'type': 'bocb_mm.SophiaOptimWrapper', 'optimizer': {'type': 'bocb_mm.Sophia', 'lr': 0.01}},
    )
    assert type(wrapper) is SophiaOptimWrapper
    assert wrapper.hessian_kind is None


@pytest.mark.parametrize('accumulate', [1, 3])
def test_every_k_updates(accumulate):
    model = ToyNet()
    wrapper = wrap(
        model,
        optimizer=Recorder(model.parameters()),
        hessian_interval=4,
        accumulative_counts=accumulate,
    )
    for _ in range(9 * accumulate):
        model.train_step(toy_batch(), wrapper)
    assert len(wrapper.optimizer.steps) == 9
    assert len(wrapper.optimizer.hessians) == wrapper.hessian_updates == 3  # before 0, 4 and 8


def test_it_is_the_squared_gradient_on_sampled_labels():
    """Against the paper's formula, with the labels drawn from the same seed."""
    torch.manual_seed(0)
    model = ToyNet()
    twin = copy.deepcopy(model)
    wrapper = wrap(model, optimizer=Recorder(model.parameters()))
    model.train_step(toy_batch(), wrapper)
    batch_size, got = wrapper.optimizer.hessians[0]
    wrapper._inner_count = 1
    seed = torch.Generator().manual_seed(wrapper._seed())
    logits = twin(toy_batch()['inputs'])
    labels = torch.multinomial(logits.detach().softmax(-1), 1, generator=seed).squeeze(-1)
    expected = torch.autograd.grad(F.cross_entropy(logits, labels), list(twin.parameters()))
    assert batch_size == 6
    for a, b in zip(got, expected):
        torch.testing.assert_close(a, b)
    assert wrapper.hessian_kind == 'gauss-newton-bartlett (categorical)'


def test_it_leaves_no_trace():
    """Training gradients, batch-norm statistics and dropout are those of a run without it."""
    runs = []
    for every in (1, 10**6):
        torch.manual_seed(0)
        model = ToyNet(dropout=0.5)
        wrapper = wrap(model, optimizer=Recorder(model.parameters()), hessian_interval=every)
        for _ in range(4):
            model.train_step(toy_batch(), wrapper)
        runs.append((wrapper.optimizer, model.state_dict()))
    (one, state), (two, other) = runs
    assert (len(one.hessians), len(two.hessians)) == (4, 1)
    for a, b in zip(one.steps, two.steps):
        assert all(map(torch.equal, a, b))
    assert all(torch.equal(state[k], other[k]) for k in state)


def test_sophia_trains_and_its_hessian_is_used():
    torch.manual_seed(0)
    model = ToyNet()
    wrapper = wrap(model, optimizer=build_optimizer('Sophia', model.parameters(), lr=0.02))
    losses = [float(model.train_step(toy_batch(), wrapper)['loss']) for _ in range(15)]
    assert losses[-1] < losses[0]
    assert wrapper.hessian_updates == 2
    assert any((s['hessian'] > 0).any() for s in wrapper.optimizer.state.values())


def test_unknown_loss_falls_back_to_the_empirical_fisher():
    """The squared training gradient times the batch that it is the mean of."""

    class Other(nn.Module):
        def forward(self, logits, label):
            return F.multi_margin_loss(logits, label)

    model = ToyNet(loss=Other())
    wrapper = wrap(model, optimizer=Recorder(model.parameters()), accumulative_counts=2)
    for _ in range(2):
        model.train_step(toy_batch(), wrapper)
    batch_size, grads = wrapper.optimizer.hessians[0]
    assert batch_size == 12
    assert all(map(torch.equal, grads, wrapper.optimizer.steps[0]))
    assert wrapper.hessian_kind == 'empirical-fisher'


def test_parameters_without_a_class_get_the_empirical_fisher():
    """As the box branch of RetinaNet, which no sampled label reaches."""

    class TwoHeads(ToyNet):
        def __init__(self):
            super().__init__()
            self.boxes = nn.Linear(4, 4)

        def forward(self, inputs, data_samples=None, mode='tensor'):
            losses = super().forward(inputs, data_samples, mode)
            x = (self.backbone(inputs) * self.gamma).mean((2, 3))
            losses['loss_box'] = self.boxes(x).abs().mean()
            return losses

    torch.manual_seed(0)
    model = TwoHeads()
    wrapper = wrap(model, optimizer=Recorder(model.parameters()))
    model.train_step(toy_batch(), wrapper)
    names = [n for n, _ in model.named_parameters()]
    sampled, trained = wrapper.optimizer.hessians[0][1], wrapper.optimizer.steps[0]
    for name, a, b in zip(names, sampled, trained):
        assert torch.allclose(a, b) == name.startswith('boxes'), name
    assert wrapper.hessian_kind.endswith('(categorical); empirical-fisher for 2 tensors')


@pytest.mark.parametrize('hessian_kind', ['auto', 'empirical-fisher'])
def test_amp_unscales_before_squaring(hessian_kind):
    """The Hessian under fp16 with a large loss scale is that of fp32."""
    torch.manual_seed(0)
    plain = ToyNet()
    mixed = copy.deepcopy(plain)
    one = wrap(plain, optimizer=Recorder(plain.parameters()), hessian=hessian_kind)
    two = wrap(
        mixed,
        SophiaAmpOptimWrapper,
        Recorder(mixed.parameters()),
        hessian=hessian_kind,
        dtype='float16',
        loss_scale=4096.0,
        clip_grad={'max_norm': 1.0},
    )
    plain.train_step(toy_batch(), one)
    mixed.train_step(toy_batch(), two)
    for a, b in zip(one.optimizer.hessians[0][1], two.optimizer.hessians[0][1]):
        torch.testing.assert_close(a, b, rtol=0.1, atol=3e-3)
    assert one.hessian_kind == two.hessian_kind


def test_an_infinite_estimate_is_left_out():
    model = ToyNet()
    wrapper = wrap(model, optimizer=Recorder(model.parameters()))
    model.head.weight.data[0, 0] = float('nan')
    # NaN probabilities cannot be sampled, so this goes through the empirical Fisher.
    wrapper.hessian = 'empirical-fisher'
    model.train_step(toy_batch(), wrapper)
    assert wrapper.hessian_updates == 0 and not wrapper.optimizer.hessians


def test_without_hessian_when_the_optimizer_says_so():
    model = ToyNet()
    optimizer = build_optimizer('Sophia', model.parameters(), lr=0.01, hessian='none')
    wrapper = wrap(model, optimizer=optimizer)
    model.train_step(toy_batch(), wrapper)
    assert wrapper.hessian_kind == 'none' and wrapper.hessian_updates == 0


REFUSED = {
    'interval': ({'hessian_interval': 0}, 'hessian_interval=0: expected an integer above 0'),
    'fraction': ({'hessian_interval': 2.5}, 'hessian_interval=2.5'),
    'hessian': ({'hessian': 'fisher'}, "hessian='fisher': expected one of auto, empirical-fisher"),
}


@pytest.mark.parametrize('case', REFUSED)
def test_refused(case):
    options, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        wrap(ToyNet(), **options)


def test_another_optimizer_is_refused():
    model = ToyNet()
    with pytest.raises(UserError, match=r'SGD has no update_hessian\(\)'):
        wrap(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
