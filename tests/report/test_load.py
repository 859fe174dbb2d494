"""Runs and CSV files into result tables: best setting, seeds, divergence, names, bad input."""

import json

import pytest

from bocb_mm.report import load, names, paper, records, stats
from tests.report.synthetic_runs import make_record, save


def tables_of(root, **options):
    scan = records.read_runs(records.run_directories([root]), progress=False)
    rows, left_out = load.tidy_runs(scan.runs, **options)
    return {t.name: t for t in load.tables_from_runs(rows, scan.runs)}, left_out, scan


def test_cell_is_the_mean_over_seeds_of_the_best_setting(tmp_path):
    for lr, results in ((1e-3, (70.0, 72.0, 74.0)), (1e-2, (90.0, 10.0))):
        for seed, best in enumerate(results):
            save(tmp_path, make_record('AdamW', 'R-50', lr=lr, seed=seed, best=best))
    tables, _, _ = tables_of(tmp_path)
    table = tables['table1_cifar100']
    assert table.values.to_dict() == {'R-50': {'AdamW': 72.0}}
    cell = table.cells.iloc[0]
    assert (cell.n, cell.sd, cell.lr) == (3, 2.0, 1e-3)
    assert table.settings['value'].tolist() == [72.0, 50.0]


def test_a_setting_that_diverges_is_taken_only_when_all_do(tmp_path):
    save(tmp_path, make_record('AdamW', 'R-50', lr=1e-3, seed=0, best=70.0))
    save(tmp_path, make_record('AdamW', 'R-50', lr=1e-2, seed=0, best=80.0))
    save(tmp_path, make_record('AdamW', 'R-50', lr=1e-2, seed=1, best=80.0, status='diverged'))
    save(tmp_path, make_record('LION', 'R-50', lr=1e-2, seed=0, best=80.0))
    save(tmp_path, make_record('LION', 'R-50', lr=1e-2, seed=1, best=None, status='diverged'))
    table = tables_of(tmp_path)[0]['table1_cifar100']
    assert table.values.at['AdamW', 'R-50'] == 70.0
    assert table.values.at['LION', 'R-50'] == stats.DIVERGED
    lion = table.cells.set_index('optimizer').loc['LION']
    assert (lion.n, lion.n_diverged, lion['mean']) == (1, 1, 80.0)
    assert table.failed.at['LION', 'R-50']


def test_runs_without_a_result_are_named(tmp_path):
    save(tmp_path, make_record('SGD', seed=0, best=70.0))
    for seed, status in enumerate(('running', 'failed', 'interrupted'), 1):
        save(tmp_path, make_record('SGD', seed=seed, best=99.0, status=status, message='why not'))
    save(tmp_path, make_record('SGD', seed=4, best=None))
    tables, left_out, _ = tables_of(tmp_path)
    assert tables['table1_cifar100'].values.at['SGD', 'R-50'] == 70.0
    reasons = ' '.join(left_out)
    for word in ('running', 'failed', 'interrupted', 'no evaluation', '(why not)'):
        assert word in reasons


def test_a_run_whose_process_is_gone_was_killed(tmp_path):
    folder = save(tmp_path, make_record('SGD', seed=0, best=None, status='running'))
    (folder / '.run.lock').touch()  # which no process holds
    assert 'killed' in ' '.join(tables_of(tmp_path)[1])


def test_a_repeated_seed_counts_once_the_newer(tmp_path):
    for folder, best, started in (('a', 70.0, '2026-01-02'), ('b', 60.0, '2026-01-01')):
        record = make_record('SGD', seed=0, best=best)
        record.started = started
        save(tmp_path / folder, record)
    tables, left_out, _ = tables_of(tmp_path)
    cell = tables['table1_cifar100'].cells.iloc[0]
    assert (cell.value, cell.n) == (70.0, 1) and 'superseded' in left_out[0]


def test_another_metric_than_the_papers_is_not_compared_with_it(tmp_path):
    record = make_record('SGD', 'R-50', best=94.0)
    record.metric = 'accuracy/top5'
    record.add_evaluation(4, 400, {'accuracy/top5': 94.0})
    save(tmp_path, record)
    table = tables_of(tmp_path)[0]['table1_cifar100']
    load.add_reference(table)
    assert table.reference is None and table.title == 'accuracy/top5 on CIFAR-100'
    losses = load.from_frame('table1_cifar100', paper.read('table1_cifar100'), 'csv', metric='loss')
    load.add_reference(losses)
    assert losses.reference is None and losses.title == 'loss on CIFAR-100'


def test_a_metric_of_unknown_unit_has_one_unit_in_a_table(tmp_path):
    for backbone, values in (('R-50', (0.95, 0.90)), ('CNX-T', (1.05, 0.93))):
        for optimizer, value in zip(('SGD', 'AdamW'), values):
            record = make_record(optimizer, backbone, best=None)
            record.metric = 'my/score'
            record.add_evaluation(4, 400, {'my/score': value})
            save(tmp_path, record)
    table = tables_of(tmp_path)[0]['table1_cifar100']
    assert table.values.loc['SGD'].to_dict() == {'R-50': 0.95, 'CNX-T': 1.05}


