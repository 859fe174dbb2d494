"""Which number of a record counts: its metric, another one, errors, and what is no result."""

import math

import pandas as pd
import pytest

from bocb_mm.report import load, records, stats, tables
from bocb_mm.report.cli import main
from tests.report.synthetic_runs import make_record, save


def read(tmp_path, *made, metric='', value='best'):
    runs = [records.summary(r, tmp_path / str(i), metric) for i, r in enumerate(made)]
    rows, left_out = load.tidy_runs(runs, value)
    return load.tables_from_runs(rows, runs), left_out


def record_of(optimizer, metric, values, **changes):
    record = make_record(optimizer, best=None, **changes)
    record.metric = metric
    record.evaluations = [
        {'epoch': i, 'iteration': i, **(v if isinstance(v, dict) else {metric: v})}
        for i, v in enumerate(values, 1)
    ]
    return record


def test_an_old_record_counts_by_another_metric(tmp_path):
    """It was recorded with the task's default metric, which its evaluator never gave."""
    values = [{'single-label/f1-score': 70.0, 'accuracy/top1': None}] * 2
    record = record_of('SGD', 'accuracy/top1', values)
    found, left_out = read(tmp_path, record)
    assert found == [] and left_out == [
        f'{tmp_path / "0"}: no value of accuracy/top1; --metric NAME takes another: '
        'single-label/f1-score'
    ]
    (table,), left_out = read(tmp_path, record, metric='single-label/f1-score')
    assert table.values.iat[0, 0] == 70 and not left_out


def test_the_tool_takes_a_metric(tmp_path, capsys):
    values = [{'coco/bbox_mAP': 0.3, 'coco/bbox_mAP_50': 0.5}]
    coco = {'task': 'detection', 'dataset': 'coco', 'pretraining': 'none'}
    save(tmp_path / 'r', record_of('SGD', 'coco/bbox_mAP', values, **coco))
    out = tmp_path / 'o'
    arguments = [str(tmp_path / 'r'), '--out', str(out), '--no-figures', '--quiet']
    assert main([*arguments, '--metric', 'coco/bbox_mAP_50']) == 0
    assert pd.read_csv(out / 'table3_coco.csv').iat[0, 1] == 50
    with pytest.raises(SystemExit):
        main([*arguments, '--metric', 'coco/AP'])
    assert 'no value of coco/AP; --metric NAME takes another: coco/bbox_mAP, coco/bbox_mAP_50' in (
        capsys.readouterr().err
    )


@pytest.fixture
def errors(tmp_path):
    made = [
        record_of(o, 'NME', values, task='pose', dataset='300w', pretraining='none')
        for o, values in {
            'SGD': [0.08, 0.04, 0.05], 'AdamW': [0.03, 0.035], 'Adam': [0.2], 'LION': [0.041]
        }.items()
    ]  # fmt: skip
    made[3].status = 'diverged'
    ((table,), _) = read(tmp_path, *made)
    return table


def test_of_an_error_the_smallest_is_the_best(errors):
    (column,) = errors.values.columns
    assert errors.shown(errors.values)[column].abs().tolist() == pytest.approx(
        [4.0, math.inf, 20.0, 3.0]
    )  # in points: SGD, LION, Adam, AdamW
    assert errors.statistics.loc[column, ['best', 'best_optimizer']].tolist() == [3.0, 'AdamW']
    # 3 + min(Q75 - Q25, 3) of 3, 4 and 20: above 6 is a failure
    assert errors.failed[column].to_dict() == {
        'SGD': False, 'LION': True, 'Adam': True, 'AdamW': False
    }  # fmt: skip
    assert errors.top[column].idxmax() == 'AdamW'


def test_of_an_error_every_file_shows_what_was_measured(errors):
    assert 'Smaller is better in all columns.' in tables.legend(errors)
    frame = tables.cells_frame(errors).set_index('optimizer')
    assert frame.loc['AdamW', 'value'] == pytest.approx(3) and frame.loc['Adam', 'value'] == 20
    assert '**3.0**' in tables.markdown(errors) and '*20.0†*' in tables.markdown(errors)
    assert '3.0' in tables.latex(errors) and '-3.0' not in tables.latex(errors)


def test_the_last_of_an_error(tmp_path):
    record = record_of('SGD', 'NME', [0.04, 0.05], task='pose', dataset='300w')
    ((table,), _) = read(tmp_path, record, value='last')
    assert table.values.iat[0, 0] == pytest.approx(-5)


def test_a_csv_of_errors(tmp_path):
    path = tmp_path / 'mine.csv'
    path.write_text('optimizer,R-50\nSGD,3\nAdamW,9\nLION,diverged\n')
    table = load.table_from_csv(path, metric='NME')
    assert table.statistics.at['R-50', 'best'] == 3
    assert table.values.at['LION', 'R-50'] == stats.DIVERGED


def test_cocos_minus_one_is_missing(tmp_path):
    coco = {'task': 'detection', 'dataset': 'coco', 'pretraining': 'none'}
    made = [
        record_of('SGD', 'coco/bbox_mAP_s', [-1.0, -1.0], **coco),
        record_of('AdamW', 'coco/bbox_mAP_s', [-1.0, 0.1], **coco),
    ]
    ((table,), left_out) = read(tmp_path, *made)
    assert table.shown(table.values).to_dict() == {'det R-50 (none)': {'AdamW': 10.0}}
    assert len(left_out) == 1 and 'no value of coco/bbox_mAP_s' in left_out[0]


def test_mpiis_percent_stays_percent_and_a_loss_of_twenty_points_fails(tmp_path):
    mpii = {'task': 'pose', 'dataset': 'mpii', 'pretraining': 'none'}
    made = [
        record_of(o, 'PCK', [v], **mpii) for o, v in (('SGD', 88.1), ('Adam', 87.9), ('LION', 0.9))
    ]
    ((table,), _) = read(tmp_path, *made)
    assert table.values.iloc[:, 0].tolist() == pytest.approx([88.1, 0.9, 87.9])
    shares = [
        record_of(o, 'PCK', [v], **mpii) for o, v in (('SGD', 0.8), ('Adam', 0.79), ('LION', 0.6))
    ]
    ((table,), _) = read(tmp_path, *shares)
    assert table.values.iloc[:, 0].tolist() == pytest.approx([80, 60, 79])
    assert table.failed.iloc[:, 0].to_dict() == {'SGD': False, 'LION': True, 'Adam': False}


def test_an_unknown_metric_is_named(tmp_path):
    ((table,), _) = read(tmp_path, record_of('SGD', 'my/score', [0.5]))
    assert table.notes[0].startswith(
        'my/score stands in no table of metrics: taken as larger is better'
    )
    assert table.values.iat[0, 0] == 50


def test_the_users_rule_says_which_is_better(tmp_path):
    record = record_of('SGD', 'my/score', [5.0, 3.0], metric_rule='less')
    ((table,), _) = read(tmp_path, record)
    assert table.shown(table.values).iat[0, 0] == 3 and table.errors


def test_a_record_with_results_but_no_evaluations_counts(tmp_path):
    record = make_record('SGD', best=None)
    record.best, record.last = 70.0, 65.0
    ((table,), _) = read(tmp_path, record)
    assert table.values.iat[0, 0] == 70
