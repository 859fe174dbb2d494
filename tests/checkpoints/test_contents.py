"""Whatever a file holds, its parameters are found, or one line says that there are none."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bocb_mm.checkpoints.contents import CONTAINERS, parameters_of, prefixes, unwrapped
from bocb_mm.errors import CheckpointError

names = st.text('abc._0', min_size=1, max_size=8)
tensors = st.integers(0, 3).map(lambda n: torch.zeros(n))
values = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | tensors | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.integers(), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(content=values)
def test_any_content_gives_tensors_by_name_or_one_line(content):
    try:
        found = parameters_of(content, 'file.pth')
    except CheckpointError as error:
        assert str(error).startswith('file.pth: holds no weights') and '\n' not in str(error)
    else:
        assert found and all(isinstance(k, str) for k in found)
        assert all(isinstance(v, torch.Tensor) for v in found.values())


@given(container=st.sampled_from(CONTAINERS), loose=st.dictionaries(names, tensors, max_size=3))
def test_a_known_container_comes_before_loose_tensors(container, loose):
    state = {'layer.weight': torch.ones(2, 2)}
    assert parameters_of({**loose, container: state}) == state


def test_sparse_weights_are_weights():
    weight = torch.eye(3)
    (found,) = parameters_of({'state_dict': {'a': weight.to_sparse()}}).values()
    assert found.layout == torch.strided and torch.equal(found, weight)


def test_without_a_known_container_the_largest_dict_is_taken():
    small, large = {'a': torch.ones(2)}, {'b': torch.ones(3)}
    assert parameters_of({'first': small, 'second': large, 'step': torch.ones(())}) == large
    assert parameters_of({'model': {'state_dict': small}, 'second': large}) == small
    assert parameters_of({'net': torch.nn.Linear(1, 1)}).keys() == {'weight', 'bias'}


@given(keys=st.lists(names, min_size=1, max_size=6, unique=True), at_least=st.integers(1, 6))
def test_prefixes_are_those_that_enough_names_share(keys, at_least):
    found = list(prefixes(keys, at_least))
    shared = {k[: i + 1] for k in keys for i, c in enumerate(k) if c == '.'} | {''}
    assert set(found) == {p for p in shared if sum(k.startswith(p) for k in keys) >= at_least}
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    'wrapper', ['module.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.']
)
def test_wrappers_are_taken_off_where_all_names_have_them(wrapper):
    state = {'a': 1, 'b.c': 2}
    assert unwrapped({wrapper + k: v for k, v in state.items()}) == state
    mixed = {'module.a': 1, 'b': 2}
    assert unwrapped(mixed) == mixed and unwrapped({}) == {}
