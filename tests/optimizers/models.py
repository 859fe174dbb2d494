"""Small models and a training loop in double precision, for the checks of the optimizers."""

from __future__ import annotations

import math

import torch
from torch import nn


class TinyTransformer(nn.Module):
    """No bias in the keys: its gradient is 0, so that rounding alone would decide its step."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(1, 6, 2, stride=2)
        self.position = nn.Parameter(torch.randn(1, 4, 6) * 0.1)
        self.norm = nn.LayerNorm(6)
        self.qkv = nn.Linear(6, 18, bias=False)
        self.scale = nn.Parameter(torch.ones(6))
        self.temperature = nn.Parameter(torch.tensor(0.5))
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2) + self.position
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.scale * ((q @ k.mT * self.temperature).softmax(-1) @ v)
        return self.head(x.mean(1))


def tiny_cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.GELU(),
        nn.Conv2d(4, 4, 3, groups=4),  # depthwise
        nn.Conv2d(4, 6, 1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(24, 4),
    )


MODELS = {'cnn': tiny_cnn, 'transformer': TinyTransformer}


def make(name):
    torch.manual_seed(0)
    return MODELS[name]().double()


def groups_of(model, lr, weight_decay):
    """Matrices with decay, the rest without and at half the rate."""
    big = [p for p in model.parameters() if p.dim() > 1]
    small = [p for p in model.parameters() if p.dim() <= 1]
    return [
        {'params': big, 'lr': lr, 'weight_decay': weight_decay},
        {'params': small, 'lr': lr / 2, 'weight_decay': 0.0},
    ]


def data(steps):
    torch.manual_seed(1)
    x, y = torch.randn(steps, 8, 1, 4, 4).double(), torch.randint(0, 4, (steps, 8))
    return list(zip(x, y))


def train(model, optimizer, batches, rates, first=0, total=50, after_backward=None):
    """Train with a rate that changes every step; returns the losses.

    ``rates`` holds one base rate a group, as :func:`groups_of` sets them.
    """
    losses = []
    for i, (x, y) in enumerate(batches, first):
        for group, rate in zip(optimizer.param_groups, rates):
            group['lr'] = rate * (0.1 + 0.9 * math.cos(0.5 * math.pi * i / total))
        model.zero_grad()  # not the optimizer: a reference may hold views
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        if after_backward:
            after_backward(i)
        optimizer.step()
        losses.append(loss.item())
    return losses


def difference(a, b):
    """Largest difference of two models' weights, relative to the largest weight of the tensor."""
    worst = 0.0
    for p, q in zip(a.parameters(), b.parameters()):
        worst = max(worst, ((p - q).abs().max() / q.abs().max().clamp(min=1e-3)).item())
    return worst
