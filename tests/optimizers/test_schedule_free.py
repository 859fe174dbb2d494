"""Schedule-free methods at a constant rate: warm-up, the two points, and what is refused."""

import copy

import pytest
import torch
from torch import nn

import bocb_mm.optimizers as optimizers
from bocb_mm.errors import UserError

NAMES = {'ScheduleFreeSGD': {'momentum': 0.9}, 'ScheduleFreeAdamW': {'betas': (0.9, 0.999)}}
ALL = pytest.mark.parametrize('name', NAMES)


def trained(build, steps=12):
    """A weight after some steps on a bowl, and its optimizer."""
    p = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64))
    optimizer = build([p])
    for _ in range(steps):
        p.grad = 2 * p.detach() + 0.1
        optimizer.step()
    return p, optimizer


@ALL
@pytest.mark.parametrize('warmup', [0, 5, 40])
def test_warm_up_and_both_points_equal_the_authors_rule(name, warmup):
    """Their weights of the average are the squares of the largest rate so far."""
    from pytorch_optimizer import load_optimizer

    settings = {'lr': 0.05, 'weight_decay': 0.1, 'warmup_steps': warmup, **NAMES[name]}
    ours, optimizer = trained(lambda p: optimizers.build_optimizer(name, p, **settings))
    theirs, other = trained(lambda p: load_optimizer(name.lower())(p, **settings))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
    for switch in ('eval', 'eval', 'train'):
        getattr(optimizer, switch)()
        getattr(other, switch)()
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)


@ALL
def test_the_average_is_saved_and_training_goes_on_from_it(name):
    p, optimizer = trained(lambda p: optimizers.build_optimizer(name, p, lr=0.05))
    before = p.detach().clone()
    optimizer.eval()
    assert not torch.equal(p, before)
    fresh = nn.Parameter(p.detach().clone())
    loaded = optimizers.build_optimizer(name, [fresh], lr=0.05)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    loaded.train()
    torch.testing.assert_close(fresh.detach(), before, rtol=1e-12, atol=0)
    fresh.grad = torch.ones_like(fresh)
    loaded.step()


@ALL
def test_a_step_in_eval_mode_and_no_momentum_are_refused(name):
    p, optimizer = trained(lambda p: optimizers.build_optimizer(name, p, lr=0.05), 1)
    optimizer.eval()
    before = p.detach().clone()
    with pytest.raises(UserError, match=r'eval mode; call the optimizer.s train\(\) first'):
        optimizer.step()
    assert torch.equal(p, before)
    without = {'momentum': 0.0} if 'SGD' in name else {'betas': (0.0, 0.9)}
    with pytest.raises(UserError, match='between 0 and 1'):
        optimizers.build_optimizer(name, [p], **without)
