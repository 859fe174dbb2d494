"""Gradients at the start of a training."""

import math

import pytest
import torch
from torch import nn

from bocb_mm.metrics.gradients import covariates, gradient_norms


def test_norms_are_root_mean_squares_averaged_over_batches():
    net = nn.Linear(2, 1, bias=True)
    batches = [torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])]
    found = gradient_norms(net, batches, lambda x: net(x).sum())
    # d loss / d weight is the input itself: rms (3, 4) = 5/sqrt(2), rms (0, 2) = sqrt(2)
    assert found == {'weight': pytest.approx((5 / math.sqrt(2) + math.sqrt(2)) / 2)}
    assert all(p.grad is None for p in net.parameters())


def test_what_no_gradient_reaches_is_left_out():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight.requires_grad_(False)
    assert list(gradient_norms(net, [torch.ones(1, 2)], lambda x: net(x).sum())) == ['0.weight']
    assert covariates(gradient_norms(net, [], lambda x: net(x).sum())) == {}


def test_blocks_of_one_size_have_no_spread():
    same = {f'layer{i}.0.conv{j}.weight': 0.01 for i in range(3) for j in range(2)}
    assert covariates(same) == {
        'first_to_median': pytest.approx(1),
        'block_spread': pytest.approx(0),
    }
    apart = {k: v * 10 ** int(k[5]) for k, v in same.items()}
    assert covariates(apart)['block_spread'] == pytest.approx(math.sqrt(2 / 3))
