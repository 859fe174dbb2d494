"""What a saved state must be, for each of the twenty and for the libraries' optimizers."""

import copy

import pytest
import torch
from torch import nn

import bocb_mm.optimizers as optimizers
from bocb_mm.errors import UserError
from bocb_mm.optimizers.libraries import LIBRARIES, timm_optimizer

from .table import CASES

ALL = pytest.mark.parametrize('name', CASES)


def stepped(build, model, steps=2):
    optimizer = build(model.parameters())
    torch.manual_seed(0)
    for _ in range(steps):
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
    return optimizer


def of(name):
    return lambda params: optimizers.build_optimizer(name, params, lr=1e-3)


@pytest.mark.parametrize('classes', [2, 5000], ids=['larger before', 'smaller before'])
@ALL
def test_a_changed_number_of_classes_is_refused(name, classes):
    saved = stepped(of(name), nn.Linear(32, 4)).state_dict()
    fresh = of(name)(nn.Linear(32, classes).named_parameters())
    before = copy.deepcopy(fresh.state_dict())
    with pytest.raises(
        UserError, match=rf"'weight'.*\({classes}, 32\).*\((4, 32|4, 4|4,)\)"
    ) as caught:
        fresh.load_state_dict(saved)
    assert '\n' not in str(caught.value)
    assert repr(fresh.state_dict()) == repr(before)  # nothing is half loaded


def test_without_names_the_number_of_the_parameter_is_told():
    saved = stepped(of('AdamW'), nn.Linear(32, 4)).state_dict()
    del saved['state'][0]
    with pytest.raises(UserError, match=r'parameter 1 has shape \(7,\), its saved exp_avg has'):
        of('AdamW')(nn.Linear(32, 7).parameters()).load_state_dict(saved)


@ALL
def test_another_number_of_parameters_or_groups_is_refused(name):
    saved = stepped(of(name), nn.Linear(3, 2)).state_dict()
    for model, groups in ((nn.Linear(3, 2, bias=False), 1), (nn.Linear(3, 2), 2)):
        params = list(model.parameters())
        if groups == 2:
            params = [{'params': [p]} for p in params]
        with pytest.raises(UserError, match=r'groups of \[2\] parameters'):
            of(name)(params).load_state_dict(saved)
    for nonsense in ({}, {'state': {}}, []):
        with pytest.raises(UserError, match='param_groups'):
            of(name)(nn.Linear(3, 2).parameters()).load_state_dict(nonsense)


@pytest.mark.parametrize(('library', 'other'), [(timm_optimizer, 'lamb'), (timm_optimizer, 'sgdp')])
@ALL
def test_the_state_of_another_optimizer_is_refused(name, library, other):
    model = nn.Linear(3, 2)
    saved = stepped(lambda params: library(other)(params=params, lr=1e-3), model).state_dict()
    with pytest.raises(UserError, match='the state of parameter .* has .*, expected .*'):
        of(name)(model.parameters()).load_state_dict(saved)


def test_half_precision_goes_on_as_if_it_had_not_been_saved():
    """SOAP keeps its bases in float32 beside weights of bfloat16, and has no QR of them."""
    from bocb_mm.optimizers import build_optimizer

    def train(model, optimizer, n):
        for k in range(n):
            generator = torch.Generator().manual_seed(k)
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
            optimizer.step()

    model = nn.Linear(5, 4).bfloat16()
    optimizer = build_optimizer('SOAP', model.parameters(), lr=0.01)
    train(model, optimizer, 12)
    twin = copy.deepcopy(model)
    resumed = build_optimizer('SOAP', twin.parameters(), lr=0.01)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, optimizer, 12)
    train(twin, resumed, 12)
    assert all(map(torch.equal, model.parameters(), twin.parameters()))


def test_sgd_without_momentum_takes_a_state_of_older_torch():
    from bocb_mm.optimizers import build_optimizer

    model = nn.Linear(3, 2)
    optimizer = build_optimizer('SGD', model.parameters(), lr=0.1, momentum=0, fused=True)
    saved = optimizer.state_dict()
    saved['state'] = {k: {'momentum_buffer': None} for k in range(2)}
    optimizer.load_state_dict(saved)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
