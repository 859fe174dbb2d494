"""What goes into a checkpoint comes out of the safe reader, or is refused before it is written."""

import collections
import datetime
import enum
import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from bocb_mm.checkpoints import load_checkpoint
from bocb_mm.checkpoints.plain import (
    NotPlainError,
    check_optimizer,
    make_plain,
    plain_optimizer,
    restore_settings,
)
from bocb_mm.errors import UserError
from bocb_mm.optimizers.libraries import LIBRARIES


class Kind(enum.Enum):
    ONE = 'one'


class Number(enum.IntEnum):
    TWO = 2


class Text(str):
    pass


Pair = collections.namedtuple('Pair', 'a b')
# What a part of a Runner may hold -> what comes back.
TURNED = [
    (Kind.ONE, 'one'),
    (Number.TWO, 2),
    (Text('a'), 'a'),
    (Path('runs/a'), 'runs/a'),
    (Pair(1, Kind.ONE), (1, 'one')),
    (collections.deque([1, 2], maxlen=2), [1, 2]),
    (range(3), [0, 1, 2]),
    (frozenset({1}), {1}),
    (collections.defaultdict(list, a=[1]), {'a': [1]}),
    (ConfigDict(a=ConfigDict(b=1)), {'a': {'b': 1}}),
    (datetime.date(2024, 5, 1), '2024-05-01'),
    (np.array([1, 'a', None], dtype=object), [1, 'a', None]),
    (np.datetime64('2024-05-01'), '2024-05-01'),
    (np.zeros(1, dtype=[('x', 'i4')]), [(0,)]),
]
KEPT = [
    None, True, 3, -2.5, 1j, 'text', b'bytes', (1, (2, 'a')), [1, [2]], {1, 2}, {'a': {2: [3]}},
    np.float64(1.5), np.int32(4), np.bool_(True), torch.float16, torch.device('cpu'),
    torch.Size([2, 3]), collections.OrderedDict(a=1), math.inf, 2**80,
]  # fmt: skip


def through_a_file(checkpoint, path):
    make_plain(checkpoint)
    torch.save(checkpoint, path)
    return load_checkpoint(path)


@pytest.mark.parametrize(('value', 'back'), [*TURNED, *((v, v) for v in KEPT)], ids=repr)
@pytest.mark.parametrize('part', ['meta', 'message_hub', 'a_hooks_own'])
def test_information_comes_back_as_plain_data(part, value, back, tmp_path):
    found = through_a_file({part: {'x': [value]}}, tmp_path / 'a.pth')[part]['x'][0]
    assert found == back and type(found) is type(back)


leaves = st.one_of(
    st.sampled_from([value for value, _ in TURNED if not isinstance(value, np.ndarray)]),
    st.sampled_from(KEPT),
    st.floats(),
    st.text(),
)
information = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.lists(parts, max_size=3),
        st.dictionaries(st.one_of(st.text(), st.integers(), st.just(Kind.ONE)), parts, max_size=3),
        st.lists(parts, max_size=3).map(collections.deque),
        st.tuples(parts, parts).map(lambda pair: Pair(*pair)),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(information)
