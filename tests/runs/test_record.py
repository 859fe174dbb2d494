import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bocb_mm.errors import UserError
from bocb_mm.runs.record import (
    FILE_NAME,
    SCHEMA_VERSION,
    RunRecord,
    RunRecordError,
    config_hash,
    find_runs,
    run_directory,
)


def record(**changes):
    return RunRecord(task='detection', dataset='coco', backbone='R-50', optimizer='LARS', **changes)


def test_a_saved_record_reads_back_equal(tmp_path):
    before = record(
        lr=0.1, seed=3, optimizer_settings={'betas': [0.9, 0.99]}, metric='coco/bbox_mAP'
    )
    before.add_evaluation(1, 100, {'coco/bbox_mAP': 0.25})
    before.save(tmp_path)
    assert RunRecord.load(tmp_path) == before
    assert RunRecord.load(tmp_path / FILE_NAME) == before


def test_best_is_the_largest_and_last_the_latest():
    run = record(metric='m')
    for epoch, value in enumerate([0.1, 0.3, 0.2], start=1):
        run.add_evaluation(epoch, epoch * 10, {'m': value})
    assert (run.best, run.last) == (0.3, 0.2)


def test_an_evaluation_done_again_after_a_resume_replaces_the_first():
    run = record(metric='m')
    for epoch, value in ((1, 0.5), (1, 0.4), (2, 0.3)):
        run.add_evaluation(epoch, epoch * 10, {'m': value})
    assert [(e['epoch'], e['m']) for e in run.evaluations] == [(1, 0.4), (2, 0.3)]
    assert run.best == 0.4


def test_an_evaluation_that_found_nothing_counts_as_zero():
    run = record(metric='coco/bbox_mAP')
    run.add_evaluation(1, 10, {})
    assert (run.best, run.last) == (0.0, 0.0)
    assert run.evaluations[0]['coco/bbox_mAP'] == 0.0


def test_an_evaluation_by_other_metrics_is_no_result():
    run = record(metric='coco/AP')
    run.add_evaluation(1, 10, {'PCK': 0.9})
    assert (run.best, run.last) == (None, None)
    run.add_evaluation(2, 20, {'PCK': 0.9, 'coco/AP': 0.5})
    assert (run.best, run.last) == (0.5, 0.5)


@pytest.mark.parametrize(
    ('metric', 'values', 'best', 'more'),
    [
        ('NME', [0.05, 0.04, 0.06], 0.04, {}),
        ('coco/AP', [-1.0, 0.4, 0.3], 0.4, {}),
        ('my/score', [3.0, 1.0, 2.0], 3.0, {}),
        ('my/score', [3.0, 1.0, 2.0], 1.0, {'metric_rule': 'less'}),
    ],
)
def test_the_best_is_the_smallest_error_and_never_cocos_minus_one(metric, values, best, more):
    run = record(metric=metric, **more)
    for step, value in enumerate(values, start=1):
        run.add_evaluation(step, step, {metric: value})
    assert (run.best, run.last) == (best, values[-1])


def test_an_evaluation_that_found_nothing_is_no_error_of_zero():
    run = record(metric='NME')
    run.add_evaluation(1, 10, {})
    assert (run.best, run.last) == (None, None)


def test_another_headline_judges_earlier_evaluations_too():
    run = record(metric='')
    run.add_evaluation(1, 10, {'a': 2.0, 'b': 1.0})
    run.add_evaluation(2, 20, {'a': 1.0, 'b': 3.0})
    assert run.best is None and '' not in run.evaluations[0]
    run.judge_by('b')
    assert (run.best, run.last) == (3.0, 3.0)


def test_a_loss_curve_is_thinned_and_no_loss_counts_twice():
    run = record()
    run.add_losses([5.0, 4.0], 2)
    run.add_losses([5.0, 4.0, 3.0], 3)
    assert run.losses == [[1, 5.0], [2, 4.0], [3, 3.0]]
    run.add_losses([float(k) for k in range(4, 4001)], 4000)
    assert len(run.losses) <= 401 and run.losses[-1] == [4000, 4000.0]
    assert all(pair[0] % 10 == 0 for pair in run.losses)


