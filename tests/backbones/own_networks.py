"""Our own networks in a small size, for the tests of each of them."""

from __future__ import annotations

import torch
from torch import nn

from bocb_mm.backbones.moganet import MogaNet
from bocb_mm.backbones.transnext import TransNeXt
from bocb_mm.backbones.unireplknet import UniRepLKNet

# One or two blocks a stage: the networks at full depth are in test_golden.py.
SMALL = {
    'moganet': lambda **kw: MogaNet(channels=(16, 24, 32, 40), depths=(1, 1, 2, 1), **kw),
    'unireplknet': lambda **kw: UniRepLKNet(
        channels=(8, 16, 24, 32), kernels=((3,), (13,), (13, 3), (7,)), **kw
    ),
    'transnext': lambda **kw: TransNeXt(
        channels=(24, 48, 72, 96), heads=(1, 2, 3, 4), depths=(1, 1, 2, 1), **kw
    ),
}


def awake(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network with scales of the order of 1, so that every part shows in the output."""
    torch.manual_seed(seed)
    for name, p in net.named_parameters():
        if p.ndim == 1 or 'scale' in name or 'gamma' in name or 'beta' in name:
            nn.init.normal_(p, 0.5, 0.2)
        elif p.ndim > 1 and 'weight' in name:
            nn.init.normal_(p, 0, p[0].numel() ** -0.5)
    for name, b in net.named_buffers():
        if 'running' in name:
            nn.init.uniform_(b, 0.5, 1.5)
    return net
