import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bocb_mm.errors import UserError
from bocb_mm.optimizers import get_spec, list_optimizers
from bocb_mm.search import plan as plans
from bocb_mm.search.place import parse
from bocb_mm.search.plan import Cell, Grid, Plan, catalog_grid, next_value

numbers = st.floats(0, 1e6, allow_nan=False)


@given(st.builds(Cell, st.text(), st.text(), numbers, numbers, st.integers(0, 99)))
def test_a_cell_survives_the_database(cell):
    assert Cell.loads(cell.dumps()) == cell


def test_a_plan_survives_the_database():
    plan = Plan((Grid('a.py', 'SGD', (0.1, 0.2), (0.0,), recipe='pytorch'),), (0, 1), halving=3)
    assert Plan.from_json(plan.to_json()) == plan
    with pytest.raises(UserError, match='another version'):
        Plan.from_json({**plan.to_json(), 'version': 99})


def test_a_plan_is_the_product_and_one_seed_comes_before_the_next():
    grids = (Grid('a.py', 'SGD', (0.1, 0.2), (0.0, 1e-4)), Grid('b.py', 'SGD', (1.0,), (0.0,)))
    cells = list(Plan(grids, (0, 1)).cells())
    assert len(cells) == len(set(cells)) == 10
    assert [cell.seed for cell in cells] == [0] * 5 + [1] * 5


@pytest.mark.parametrize('name', list_optimizers())
def test_the_grid_is_the_middle_of_the_catalogs_and_grows_back_to_it(name):
    """3x3 and every next value at both ends: the catalog's 5x5, for each of its optimizers."""
    five = get_spec(name).search_grid('classification', 'pytorch-cifar', 5)
    three = catalog_grid('a.py', name, 'classification', 'pytorch-cifar', (3, 3))
    for key in ('lr', 'weight_decay'):
        values = getattr(three, key)
        if get_spec(name).default('classification').weight_decay == 0 and key == 'weight_decay':
            assert values[0] == 0 and next_value(three, key, up=False) is None
            assert next_value(three, key, up=True) > values[-1]
            continue
        assert values == five[key][1:4]
        ends = next_value(three, key, up=False), next_value(three, key, up=True)
        assert ends == (five[key][0], five[key][-1])


def test_rates_that_were_given_go_on_in_their_own_ratio():
    grid = Grid('a.py', 'SGD', (0.3, 0.9), (0.0, 0.7))
    assert next_value(grid, 'lr', up=True) == pytest.approx(2.7)
    assert next_value(grid, 'lr', up=False) == pytest.approx(0.1)
    assert next_value(grid, 'weight_decay', up=True) == pytest.approx(1.4)
    assert next_value(dataclasses.replace(grid, lr=(0.3,)), 'lr', up=True) == pytest.approx(0.6)


def test_a_trial_has_the_directory_that_train_py_would_give_it():
    cell = Cell('configs/net.py', 'LARS', 0.1, 1e-4, 2)
    assert str(cell.directory('work_dirs/s')) == 'work_dirs/s/net/LARS/lr0.1_wd0.0001_seed2'
    assert Cell('mmdet::retinanet/r50.py', 'SGD', 1, 0, 0).stem == 'r50'


@pytest.mark.parametrize(
    ('call', 'words'),
    [
        (lambda: plans.parse_size('5'), ["'5'", '5x5']),
        (lambda: plans.parse_size('4x4'), ["'4x4'", 'odd']),
        (lambda: plans.positive('--lr', [0.0]), ['--lr 0.0', '> 0']),
        (lambda: plans.positive('--lr', [float('nan')]), ['--lr nan']),
        (lambda: plans.positive('--weight-decay', [-1.0], zero=True), ['-1.0', '>= 0']),
        (lambda: plans.check_stems(['a/x.py', 'b/x.py']), ['a/x.py', 'b/x.py', 'rename']),
        (lambda: parse('study'), ["'study'", 'NAME.db']),
        (lambda: parse('mysql://me:secret@host/x'), ['mysql', 'postgresql://']),
        (lambda: parse('postgresql://me:secret@host'), ['database']),
    ],
)
def test_a_mistake_is_named(call, words):
    with pytest.raises(UserError) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
    assert 'secret' not in str(caught.value)


def test_a_password_is_not_shown():
    place = parse('postgresql://me:secret@host/bocb#cifar')
    assert 'secret' not in str(place) and 'cifar' in str(place)
    assert place.url == 'postgresql+psycopg://me:secret@host/bocb' and place.name == 'cifar'
    assert parse('postgres://host/bocb?sslmode=require').name == 'bocb'
