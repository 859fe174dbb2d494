"""What the constructor and groups refuse, for each of the twenty: one clear line."""

import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import bocb_mm.optimizers as optimizers
from bocb_mm.errors import UserError
from bocb_mm.optimizers.strict import check_numbers

from .table import CASES

ALL = pytest.mark.parametrize('name', CASES)


def weight():
    return nn.Parameter(torch.ones(2, 3))


NOT_PARAMETERS = {
    'empty list': ([], 'empty'),
    'used up generator': ((p for p in ()), 'empty.*used up'),
    'set': ({weight()}, 'a set'),
    'one tensor': (weight(), 'one tensor'),
    'module': (nn.Linear(2, 2), r'Linear.*\.parameters\(\)'),
    'a number': (3, 'int'),
    'a name': ('weight', 'str'),
    'one group': ({'params': [weight()]}, 'dict'),
    'number among tensors': ([weight(), 3.0], 'entry 1.*float'),
    'names': (dict(nn.Linear(2, 2).named_parameters()).keys(), 'entry 0.*str'),
    'group without parameters': ([{'lr': 0.1}], r"group 0.*\['lr'\]"),
    'group of a set': ([{'params': {weight()}}], 'a set'),
    'group of a used up generator': ([{'params': (p for p in ())}], 'used up'),
    'tensor after a group': ([{'params': [weight()]}, weight()], 'group 1.*Parameter'),
    'not a leaf': ([weight() * 2], 'leaf'),
    'twice': ([{'params': [p := weight()]}, {'params': [p]}], 'more than one'),
}


@ALL
@pytest.mark.parametrize('kind', NOT_PARAMETERS)
def test_what_are_no_parameters(name, kind):
    params, expected = NOT_PARAMETERS[kind]
    with pytest.raises(UserError, match=expected) as caught:
        optimizers.build_optimizer(name, params)
    assert '\n' not in str(caught.value)


@ALL
def test_parameters_in_any_form_torch_takes(name):
    net = nn.Linear(3, 2)
    forms = [
        net.parameters(),
        net.named_parameters(),
        tuple(net.parameters()),
        [{'params': net.parameters()}],
        [{'params': net.weight}, {'params': (net.bias,), 'lr': 0.5}],
        [{'params': [net.weight, net.bias]}, {'params': []}],
        [{'params': net.named_parameters(), 'lr': 0.1}],
    ]
    for form in forms:
        groups = optimizers.build_optimizer(name, form).param_groups
        assert [p.shape for g in groups for p in g['params']] == [(2, 3), (2,)]


# what mmengine, the layer-decay constructors of mmdet, mmpose, mmpretrain and timm, schedulers of
# torch and mmengine, and bocb_mm.OptimWrapperConstructor write into groups
FOREIGN_KEYS = {
    'name': 'norm+bias',
    'role': 'norm',
    'param_names': ['a'],
    'param_name': 'a',
    'group_name': 'layer_0',
    'layer_id': 0,
    'lr_scale': 0.5,
    'lr_mult': 0.1,
    'decay_mult': 1.0,
    'initial_lr': 0.1,
    'initial_momentum': 0.9,
    'max_lr': 1.0,
    'min_lr': 1e-6,
    'swa_lr': 0.1,
}


@ALL
def test_keys_of_a_group(name):
    optimizer = optimizers.build_optimizer(name, [{'params': [weight()], **FOREIGN_KEYS}])
    assert optimizer.param_groups[0]['lr_scale'] == 0.5
    for build in (
        lambda group: optimizers.build_optimizer(name, [group]),
        lambda group: optimizer.add_param_group(group | {'param_names': ['b']}),
    ):
        with pytest.raises(UserError, match=r'weigth_decay.*did you mean weight_decay\?'):
            build({'params': [weight()], 'weigth_decay': 0.1})
    assert len(optimizer.param_groups) == 1


def bad_values(name):
    """For each numeric setting a value that no optimizer takes, and text."""
    defaults = inspect.signature(optimizers.get_spec(name).cls).parameters
    for key, p in defaults.items():
        if key in ('lr', 'weight_decay', 'eps'):
            yield from ((key, v) for v in (-1.0, float('nan'), '5e-2', 'much', None))
        elif key == 'betas':
            n = len(p.default)
            yield from ((key, v) for v in ((0.5,) * (n + 1), (1.0,) * n, (-0.1,) * n, 0.9, '0.9'))
        elif key in ('momentum', 'rho', 'alpha', 'lr_decay', 'initial_accumulator_value'):
            yield from ((key, v) for v in (-1.0, '0.9'))


BAD = [(name, key, value) for name in CASES for key, value in bad_values(name)]


@pytest.mark.parametrize(('name', 'key', 'value'), BAD)
def test_values_out_of_range_at_the_top_and_in_a_group(name, key, value):
    good = {'params': [weight()]}
    optimizer = optimizers.build_optimizer(name, [good])
    bad = {'params': [weight()], key: value}
    for build in (
        lambda: optimizers.build_optimizer(name, [weight()], **{key: value}),
        lambda: optimizers.build_optimizer(name, [bad]),
        lambda: optimizer.add_param_group(bad),
    ):
        with pytest.raises(UserError, match=key) as caught:
            build()
        assert '\n' not in str(caught.value)
    assert len(optimizer.param_groups) == 1


def test_a_number_that_yaml_reads_as_text():
    import yaml

    value = yaml.safe_load('lr: 5e-2')['lr']
    assert value == '5e-2'
    with pytest.raises(UserError, match=r"lr='5e-2' is text, not a number; write 0\.05$"):
        optimizers.SGD([weight()], lr=value)


@given(st.floats(1e-30, 1e30))
def test_the_number_that_yaml_takes_is_one(number):
    import yaml

    with pytest.raises(UserError) as caught:
        check_numbers({'lr': str(number)})
    told = yaml.safe_load(str(caught.value).rsplit(' ', 1)[1])
    assert told == number