def test_runs_by_iterations_of_two_lengths_are_told_apart(tmp_path):
    for optimizer, iterations in (('SGD', 1000), ('AdamW', 90_000)):
        record = make_record(optimizer, best=None, task='segmentation', dataset='ade')
        record.max_epochs, record.epochs, record.iterations = None, 0, iterations
        record.add_evaluation(0, iterations // 2, {'mIoU': 30.0})
        record.add_evaluation(0, iterations, {'mIoU': 40.0})
        place = save(tmp_path, record)
    (table,) = tables_of(tmp_path)[0].values()
    assert any('1000 and 90000 iterations' in note for note in table.notes)
    (run,) = records.read_runs([place], progress=False).runs
    curves = records.curves(run)
    assert curves['over'] == 'iterations' and [x for x, _ in curves['curve']] == [45_000, 90_000]


def test_data_with_names_of_any_script_do_not_share_a_table(tmp_path):
    for dataset in ('\u6570\u636e\u7532', '\u6570\u636e\u4e59'):
        save(tmp_path, make_record('SGD', best=70.0, dataset=dataset))
    assert len(tables_of(tmp_path)[0]) == 2


def test_columns_may_have_any_name(tmp_path):
    path = tmp_path / 't.csv'
    path.write_text('name,value,optimizer\nSGD,75.1,70\nAdamW,,71\n')
    table = load.table_from_csv(path)
    pairs = [(c.optimizer, c.column, c.value) for c in table.cells.itertuples()]
    expected = [('SGD', 'value', 75.1), ('SGD', 'optimizer', 70), ('AdamW', 'optimizer', 71)]
    assert pairs == expected


def test_coco_is_in_points_and_heads_are_the_papers(tmp_path):
    detection = {'task': 'detection', 'dataset': 'coco', 'pretraining': 'rsb-a3'}
    save(tmp_path, make_record('SGD', 'ResNet-50', best=0.287, **detection))
    save(tmp_path, make_record('sgd', 'vgg13_bn', best=0.5, task='pose', dataset='coco',
                               pretraining='sgd'))  # fmt: skip
    table = tables_of(tmp_path)[0]['table3_coco']
    assert list(table.values.columns) == ['pose VGG-13 (SGD)', 'det R-50 (A3)']
    assert table.values.loc['SGD'].tolist() == pytest.approx([50.0, 28.7])
    load.add_reference(table)
    assert table.reference.loc['SGD'].tolist() == [47.5, 28.7]


def test_gamma_of_the_record_then_of_the_data_set(tmp_path):
    for dataset, gamma in (('cifar100', None), ('imagenet', None), ('digits', 0.5)):
        save(tmp_path / dataset, make_record('SGD', dataset=dataset, gamma=gamma))
    tables = tables_of(tmp_path)[0]
    found = {name: t.gamma for name, t in tables.items()}
    assert found == {
        'table1_cifar100': 3, 'table2_imagenet': 1, 'classification_digits': 0.5
    }  # fmt: skip


def test_two_recipes_of_a_backbone_are_two_columns(tmp_path):
    for recipe in ('pytorch', 'rsb-a2'):
        save(tmp_path / recipe, make_record('SGD', 'R-50', recipe=recipe))
    save(tmp_path, make_record('SGD', 'DeiT-S', recipe='deit'))
    columns = tables_of(tmp_path)[0]['table1_cifar100'].values.columns
    assert set(columns) == {'R-50 (A2)', 'R-50 (PyTorch)', 'DeiT-S'}


def test_best_or_last_evaluation(tmp_path):
    record = make_record('SGD', best=70.0)
    record.add_evaluation(5, 500, {record.metric: 65.0})
    save(tmp_path, record)
    best, last = (tables_of(tmp_path, value=v)[0]['table1_cifar100'] for v in ('best', 'last'))
    assert (best.values.iat[0, 0], last.values.iat[0, 0]) == (70.0, 65.0)


def test_broken_records_are_named_and_the_rest_read(tmp_path):
    save(tmp_path, make_record('SGD', best=70.0))
    content = {
        'json': '{"task":',
        'list': '[]',
        'schema': '{"schema_version": 99}',
        'field': json.dumps({'schema_version': 1, 'task': 'pose', 'dataset': 3}),
    }
    for name, text in content.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / 'run.json').write_text(text)
    _, _, scan = tables_of(tmp_path)
    assert len(scan.runs) == 1 and len(scan.broken) == 4
    for name in content:
        assert any(f'/{name}/run.json' in line for line in scan.broken)


def test_curves_are_read_when_they_are_shown(tmp_path):
    place = save(tmp_path, make_record('SGD', best=70.0, epochs=200))
    run = records.read_runs([place], progress=False).runs[0]
    curves = records.curves(run)
    assert [len(curves[c]) for c in ('curve', 'losses')] == [records.CURVE_POINTS] * 2
    assert curves['over'] == 'epochs'
    assert curves['curve'][0][0] == 1 and curves['curve'][-1] == [200, pytest.approx(70.0)]
    (place / 'run.json').write_text('gone')
    assert records.curves(run) == {'curve': [], 'losses': [], 'over': ''}


def test_paper_cells_are_found_in_any_spelling():
    assert paper.value('table1_cifar100', 'resnet-50', 'sgd-m') == 78.76
    assert paper.value('table3_coco', 'pose VGG-13 (sgd)', 'SGD') == 47.5
    assert paper.value('table1_cifar100', 'R-50', 'Muon') is None


def test_every_name_of_the_paper_is_canonical():
    for name in paper.TABLES:
        for column in paper.read(name):
            assert names.split_column(column)[1] in names.BACKBONES
        assert [names.optimizer(o) for o in paper.read(name).index] == names.OPTIMIZERS
    assert list(paper.rankings().index) == names.OPTIMIZERS