@ALL
def test_state_follows_the_parameters_in_dtype(name, dtype):
    """Also of 0-dim parameters; counters keep their own."""
    model = nn.ParameterList([torch.ones(()), torch.ones(2, 3)])
    saved = stepped(of(name), model).state_dict()
    other = copy.deepcopy(model).to(dtype)
    fresh = of(name)(other.parameters())
    fresh.load_state_dict(saved)
    for k, p in enumerate(other):
        like = torch.empty(p.shape, dtype=dtype, device='meta')
        example = fresh.example_state(like, fresh.param_groups[0])
        for key, value in fresh.state[p].items():
            if key not in ('step', 'mu_product'):
                assert value.dtype == example[key].dtype and value.shape == example[key].shape
            else:
                assert float(value) == float(saved['state'][k][key])
                assert getattr(value, 'dtype', None) == getattr(
                    saved['state'][k][key], 'dtype', None
                )
        p.grad = torch.ones_like(p)
    fresh.step()


@ALL
def test_hooks_of_the_user_adapt_a_state_first(name):
    """A hook that takes out what does not fit, as torch's documentation describes."""
    saved = stepped(of(name), nn.Linear(32, 4)).state_dict()
    fresh = of(name)(nn.Linear(32, 7).parameters())
    fresh.register_load_state_dict_pre_hook(lambda _, state: state | {'state': {}})
    fresh.load_state_dict(saved)
    assert not fresh.state
    fresh = of(name)(nn.Linear(32, 4).parameters())
    fresh.load_state_dict(saved)  # the check of the first one left no trace
    assert len(fresh.state) == 2


@ALL
def test_settings_that_are_new_since_take_their_defaults(name):
    optimizer = stepped(of(name), model := nn.Linear(3, 2))
    saved = optimizer.state_dict()
    del saved['param_groups'][0]['weight_decay']
    fresh = optimizers.build_optimizer(name, model.parameters(), weight_decay=0.25)
    fresh.load_state_dict(saved)
    assert fresh.param_groups[0]['weight_decay'] == 0.25


@ALL
def test_a_setting_out_of_range_is_refused(name):
    saved = stepped(of(name), model := nn.Linear(3, 2)).state_dict()
    saved['param_groups'][0]['lr'] = -1.0
    with pytest.raises(UserError, match='lr=-1'):
        of(name)(model.parameters()).load_state_dict(saved)


# state that lies as the parameter, in a dict, factored, as preconditioners, of elements chosen
OF_LIBRARIES = [
    *('timm.lamb', 'timm.adafactor', 'timm.adafactorbv', 'timm.kron'),
    *('pytorch_optimizer.aggmo', 'pytorch_optimizer.sm3', 'pytorch_optimizer.came'),
    *('pytorch_optimizer.shampoo', 'pytorch_optimizer.soap', 'pytorch_optimizer.alice'),
    *('pytorch_optimizer.sara', 'pytorch_optimizer.prodigy', 'pytorch_optimizer.magma'),
]


def network(classes):
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(72, classes))


@pytest.mark.parametrize('name', OF_LIBRARIES)
def test_states_of_the_libraries(name):
    library, _, name = name.partition('.')

    def build(params):
        return LIBRARIES[library](name)(params=params, lr=1e-3)

    with torch.compiler.set_stance('force_eager'):
        saved = copy.deepcopy(stepped(build, network(4)).state_dict())
        build(network(4).parameters()).load_state_dict(saved)
    with pytest.raises(UserError, match='its saved .* has '):
        build(network(50).parameters()).load_state_dict(saved)


@ALL
def test_the_state_of_ours_is_refused_by_a_library(name):
    saved = stepped(of(name), model := nn.Linear(3, 2)).state_dict()
    with pytest.raises(UserError, match='belongs to another optimizer'):
        timm_optimizer('lamb')(params=model.parameters(), lr=1e-3).load_state_dict(saved)
