"""PyTorch's optimizers by our formulas for a CPU: PyTorch's own loop is the reference."""

import pytest
import torch
from torch import nn

import bocb_mm.optimizers as optimizers
from bocb_mm.optimizers import multi_tensor

TORCH = {
    'Adamax': torch.optim.Adamax,
    'NAdam': torch.optim.NAdam,
    'RAdam': torch.optim.RAdam,
    'AdaDelta': torch.optim.Adadelta,
    'RMSProp': torch.optim.RMSprop,
}
# What a formula covers, and what it must leave to PyTorch.
SETTINGS = [
    *((name, {}) for name in TORCH),
    *((name, {'weight_decay': 0.1}) for name in TORCH),
    *((name, {'maximize': True}) for name in TORCH),
    ('NAdam', {'weight_decay': 0.1, 'decoupled_weight_decay': True}),
    ('RAdam', {'weight_decay': 0.1, 'decoupled_weight_decay': True}),
    ('RMSProp', {'momentum': 0.9}),
    ('RMSProp', {'centered': True}),
]
WAYS = pytest.mark.parametrize('foreach', [None, True])


def weights():
    """Big and small, in both layouts."""
    torch.manual_seed(0)
    tensors = [torch.randn(s, dtype=torch.float64) for s in ((7, 5, 3, 3), (300,), (), (2, 3))]
    tensors.append(torch.randn(4, 6, 3, 3).double().to(memory_format=torch.channels_last))
    return [nn.Parameter(t) for t in tensors]


FUSED = {
    'SGD': (torch.optim.SGD, {'momentum': 0.9, 'nesterov': True}),
    'Adam': (torch.optim.Adam, {}),
    'AdamW': (torch.optim.AdamW, {}),
    'AdaGrad': (torch.optim.Adagrad, {'lr_decay': 0.01}),
}


@pytest.mark.parametrize('maximize', [False, True])
@pytest.mark.parametrize('name', FUSED)
def test_fused_step_is_pytorchs_to_the_bit(name, maximize, monkeypatch):
    torch_class, settings = FUSED[name]
    settings = settings | {'lr': 1e-2, 'weight_decay': 0.1, 'maximize': maximize}
    shapes = ((5, 3, 2, 2), (7,), ())
    torch.manual_seed(0)
    mine = [nn.Parameter(torch.randn(s)) for s in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in mine]
    ours = optimizers.build_optimizer(name, mine, **settings)
    reference = torch_class(theirs, fused=True, **settings)
    kernel, called = ours.fused_kernel, []
    monkeypatch.setattr(ours, 'fused_kernel', lambda *lists: (called.append(1), kernel(*lists)))
    for i in range(8):
        for p, q in zip(mine, theirs):
            p.grad = torch.randn_like(p)
            if p.dim() == 4 and i == 5:  # lies otherwise: PyTorch's step, the gradient copied
                p.grad = p.grad.to(memory_format=torch.channels_last)
            q.grad = p.grad.contiguous().clone()
        if i == 6:
            mine[1].grad = theirs[1].grad = None
        ours.param_groups[0]['lr'] = reference.param_groups[0]['lr'] = 1e-2 / (1 + i)
        ours.step()
        reference.step()
    # not in the step that has channels-last, nor in the first, but AdaGrad's sum is there before
    assert len(called) == (7 if name == 'AdaGrad' else 6)
    for p, q in zip(mine, theirs):
        assert torch.equal(p, q)
        for key, value in reference.state[q].items():
            assert torch.equal(ours.state[p][key], value)


@WAYS
@pytest.mark.parametrize('name, settings', SETTINGS)
def test_as_pytorch_does(name, settings, foreach, monkeypatch):
    monkeypatch.setattr(multi_tensor, 'BLOCK', 64)  # cuts the first, groups the last
    settings = {'lr': 1e-2, 'weight_decay': 0.0} | settings
    if name == 'RAdam':
        settings.setdefault('decoupled_weight_decay', False)
    mine, theirs = weights(), weights()
    ours = optimizers.build_optimizer(name, mine, foreach=foreach, **settings)
    reference = TORCH[name](theirs, foreach=False, **settings)
    for i in range(12):
        for p, q in zip(mine, theirs):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        ours.param_groups[0]['lr'] = reference.param_groups[0]['lr'] = 1e-2 / (1 + i)
        ours.step()
        reference.step()
    for p, q in zip(mine, theirs):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)
        for key, value in reference.state[q].items():
            torch.testing.assert_close(ours.state[p][key], value, rtol=1e-9, atol=1e-12)
