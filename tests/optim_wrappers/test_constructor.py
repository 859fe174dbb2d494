"""The constructor as a config reaches it: by name, with stock keys, with every optimizer."""

from __future__ import annotations

import logging

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper, build_optim_wrapper

from bocb_mm.errors import UserError
from bocb_mm.optimizers import get_spec, list_optimizers
from tests.optim_wrappers.toy import ToyNet, toy_batch


def build(model, optimizer='bocb_mm.AdamW', paramwise=None, **wrapper):
    optimizer = optimizer if isinstance(optimizer, dict) else {'type': optimizer, 'lr': 0.01}
    cfg = {'constructor': 'bocb_mm.OptimWrapperConstructor', 'optimizer': optimizer, **wrapper}
    if paramwise is not None:
        cfg['paramwise_cfg'] = paramwise
    return build_optim_wrapper(model, cfg)


# those with two halves, which this network does not have: test_matrix_half.py
ONE_HALF = [n for n in list_optimizers() if not hasattr(get_spec(n).cls, 'halves')]


@pytest.mark.parametrize('name', ONE_HALF)
def test_the_same_groups_for_every_optimizer(name):
    wrapper = build(ToyNet(), {'type': f'bocb_mm.{name}', 'lr': 0.01, 'weight_decay': 0.1})
    assert isinstance(wrapper, OptimWrapper)
    groups = wrapper.optimizer.param_groups
    assert [g['role'] for g in groups] == ['norm+layer_scale+bias', 'weight']
    assert [g['weight_decay'] for g in groups] == [0.0, 0.1]
    assert [len(g['params']) for g in groups] == [4, 2]


def test_a_rate_that_is_text_is_refused():
    with pytest.raises(UserError, match=r"lr='5e-2' is text, not a number; write 0\.05"):
        build(ToyNet(), {'type': 'bocb_mm.SGD', 'lr': '5e-2'}, {'bias_lr_mult': 2.0})


@pytest.mark.parametrize('name', ['LARS', 'LAMB'])
def test_adaptation_exclusions_are_explicit(name):
    adapt = [g['adapt'] for g in build(ToyNet(), f'bocb_mm.{name}').optimizer.param_groups]
    assert adapt == [False, True]
    # Other roles, and adaptation of everything.
    groups = build(ToyNet(), f'bocb_mm.{name}', {'no_adapt': ['bias']}).optimizer.param_groups
    assert {g['role']: g['adapt'] for g in groups} == {
        'norm+layer_scale': True,
        'bias': False,
        'weight': True,
    }
    # The documented plain variant stays as asked for.
    off = build(ToyNet(), {'type': f'bocb_mm.{name}', 'lr': 0.1, 'adapt': False})
    assert not any(g['adapt'] for g in off.optimizer.param_groups)


def test_adapt_is_not_given_to_others():
    assert all('adapt' not in g for g in build(ToyNet(), 'bocb_mm.SGD').optimizer.param_groups)


def test_stock_optimizer_and_stock_paramwise_cfg():
    """A bare name of torch, and the paramwise_cfg of mmdet's Swin configs, taken as they are."""
    paramwise = {
        'norm_decay_mult': 0.0,
        'bypass_duplicate': True,
        'custom_keys': {
            'absolute_pos_embed': {'decay_mult': 0.0},
            'relative_position_bias_table': {'decay_mult': 0.0},
            'norm': {'decay_mult': 0.0},
        },
    }
    wrapper = build(ToyNet(), {'type': 'SGD', 'lr': 0.1, 'weight_decay': 0.3}, paramwise)
    assert type(wrapper.optimizer) is torch.optim.SGD
    assert sorted(g['weight_decay'] for g in wrapper.optimizer.param_groups) == [0.0, 0.3]


