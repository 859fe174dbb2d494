"""What holds for each of our own networks: sizes, gradients, stages, checkpointing, autocast."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bocb_mm.backbones.hierarchical import (
    DropPath,
    batch_statistics_kept,
    drop_path_rates,
    truncated_normal_,
)
from bocb_mm.backbones.moganet import MogaNet
from bocb_mm.backbones.transnext import TransNeXt
from bocb_mm.backbones.unireplknet import UniRepLKNet
from bocb_mm.errors import UserError
from tests.backbones.own_networks import SMALL, awake

each = pytest.mark.parametrize('build', SMALL.values(), ids=SMALL.keys())


@each
@pytest.mark.parametrize('size', [(64, 64), (50, 77), (33, 32)])
def test_maps_have_the_size_told(build, size):
    net = build().eval()
    with torch.no_grad():
        maps = net(torch.randn(2, 3, *size))
    for m, channels, stride in zip(maps, net.channels, net.strides, strict=True):
        assert m.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))
        assert m.isfinite().all()


@each
def test_a_picture_smaller_than_the_stride_is_refused_in_one_line(build):
    for net in (build(), build(num_classes=5)):
        with pytest.raises(UserError, match=r'31x64 pixels.*at least 32') as caught:
            net(torch.zeros(1, 3, 31, 64))
        assert '\n' not in str(caught.value)


@each
@pytest.mark.parametrize(
    'kwargs', [{}, {'out_indices': (1, 3)}, {'out_indices': (0, 2)}, {'num_classes': 7}], ids=str
)
def test_every_parameter_gets_a_gradient(build, kwargs):
    net = awake(build(**kwargs)).train()
    out = net(torch.randn(2, 3, 64, 70))
    maps = out if isinstance(out, tuple) else (out,)
    sum((m * torch.randn_like(m)).sum() for m in maps).backward()
    # A shift right before a batch norm has a gradient tensor, which is zero but for rounding.
    without = [
        n
        for n, p in net.named_parameters()
        if p.grad is None or not (p.grad.any() or n.endswith('bias'))
    ]
    assert not without
    if 'out_indices' in kwargs:
        assert len(maps) == 2
        assert net.num_stages == len(net.stage_modules()) == max(kwargs['out_indices']) + 1


@each
def test_chosen_maps_are_those_of_the_whole_network(build):
    whole, part = awake(build()).eval(), build(out_indices=(0, 2)).eval()
    part.load_state_dict(whole.state_dict(), strict=False)
    x = torch.randn(1, 3, 40, 64)
    with torch.no_grad():
        for a, b in zip([whole(x)[i] for i in (0, 2)], part(x), strict=True):
            assert torch.equal(a, b)


@each
@pytest.mark.parametrize('wrong', [(4,), (0, -5), ()], ids=str)
def test_a_missing_stage_is_refused(build, wrong):
    with pytest.raises(UserError, match=r'out_indices=.*0 to 3'):
        build(out_indices=wrong)


@each
def test_stage_modules_hold_every_parameter_but_the_classifier(build):
    net = build(num_classes=3)
    inside = {id(p) for stage in net.stage_modules() for m in stage for p in m.parameters()}
    outside = {n.split('.')[0] for n, p in net.named_parameters() if id(p) not in inside}
    assert outside <= {'head', 'norm'}
    net = build()
    inside = [id(p) for stage in net.stage_modules() for m in stage for p in m.parameters()]
    assert sorted(inside) == sorted(id(p) for p in net.parameters())


@each
def test_recomputing_blocks_changes_neither_gradients_nor_statistics(build):
    plain = awake(build(drop_path_rate=0.3)).train()
    saving = build(drop_path_rate=0.3, with_cp=True).train()
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(3, 3, 48, 64)
    for net in (plain, saving):
        torch.manual_seed(1)
        sum(m.square().mean() for m in net(x)).backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6, msg=lambda m: name + m)
    for (name, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda m: name + m)


@each
def test_autocast_gives_nearly_the_same(build):
    net = awake(build(num_classes=5)).train()
    x = torch.randn(2, 3, 64, 64)
    full = net(x)
    with torch.autocast('cpu', torch.bfloat16):
        half = net(x)
    half.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())
    assert (half.float() - full).norm() < 0.1 * full.norm()


@each
def test_weights_of_half_precision(build):
    net = awake(build(num_classes=5)).eval()
    x = torch.randn(2, 3, 64, 64)
    full, half = net(x), net.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).norm() < 0.1 * full.norm()
    net.train()(x.bfloat16()).float().sum().backward()


@each
def test_a_deep_copy_and_channels_last_give_the_same(build):
    import copy

    net = awake(build()).eval()
    twin = copy.deepcopy(net).to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        for a, b in zip(net(x), twin(x.to(memory_format=torch.channels_last)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_drop_path_keeps_the_mean_and_drops_whole_samples():
    torch.manual_seed(0)
    y = DropPath(0.25).train()(torch.ones(4000, 3, 2))
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (y == y[:, :1, :1]).all()
    # 4000 draws: the standard error of the mean is 0.009
    assert y.mean().item() == pytest.approx(1, abs=0.04)
    with pytest.raises(UserError, match=r'1\.5'):
        DropPath(1.5)


@pytest.mark.parametrize(
    ('net', 'count'),
    [(MogaNet, 19), (UniRepLKNet, 27), (TransNeXt, 21)],
)
def test_drop_path_rates_grow_over_all_blocks(net, count):
    rates = [m.rate for m in net(drop_path_rate=0.3).modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.3 * k / (count - 1) for k in range(count)])
    assert drop_path_rates(0.5, (1,)) == [[0.0]]


def test_batch_statistics_are_kept_even_when_the_inside_raises():
    norm = nn.BatchNorm2d(2, momentum=0.3)
    with pytest.raises(ZeroDivisionError), batch_statistics_kept(norm):
        norm(torch.randn(4, 2, 3, 3))
        raise ZeroDivisionError
    assert norm.num_batches_tracked == 0
    assert not norm.running_mean.any()
    norm(torch.randn(4, 2, 3, 3))
    assert (norm.num_batches_tracked, norm.momentum) == (1, 0.3)
    assert norm.running_mean.any()


def test_start_values_have_no_outliers():
    # torch's own trunc_normal_ gives -2.0 once in 2**24 draws: 8 times here on the average
    torch.manual_seed(0)
    drawn = torch.empty(2**24)
    for _ in range(8):
        assert truncated_normal_(drawn, 0.02).abs().max() < 0.02 * 7
    assert drawn.std().item() == pytest.approx(0.02, rel=1e-3)
