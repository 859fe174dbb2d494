"""Runs and CSV files into result tables: best setting, seeds, divergence, names, bad input."""

import functools
import json
import math

import pytest

from bocb_mm.errors import UserError
from bocb_mm.report import load, names, parallel, records, stats
from tests.report.synthetic_runs import make_record, save


def tables_of(root, **options):
    scan = records.read_runs(records.run_directories([root]), progress=False)
    rows, left_out = load.tidy_runs(scan.runs, **options)
    return {t.name: t for t in load.tables_from_runs(rows)}, left_out, scan


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


def test_a_repeated_seed_counts_once_the_newer(tmp_path):
    for folder, best, started in (('a', 70.0, '2026-01-02'), ('b', 60.0, '2026-01-01')):
        record = make_record('SGD', seed=0, best=best)
        record.started = started
        save(tmp_path / folder, record)
    tables, left_out, _ = tables_of(tmp_path)
    cell = tables['table1_cifar100'].cells.iloc[0]
    assert (cell.value, cell.n) == (70.0, 1) and 'superseded' in left_out[0]


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


def test_what_is_logged_in_percent_stays_so():
    for metric in ('accuracy/top1', 'multi-label/mAP', 'single-label/f1-score'):
        assert load.points(metric, 75.5) == 75.5
    for metric in ('coco/AP', 'coco/bbox_mAP', 'pascal_voc/mAP', 'PCK'):
        assert load.points(metric, 0.755) == 75.5


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


def test_cache_serves_unchanged_runs_only(tmp_path):
    places = [save(tmp_path / 'r', make_record('SGD', seed=s, best=70.0)) for s in range(3)]
    cache = tmp_path / 'cache.json'
    first = records.read_runs(places, cache, progress=False)
    second = records.read_runs(places, cache, progress=False)
    assert (first.reused, second.reused) == (0, 3) and second.runs == first.runs
    make_record('SGD', seed=0, best=99.0).save(places[0])
    third = records.read_runs(places, cache, progress=False)
    assert third.reused == 2 and third.runs[0]['best'] == pytest.approx(99.0)
    cache.write_text('{"format": 1, "runs"')
    assert records.read_runs(places, cache, progress=False).reused == 0


def test_many_runs_are_read_by_several_processes_as_by_one(tmp_path, monkeypatch):
    places = [save(tmp_path / 'r', make_record('SGD', seed=s, best=70 + s / 9)) for s in range(20)]
    (places[3] / 'run.json').write_text('{')
    (places[5] / 'layer_metrics.csv').write_text('layer\n')
    alone = records.read_runs(places, progress=False)
    spread = functools.partial(parallel.spread, processes=2)
    monkeypatch.setattr(
        records, 'spread', lambda work, items, chunk, few: spread(work, items, chunk=3, few=2)
    )
    shared = records.read_runs(places, tmp_path / 'cache.json', progress=False)
    assert (shared.runs, shared.broken) == (alone.runs, alone.broken)
    assert len(shared.runs) == 19 and len(shared.broken) == 1
    assert [r['seed'] for r in shared.runs if r['layers']] == [5]
    places[7].joinpath('run.json').unlink()  # only what is there and changed is read again
    make_record('SGD', seed=9, best=99.0).save(places[9])
    again = records.read_runs(places, tmp_path / 'cache.json', progress=False)
    assert again.reused == 17 and len(again.broken) == 2
    assert {r['seed']: r['best'] for r in again.runs}[9] == pytest.approx(99.0)


def test_curves_are_read_when_they_are_shown(tmp_path):
    place = save(tmp_path, make_record('SGD', best=70.0, epochs=200))
    run = records.read_runs([place], progress=False).runs[0]
    curves = records.curves(run)
    assert [len(c) for c in curves.values()] == [records.CURVE_POINTS] * 2
    assert curves['curve'][0][0] == 1 and curves['curve'][-1] == [200, pytest.approx(70.0)]
    (place / 'run.json').write_text('gone')
    assert records.curves(run) == {'curve': [], 'losses': []}


# -- wide CSV ----------------------------------------------------------------------------------


def csv(tmp_path, text):
    path = tmp_path / 'mine.csv'
    path.write_text(text)
    return path


def test_csv_with_missing_and_diverged(tmp_path):
    table = load.table_from_csv(csv(tmp_path, 'optimizer,R-50,X\nSGD,70.5,diverged\nMuon,,-inf\n'))
    assert table.name == 'mine' and table.gamma == 3
    assert table.values.loc['SGD'].tolist() == [70.5, stats.DIVERGED]
    assert math.isnan(table.values.at['Muon', 'R-50'])
    assert len(table.cells) == 3


BAD_CSV = {
    'empty': ('', 'a row of backbones'),
    'only a head': ('optimizer,R-50\n', 'a row of backbones'),
    'a word': ('optimizer,R-50\nSGD,seventy\n', "row 'SGD', column 'R-50'"),
    'short row': ('optimizer,R-50,X\nSGD,70\n', "row 'SGD' has 2 cells"),
    'optimizer twice': ('optimizer,R-50\nSGD,70\nSGD,71\n', "optimizer 'SGD' stands there twice"),
    'column twice': ('optimizer,R-50,R-50\nSGD,70,71\n', "column 'R-50' stands there twice"),
}


@pytest.mark.parametrize('case', BAD_CSV)
def test_bad_csv_is_one_clear_line(tmp_path, case):
    text, message = BAD_CSV[case]
    with pytest.raises(UserError, match=message):
        load.table_from_csv(csv(tmp_path, text))


def test_paper_cells_are_found_in_any_spelling():
    from bocb_mm.report import paper

    assert paper.value('table1_cifar100', 'resnet-50', 'sgd-m') == 78.76
    assert paper.value('table3_coco', 'pose VGG-13 (sgd)', 'SGD') == 47.5
    assert paper.value('table1_cifar100', 'R-50', 'Muon') is None


def test_every_name_of_the_paper_is_canonical():
    from bocb_mm.report import paper

    for name in paper.TABLES:
        for column in paper.read(name):
            assert names.split_column(column)[1] in names.BACKBONES
        assert [names.optimizer(o) for o in paper.read(name).index] == names.OPTIMIZERS
    assert list(paper.rankings().index) == names.OPTIMIZERS