def test_the_optimizers_default_decay_is_the_base():
    """torch's AdamW decays by 0.01 when the config does not say; a multiplier starts from that."""
    wrapper = build(ToyNet(), {'type': 'AdamW', 'lr': 0.1}, {'bias_decay_mult': 0.5})
    decays = {g['role']: g['weight_decay'] for g in wrapper.optimizer.param_groups}
    assert decays == {'weight': 0.01, 'bias': 0.005, 'norm+layer_scale': 0.0}


REFUSED = {
    'key': ({'norm_decay_mul': 0}, "did you mean 'norm_decay_mult'"),
    'setting': ({'custom_keys': {'head': {'lr_mul': 1}}}, "unknown setting 'lr_mul'.*'lr_mult'"),
    'group': ({'custom_keys': {'head': {'momentun': 1}}}, "unknown setting 'momentun'.*'momentum'"),
}


@pytest.mark.parametrize('case', REFUSED)
def test_misspelt(case):
    paramwise, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        build(ToyNet(), 'bocb_mm.SGD', paramwise)


def test_a_custom_key_that_matches_nothing_is_told(caplog):
    from mmengine.logging import MMLogger

    logger = MMLogger.get_instance('constructor-test')
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.WARNING):
        build(ToyNet(), paramwise={'custom_keys': {'bakbone': {'lr_mult': 0.1}}})
    assert "custom_keys: 'bakbone' is part of no parameter name" in caplog.text


def test_ddp_is_looked_through(gloo):
    model = ToyNet()
    wrapper = build(MMDistributedDataParallel(model, device_ids=None))
    held = {id(p) for g in wrapper.optimizer.param_groups for p in g['params']}
    assert held == {id(p) for p in model.parameters()}


@pytest.fixture
def gloo(tmp_path):
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/gloo', rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    'wrapper',
    [
        {'type': 'OptimWrapper'},
        {'type': 'OptimWrapper', 'accumulative_counts': 2},
        {'type': 'OptimWrapper', 'clip_grad': {'max_norm': 0.1}},
        {'type': 'bocb_mm.AmpOptimWrapper', 'dtype': 'bfloat16'},
        {'type': 'bocb_mm.AmpOptimWrapper', 'dtype': 'float16', 'clip_grad': {'max_norm': 1.0}},
    ],
    ids=str,
)
def test_trains_under_every_wrapper(wrapper):
    torch.manual_seed(0)
    model, batch = ToyNet(), toy_batch()
    optim_wrapper = build(model, {'type': 'bocb_mm.AdamW', 'lr': 0.05}, **wrapper)
    losses = [float(model.train_step(batch, optim_wrapper)['loss']) for _ in range(12)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize('kind', ['OptimWrapper', 'bocb_mm.AmpOptimWrapper'])
def test_in_a_runner_with_ema_accumulation_and_clipping(kind, tmp_path):
    """Everything at once, as a config asks for it; the weights move and the EMA follows."""
    from tests import tiny_training

    runner = tiny_training.runner(
        tmp_path,
        optim_wrapper={
            'type': kind,
            'constructor': 'bocb_mm.OptimWrapperConstructor',
            'optimizer': {'type': 'bocb_mm.Adan', 'lr': 0.05, 'weight_decay': 0.02},
            'paramwise_cfg': {'head_lr_mult': 2.0},
            'accumulative_counts': 2,
            'clip_grad': {'max_norm': 1.0},
        },
        custom_hooks=[{'type': 'EMAHook', 'momentum': 0.2}],
    )
    start = tiny_training.weights(runner)
    runner.train()
    end = tiny_training.weights(runner)
    assert all(not torch.equal(start[k], end[k]) for k in ('conv.weight', 'head.weight'))
    ema = torch.load(tmp_path / 'epoch_3.pth', weights_only=False)['ema_state_dict']
    assert len(ema) > len(end)
    rates = {g['role']: g['lr'] for g in runner.optim_wrapper.optimizer.param_groups}
    assert len(runner.optim_wrapper.optimizer.param_groups) == 4 and len(set(rates.values())) == 2
