import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bocb_mm.errors import UserError
from bocb_mm.runs.record import RunRecord
from bocb_mm.search.plan import PLAN_FILE, Cell, Plan
from bocb_mm.search.study import Study

numbers = st.floats(0, 1e6, allow_nan=False)
options = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=2)
cells = st.builds(Cell, st.text(), st.text(), numbers, numbers, st.integers(0, 99), options)


@settings(max_examples=50)
@given(st.lists(cells, max_size=4))
def test_a_plan_survives_the_disk(tmp_path, some):
    plan = Plan(tuple(some), {'net.py': {'task': 'pose', 'recipe': None}}, {'a.b': [1, None]})
    plan.save(tmp_path)
    assert Plan.load(tmp_path) == plan


@given(st.data())
def test_a_damaged_plan_is_refused_in_one_line(tmp_path, data):
    plan = Plan((Cell('net.py', 'SGD', 0.1, 0.0),), retries=2)
    plan.save(tmp_path)
    file = tmp_path / PLAN_FILE
    whole = file.read_bytes()
    k = data.draw(st.integers(0, len(whole) - 2))
    change = data.draw(
        st.sampled_from(
            [whole[:k], whole[:k] + b'7' + whole[k + 1 :], whole[:k] + b'\xff' + whole[k:]]
        )
    )
    file.write_bytes(change)
    try:
        found = Plan.load(tmp_path)
    except UserError as error:
        assert str(file) in str(error)
    else:  # what may move with the directory is not protected, nor is a change that changes nothing
        assert (found.cells, found.retries) == (plan.cells, plan.retries)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('[]', 'is no plan'),
        ('{}', 'is no plan'),
        ('{"schema_version": 99, "hash": ""}', 'another version of bocb_mm (schema 99'),
        ('{"schema_version": 1, "hash": ""}', 'changed by hand'),
        ('nonsense', 'cannot be read'),
        ('[' * 100_000, 'cannot be read'),
    ],
)
def test_what_is_no_plan_is_refused(text, words, tmp_path):
    (tmp_path / PLAN_FILE).write_text(text)
    with pytest.raises(UserError) as caught:
        Plan.load(tmp_path)
    assert words in str(caught.value)


def test_trials_that_differ_have_directories_of_their_own(tmp_path):
    plain = Cell('configs/net.py', 'LARS', 0.1, 1e-4, 2)
    assert str(plain.directory('s')) == 's/net/LARS/lr0.1_wd0.0001_seed2'
    kinds = [
        plain,
        Cell('configs/net.py', 'LARS', 0.1, 1e-4, 2, {'a': 1}),
        Cell('configs/net.py', 'LARS', 0.1, 1e-4, 2, {'a': 2}),
        Cell('configs/net.py', 'LARS', 0.1, 1e-4, 2, {}, 'none'),
    ]
    assert len({cell.directory(tmp_path) for cell in kinds}) == 4
    assert Cell('mmdet::retinanet/r50.py', 'SGD', 1, 0).stem == 'r50'


def test_two_configs_of_one_name_are_refused(tmp_path):
    with pytest.raises(UserError, match='a/x.py and b/x.py: two configs are called x; rename one'):
        Plan((Cell('a/x.py', 'SGD', 1, 0),)).with_cells([Cell('b/x.py', 'SGD', 1, 0)])


def test_one_config_by_two_paths_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'net.py').touch()
    other = [Cell(path, 'SGD', 1, 0) for path in ('./net.py', str(tmp_path / 'net.py'))]
    plan = Plan((Cell('net.py', 'SGD', 1, 0),), folder=str(tmp_path)).with_cells(other)
    assert [cell.config for cell in plan.cells] == ['net.py']


def test_a_run_that_is_there_already_is_not_counted_as_the_study_s(make_study, tmp_path):
    study = make_study([1], configs={'net.py': {}})
    other = Cell('net.py', 'SGD', 2.0, 0.0)
    run = RunRecord('classification', 'd', 'net', 'SGD', status='completed')
    study.directory_of(other).mkdir(parents=True)
    run.save(study.directory_of(other))
    with pytest.raises(UserError, match='lr2_wd0_seed0: holds a run already'):
        study.add([other])
    assert len(Study.open(study.directory).plan.cells) == 1
    place = {'configs': study.plan.configs, 'work_dir': str(study.directory)}
    with pytest.raises(UserError, match='holds a run already'):
        Study.create(tmp_path / 'new', [other], **place)
    assert not (tmp_path / 'new').exists()
    assert Study.create(tmp_path / 'new', [other], takes_over=True, **place).plan.cells == (other,)


def test_of_two_creators_one_is_refused(tmp_path, monkeypatch):
    from bocb_mm.search import study as studies

    cells = [Cell('net.py', 'SGD', 1.0, 0.0)]

    def meanwhile(plan):
        monkeypatch.setattr(studies, '_with_notes', lambda plan: plan)
        Study.create(tmp_path / 's', cells, retries=7)
        return plan

    monkeypatch.setattr(studies, '_with_notes', meanwhile)
    with pytest.raises(UserError, match='exists already'):
        Study.create(tmp_path / 's', cells)
    assert Study.open(tmp_path / 's').plan.retries == 7


def test_trials_that_are_added_while_a_plan_is_read_are_noticed(make_study, monkeypatch):
    study, load = make_study([1], configs={'net.py': {}}), Plan.load

    def slow(directory):
        plan = load(directory)
        monkeypatch.setattr(Plan, 'load', load)
        study.add([Cell('net.py', 'SGD', 2.0, 0.0)])
        return plan

    monkeypatch.setattr(Plan, 'load', slow)
    other = Study.open(study.directory)
    assert len(other.plan.cells) == 1 and other.reload() and len(other.plan.cells) == 2


def test_trials_are_added_once_and_noticed_by_others(make_study):
    study = make_study([1, 2])
    other = Study.open(study.directory)
    study.change(configs={'net.py': {'toolbox': 'mmengine'}})
    assert other.reload() and not other.reload()
    assert study.add([Cell('net.py', 'SGD', 2.0, 0.0), Cell('net.py', 'SGD', 3.0, 0.0)]) == 1
    assert other.reload() and [cell.lr for cell in other.plan.cells] == [1, 2, 3]
    assert json.loads((study.directory / PLAN_FILE).read_text())['cells'][-1][2] == 3.0


def test_a_study_may_be_moved_and_renamed(make_study, tmp_path):
    study = make_study([1])
    folder = study.directory_of(study.plan.cells[0])
    assert folder.is_relative_to(study.directory)
    moved = study.directory.rename(tmp_path / 'a b%20c')
    again = Study.open(moved)
    assert again.directory_of(again.plan.cells[0]).is_relative_to(moved)