def test_any_information_can_be_saved_and_read(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / 'any.pth'
    assert set(through_a_file({'meta': {'x': value}}, path)['meta']) == {'x'}


def test_tensors_arrays_and_histories_keep_their_numbers(tmp_path):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    hub = {'log_scalars': {'loss': history}, 'x': torch.eye(2), 'y': np.arange(3)}
    back = through_a_file({'message_hub': hub}, tmp_path / 'a.pth')['message_hub']
    assert back['log_scalars']['loss'].data[0].tolist() == [1.0, 2.0]
    assert back['log_scalars']['loss'].mean() == 1.5
    assert torch.equal(back['x'], torch.eye(2)) and back['y'].tolist() == [0, 1, 2]


@pytest.mark.parametrize('value', [object(), torch.Generator(), np.random.default_rng(), len])
def test_information_that_is_no_data_is_refused_with_its_place(value):
    with pytest.raises(NotPlainError, match=r'message_hub\.runtime_info\.x\.1 holds a '):
        make_plain({'message_hub': {'runtime_info': {'x': [0, value]}}})


CODE = [math.cos, len, functools.partial(max, 1), int, Kind.ONE, math, Text('x').upper]


@pytest.mark.parametrize('code', CODE)
def test_settings_that_are_code_are_left_out_and_come_from_the_new_run(code, tmp_path):
    p = torch.nn.Parameter(torch.ones(2))
    wrapper = type('Wrapper', (), {'optimizer': torch.optim.SGD([p], lr=0.1)})
    wrapper.optimizer.param_groups[0]['how'] = code
    checkpoint = {
        'optimizer': wrapper.optimizer.state_dict(),
        'param_schedulers': [{'anneal': code, 'step': 4}],
    }
    back = through_a_file(checkpoint, tmp_path / 'a.pth')
    assert back['param_schedulers'] == [{'step': 4}]
    assert 'how' not in back['optimizer']['param_groups'][0]
    restore_settings(back['optimizer'], wrapper)
    assert back['optimizer']['param_groups'][0]['how'] == code
    assert back['optimizer']['param_groups'][0]['lr'] == 0.1


@pytest.mark.parametrize('value', [collections.deque([1]), Kind.ONE, object(), frozenset()])
def test_state_that_would_come_back_otherwise_is_refused(value):
    with pytest.raises(NotPlainError, match=r'optimizer\.state\.0\.queue holds a '):
        plain_optimizer({'state': {0: {'queue': value}}, 'param_groups': []})


SCHEDULERS = {
    'StepLR': dict(step_size=2), 'MultiStepLR': dict(milestones=[2, 2, 4]), 'ConstantLR': {},
    'ExponentialLR': dict(gamma=0.9), 'CosineAnnealingLR': dict(T_max=6), 'LinearLR': dict(end=4),
    'PolyLR': dict(end=6), 'OneCycleLR': dict(eta_max=0.1, total_steps=8),
    'CosineRestartLR': dict(periods=[3, 3], restart_weights=[1, 0.5], eta_min=0),
    'ReduceOnPlateauLR': dict(monitor='loss', patience=0, by_epoch=True),
}  # fmt: skip


@pytest.mark.parametrize('kind', SCHEDULERS)
def test_every_schedule_goes_on_where_it_was_saved(kind, tmp_path):
    from mmengine.optim import scheduler as schedules

    def build():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
        return optimizer, getattr(schedules, kind)(
            optimizer, **(dict(by_epoch=False) | SCHEDULERS[kind])
        )

    def step(schedule):
        schedule.step({'loss': 1.0}) if kind == 'ReduceOnPlateauLR' else schedule.step()

    optimizer, schedule = build()
    for _ in range(3):
        step(schedule)
    back = through_a_file({'param_schedulers': [schedule.state_dict()]}, tmp_path / 'a.pth')
    again, resumed = build()
    resumed.load_state_dict(back['param_schedulers'][0])
    again.param_groups[0].update(
        optimizer.param_groups[0] | {'params': again.param_groups[0]['params']}
    )
    for _ in range(3):
        step(schedule)
        step(resumed)
        assert again.param_groups[0]['lr'] == optimizer.param_groups[0]['lr']


def test_several_optimizers_are_several_states():
    state = {
        'generator': {'state': {0: {'m': object()}}, 'param_groups': [{'f': max, 'lr': 1}]},
    }
    with pytest.raises(NotPlainError, match=r'optimizer\.generator\.state\.0\.m holds'):
        plain_optimizer(state)
    state['generator']['state'] = {}
    assert plain_optimizer(state)['generator']['param_groups'] == [{'lr': 1}]


def test_every_optimizer_of_the_libraries_is_saved_whole_or_refused(tmp_path):
    """Names that cannot be built with a rate alone, or not stepped so, are not looked at."""
    from pytorch_optimizer import get_supported_optimizers
    from timm.optim import list_optimizers

    slow = {'kron', 'kronw', 'kronwd', 'splus', 'scalableshampoo'}
    names = [('timm', n) for n in list_optimizers()]
    names += [('pytorch_optimizer', n) for n in get_supported_optimizers()]
    saved, refused = [], []
    for library, name in names:
        if name in slow:
            continue
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in ((8, 6), (4,))]
        try:
            optimizer = LIBRARIES[library](name)(params=parameters, lr=0.01)
            for p in parameters:
                p.grad = torch.randn_like(p)
            with torch.compiler.set_stance('force_eager'):
                optimizer.step()
        except (UserError, TypeError, ValueError, RuntimeError, AssertionError, IndexError):
            continue
        wrapper = type('Wrapper', (), {'optimizer': optimizer})
        try:
            check_optimizer(wrapper)
        except NotPlainError:
            refused.append(name)
            continue
        back = through_a_file({'optimizer': optimizer.state_dict()}, tmp_path / 'a.pth')
        restore_settings(back['optimizer'], wrapper)
        state = back['optimizer'].get('base', back['optimizer'])  # magma's is around another's
        groups = zip(state['param_groups'], optimizer.param_groups, strict=True)
        assert all(saved_.keys() == built.keys() for saved_, built in groups), name
        saved.append(name)
    assert len(saved) > 120, saved
    assert {'conda', 'adashift'} <= set(refused) and len(refused) < 8, refused
