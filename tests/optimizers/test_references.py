"""Fifty steps against independent implementations, and the execution modes against each other."""

import functools

import pytest

import bocb_mm.optimizers as optimizers

from .models import MODELS, data, difference, groups_of, make, train
from .table import CASES

PAIRS = [(name, label) for name, case in CASES.items() for label in case.references]


@functools.cache
def run(name, model_name, steps=50, **settings):
    """Train with ours; the same call gives the same result, kept."""
    case = CASES[name]
    model = make(model_name)
    groups = groups_of(model, case.lr, 0.05)
    optimizer = optimizers.build_optimizer(name, groups, **settings)
    feed = None
    if name == 'Sophia':
        feed = lambda i: optimizer.update_hessian(512) if i % 10 == 0 else None
    rates = [g['lr'] for g in groups]
    train(model, optimizer, data(steps), rates, after_backward=feed)
    return model


def test_table_has_every_optimizer_with_two_references():
    assert list(CASES) == optimizers.list_optimizers()
    for name, case in CASES.items():
        assert len(case.references) >= 2 or case.missing, name


@pytest.mark.parametrize('model_name', MODELS)
@pytest.mark.parametrize(('name', 'label'), PAIRS)
def test_equals_reference(name, label, model_name):
    reference = CASES[name].references[label]
    model = run(name, model_name, **reference.ours)
    theirs = make(model_name)
    groups = groups_of(theirs, CASES[name].lr, 0.05)
    rates = [g['lr'] for g in groups]
    train(theirs, reference.build(groups), data(50), rates)
    assert difference(model, theirs) < 1e-6


@pytest.mark.parametrize('model_name', MODELS)
@pytest.mark.parametrize('name', CASES)
def test_foreach_equals_default(name, model_name):
    default = run(name, model_name)
    foreach = run(name, model_name, foreach=True)
    assert difference(foreach, default) < 1e-8


@pytest.mark.parametrize(
    ('name', 'settings'),
    [
        ('SGDP', {'nesterov': True}),
        ('LARS', {'nesterov': True}),
        ('LAMB', {'max_grad_norm': 0.0, 'trust_clip': True}),
        ('Adan', {'max_grad_norm': 0.1, 'no_prox': True}),
        ('AdaFactor', {'beta1': 0.9, 'scale_parameter': True}),
        ('AdaBound', {'decoupled_weight_decay': False}),
        ('NovoGrad', {'grad_averaging': True}),
        ('Muon', {'nesterov': False, 'adjust_lr_fn': 'match_rms_adamw'}),
        ('MARS', {'optimize_1d': True}),
        ('AdEMAMix', {'warmup': 15}),
        ('ScheduleFreeAdamW', {'warmup_steps': 15}),
        ('SOAP', {'precondition_frequency': 3, 'max_precondition_dim': 5}),
        ('Prodigy', {'d0': 1e-3, 'use_bias_correction': True, 'safeguard_warmup': False}),
    ],
)
def test_foreach_equals_default_with_other_settings(name, settings):
    default = run(name, 'cnn', steps=20, **settings)
    foreach = run(name, 'cnn', steps=20, foreach=True, **settings)
    plain = run(name, 'cnn', steps=20)
    assert difference(foreach, default) < 1e-10
    assert difference(foreach, plain) > 1e-6, 'the setting has no effect'


OTHERS = {
    'SGDP': ('timm', 'sgdp', {'lr': 1, 'momentum': 0.9, 'nesterov': True}, {'nesterov': True}),
    'LARS': ('timm', 'lars', {'momentum': 0.9, 'nesterov': True}, {'nesterov': True}),
    'LAMB': ('timm', 'lamb', {'trust_clip': True}, {'trust_clip': True}),
    'Adan': ('timm', 'adan', {'no_prox': True}, {'no_prox': True}),
    'NovoGrad': ('timm', 'novograd', {'grad_averaging': True}, {'grad_averaging': True}),
    'MARS': (
        'timm',
        'mars',
        {'betas': (0.95, 0.99), 'optimize_1d': True},
        {'optimize_1d': True},
    ),
    'AdEMAMix': (
        'pytorch_optimizer',
        'ademamix',
        {'weight_decouple': True, 't_alpha_beta3': 30},
        {'warmup': 30},
    ),
    'SOAP': (
        'pytorch_optimizer',
        'soap',
        {'precondition_frequency': 3, 'max_precondition_dim': 5},
        {'precondition_frequency': 3, 'max_precondition_dim': 5},
    ),
    'Prodigy': (
        'pytorch_optimizer',
        'prodigy',
        {'eps': 1e-20, 'd0': 1e-3, 'd_coef': 2.0, 'bias_correction': True},
        {'eps': 1e-20, 'd0': 1e-3, 'd_coef': 2.0, 'use_bias_correction': True}
        | {'safeguard_warmup': False},
    ),
    'AdaBound': (
        'pytorch_optimizer',
        'adabound',
        {'weight_decouple': False},
        {'decoupled_weight_decay': False},
    ),
}


@pytest.mark.parametrize('name', OTHERS)
def test_other_settings_equal_the_library(name):
    from . import table

    library, key, theirs_settings, ours = OTHERS[name]
    make_reference = table.timm if library == 'timm' else table.other
    adapt = {
        'SOAP': table.in_double_with_our_null_space,
        'Prodigy': table.at_one_rate,
    }.get(name, lambda reference: reference)
    model = run(name, 'cnn', **ours)
    theirs = make('cnn')
    groups = groups_of(theirs, CASES[name].lr, 0.05)
    rates = [g['lr'] for g in groups]
    reference = adapt(make_reference(key, **theirs_settings))
    train(theirs, reference.build(groups), data(50), rates)
    assert difference(model, theirs) < 1e-6
