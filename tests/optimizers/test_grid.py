"""The values of a search: the grid around a default, and what follows beyond its ends."""

import pytest

from bocb_mm.optimizers import get_spec, list_optimizers

WHERE = 'classification', 'pytorch-cifar'


@pytest.mark.parametrize('name', list_optimizers())
def test_a_small_grid_is_the_middle_of_the_large_one_and_grows_back_to_it(name):
    """3x3 and every next value at both ends: the 5x5."""
    spec = get_spec(name)
    five, three = spec.search_grid(*WHERE, 5), spec.search_grid(*WHERE, 3)
    for key, values in three.items():
        down, up = (spec.next_value(key, values, up, *WHERE) for up in (False, True))
        if spec.default('classification').weight_decay == 0 and key == 'weight_decay':
            assert values[0] == 0 and down is None and up > values[-1]
            continue
        assert values == five[key][1:4]
        assert (down, up) == (five[key][0], five[key][-1])


@pytest.mark.parametrize('optimizer', ['SGD', 'timm.lamb'])
@pytest.mark.parametrize('recipe', [None, 'one of their own'])
def test_values_that_were_given_go_on_in_their_own_ratio(optimizer, recipe):
    def following(values, key, up):
        return get_spec(optimizer).next_value(key, values, up, 'classification', recipe)

    assert following((0.3, 0.9), 'lr', True) == pytest.approx(2.7)
    assert following((0.3, 0.9), 'lr', False) == pytest.approx(0.1)
    assert following((0.0, 0.7), 'weight_decay', True) == pytest.approx(1.4)
    assert following((0.0, 0.7), 'weight_decay', False) is None
    assert following((0.3,), 'lr', True) == pytest.approx(0.6)