def test_going_on_keeps_what_the_run_is_and_what_it_measured_so_far():
    before = record(lr=0.1, seed=3, pretraining='A2', config_hash='x', started='then', metric='m')
    before.add_losses([3.0, 2.0, 1.0], 3)
    for step in (1, 2, 3):
        before.add_evaluation(step, step, {'m': float(step)})
    run = record(lr=0.5, seed=9, config_hash='y', started='now', metric='m', n_classes=80)
    run.go_on_from(before, 2)
    assert (run.lr, run.seed, run.config_hash, run.started) == (0.1, 3, 'x', 'then')
    assert (run.pretraining, run.n_classes) == ('A2', 80)
    assert (len(run.evaluations), run.best, len(run.losses)) == (2, 2.0, 2)


def test_nan_never_becomes_best_and_is_null_on_disk(tmp_path):
    run = record(metric='m')
    run.add_evaluation(1, 10, {'m': 0.5})
    run.add_evaluation(2, 20, {'m': math.nan})
    run.save(tmp_path)
    text = (tmp_path / FILE_NAME).read_text()
    assert 'NaN' not in text
    assert json.loads(text)['best'] == 0.5
    assert RunRecord.load(tmp_path).last is None


@pytest.mark.parametrize(
    'text',
    ['', '{', '[]', 'null', '{"schema_version": 1}', '[' * 100_000, '\ufeff{}']
    + [
        json.dumps(dataclasses.asdict(record()) | change)
        for change in (
            {'schema_version': 99},
            {'status': 'done'},
            {'lr': 'fast'},
            {'evaluations': {}},
            {'best': True},
        )
    ],
)
def test_a_damaged_record_is_refused_with_its_path(tmp_path, text):
    (tmp_path / FILE_NAME).write_text(text, encoding='utf-8')
    with pytest.raises(RunRecordError, match=FILE_NAME):
        RunRecord.load(tmp_path)


def test_fields_of_a_later_release_are_ignored(tmp_path):
    data = dataclasses.asdict(record()) | {'a_new_field': 1}
    (tmp_path / FILE_NAME).write_text(json.dumps(data))
    assert RunRecord.load(tmp_path) == record()


def test_find_runs_finds_each_run_once_and_in_order(tmp_path):
    for name in ('b', 'a/deep', 'c'):
        (tmp_path / name).mkdir(parents=True)
        record().save(tmp_path / name)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'b')
    found = list(find_runs([tmp_path, tmp_path / 'b']))
    assert [p.relative_to(tmp_path).as_posix() for p in found] == ['a/deep', 'b', 'c']


def test_find_runs_refuses_a_path_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match='nowhere'):
        list(find_runs([tmp_path / 'nowhere']))


settings = st.tuples(
    st.floats(1e-8, 10), st.floats(0, 1), st.integers(0, 99), st.sampled_from(['SGD', 'LARS'])
)


@given(settings, settings)
def test_two_different_settings_never_share_a_directory(one, other):
    paths = [run_directory('w', 'c', opt, lr, wd, seed) for lr, wd, seed, opt in (one, other)]
    same = all(
        a == b or (isinstance(a, float) and f'{a:.10g}' == f'{b:.10g}') for a, b in zip(one, other)
    )
    assert (paths[0] == paths[1]) == same


def test_config_hash_ignores_the_order_of_keys():
    assert config_hash({'a': 1, 'b': (2, 3)}) == config_hash({'b': [2, 3], 'a': 1})
    assert config_hash({'a': 1}) != config_hash({'a': 2})


def test_the_schema_version_is_written():
    assert dataclasses.asdict(record())['schema_version'] == SCHEMA_VERSION
