"""The tool: the files of the contract, exit statuses, an unchanged report, no torch."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from bocb_mm.report import build, figures, layers, paper
from bocb_mm.report.cli import main
from tests.report.synthetic_runs import make_record, save

ROOT = Path(__file__).resolve().parents[2]
STATS = ['mean', 'std', 'range', 'best', 'best_optimizer', 'n_failed']
ASPECTS = ['performance', 'hyperparameter', 'bocb', 'computation', 'overall']


def check_contract(out, tables, figures=True):
    for name in tables:
        for suffix in ('.csv', '.md', '.tex'):
            assert (out / f'{name}{suffix}').stat().st_size
        found = pd.read_csv(out / f'{name}_stats.csv', index_col='column')
        assert list(found.columns) == STATS
        failed = pd.read_csv(out / f'{name}_failed.csv')
        assert list(failed.columns) == ['column', 'optimizer', 'value', 'threshold']
        assert len(failed) == found['n_failed'].sum()
    ranks = pd.read_csv(out / 'rankings.csv', index_col='optimizer')
    assert list(ranks.columns) == ASPECTS
    images = {p.stem for p in (out / 'figures').glob('*.svg')}
    assert bool(images) == figures and images == {p.stem for p in (out / 'figures').glob('*.png')}
    assert '</html>' in (out / 'report.html').read_text(encoding='utf-8')


@pytest.fixture(scope='module')
def paper_report(tmp_path_factory):
    out = tmp_path_factory.mktemp('paper')
    assert main(['--paper', '--out', str(out), '--quiet', '--no-figures']) == 0
    return out


def test_paper_alone(paper_report):
    check_contract(paper_report, paper.TABLES, figures=False)
    for name in paper.TABLES:
        again = pd.read_csv(paper_report / f'{name}.csv', index_col=0)
        pd.testing.assert_frame_equal(again, paper.read(name))
    failed = pd.read_csv(paper_report / 'table1_cifar100_failed.csv')
    # 67.30 - min(Q75 - Q25, 3) = 64.3 for AlexNet: LARS at 64.35 is above it, NovoGrad below
    alex = failed[failed['column'] == 'AlexNet']
    assert set(alex['threshold'].round(6)) == {64.3}
    assert 'NovoGrad' in set(alex['optimizer']) and 'LARS' not in set(alex['optimizer'])
    ranks = pd.read_csv(paper_report / 'rankings.csv', index_col=0)['overall']
    assert ranks[['LAMB', 'AdamW', 'Adan']].tolist() == [1, 2, 3]


def test_runs_beside_the_paper(run_root, tmp_path):
    assert main([str(run_root), '--paper', '--out', str(tmp_path), '--no-figures']) == 0
    check_contract(tmp_path, ['table1_cifar100', 'table3_coco', 'table1_cifar100_paper'], False)
    cells = pd.read_csv(tmp_path / 'table3_coco_cells.csv')
    row = cells.set_index(['column', 'optimizer']).loc['det R-50 (SGD)', 'SGD']
    assert (row['value'], row['paper'], round(row['difference'], 9)) == (36.6, 36.6, 0)


def test_runs_with_every_figure(run_report):
    check_contract(run_report, ['table1_cifar100', 'table3_coco'])
    assert pd.read_csv(run_report / 'table1_cifar100.csv', index_col=0).shape == (5, 3)
    names_ = {p.stem for p in (run_report / 'figures').glob('*.svg')}
    layers_ = {f'layers_{metric}' for metric in layers.METRICS} | {'alpha'}
    for stem in {kind.stem for kind in figures.KINDS} | layers_:
        assert f'table1_cifar100_{stem}' in names_
    assert 'table3_coco_transfer_det-R-50' in names_


def test_diverged_is_written_not_dropped(tmp_path):
    save(tmp_path / 'r', make_record('SGD', best=70.0))
    save(tmp_path / 'r', make_record('LION', best=71.0, status='diverged'))
    assert main([str(tmp_path / 'r'), '--out', str(tmp_path / 'o'), '--no-figures']) == 0
    failed = pd.read_csv(tmp_path / 'o' / 'table1_cifar100_failed.csv')
    assert failed.loc[0, ['optimizer', 'value']].tolist() == ['LION', 'diverged']
    assert 'diverged' in (tmp_path / 'o' / 'table1_cifar100.csv').read_text()


def test_the_tolerance_is_that_of_the_table_too(tmp_path):
    for lr, best in ((1e-4, 80.0), (1e-3, 76.0), (1e-2, 70.0), (1e-1, 60.0)):
        save(tmp_path / 'runs', make_record('SGD', lr=lr, best=best))
    arguments = [str(tmp_path / 'runs'), '--out', str(tmp_path / 'o'), '--no-figures', '--quiet']
    assert main([*arguments, '--tolerance', '10']) == 0
    ease = pd.read_csv(tmp_path / 'o' / 'table1_cifar100_tuning.csv', index_col=0)
    assert ease.loc['SGD', 'R-50'] == 0.5  # 80 and 76


def test_layers_whose_names_are_numbers(tmp_path):
    for optimizer in ('SGD', 'AdamW'):
        place = save(tmp_path / 'runs', make_record(optimizer))
        rows = [f'{i},conv,64x64,4096,2.{i},5,8,0.9,True,4,400' for i in range(3)]
        head = 'layer,kind,shape,n_params,alpha,entropy,l2_norm,pca_energy,eligible,epoch,iteration'
        (place / 'layer_metrics.csv').write_text('\n'.join([head, *rows]))
    assert main([str(tmp_path / 'runs'), '--out', str(tmp_path / 'o'), '--quiet']) == 0


def test_every_run_diverged(tmp_path):
    for optimizer in ('SGD', 'LION'):
        for backbone in ('R-50', 'CNX-T', 'DeiT-S'):
            for lr in (0.01, 0.1):
                record = make_record(optimizer, backbone, lr=lr, best=None, status='diverged')
                save(tmp_path / 'r', record)
    assert main([str(tmp_path / 'r'), '--out', str(tmp_path / 'o')]) == 0
    check_contract(tmp_path / 'o', ['table1_cifar100'])
    assert len(pd.read_csv(tmp_path / 'o' / 'table1_cifar100_failed.csv')) == 6


def test_broken_record_is_named_and_the_status_is_1(tmp_path, capsys):
    save(tmp_path / 'r', make_record('SGD'))
    (tmp_path / 'r' / 'broken').mkdir()
    (tmp_path / 'r' / 'broken' / 'run.json').write_text('{')
    arguments = [str(tmp_path / 'r'), '--out', str(tmp_path / 'o'), '--no-figures']
    assert main(arguments) == 1
    assert 'broken/run.json' in capsys.readouterr().err
    assert pd.read_csv(tmp_path / 'o' / 'table1_cifar100.csv').shape == (1, 2)


def test_files_of_an_earlier_report_are_named_and_left(tmp_path, capsys):
    out = tmp_path / 'o'
    for dataset in ('digits', 'cifar100'):
        save(tmp_path / dataset, make_record('SGD', dataset=dataset))
        assert main([str(tmp_path / dataset), '--out', str(out), '--no-figures']) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith('left as they were, not of this report: classification_digits.csv, ')
    assert (out / 'classification_digits.csv').exists()


# -- what --out may be: found before the work ----------------------------------------------------


@pytest.fixture
def no_work(monkeypatch):
    monkeypatch.setattr(build, 'gather', lambda _: pytest.fail('work was done first'))


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count('\n') == 1
    return said


@pytest.mark.parametrize('out', ['file', 'file/below', 'file/far/below'])
def test_out_that_is_a_file(tmp_path, capsys, no_work, out):
    (tmp_path / 'file').write_text('mine')
    said = refused(['--paper', '--out', str(tmp_path / out)], capsys)
    assert f'{tmp_path / "file"} is a file; name a directory' in said
    assert (tmp_path / 'file').read_text() == 'mine'


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_out_that_cannot_be_written(tmp_path, capsys, no_work):
    tmp_path.chmod(0o500)
    said = refused(['--paper', '--out', str(tmp_path / 'o')], capsys)
    tmp_path.chmod(0o700)
    assert 'cannot be written by you' in said


def test_out_where_a_name_of_the_report_is_taken(tmp_path, capsys, no_work):
    (tmp_path / 'a' / 'report.html').mkdir(parents=True)
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b' / 'figures').write_text('mine')
    for folder, name in (('a', 'report.html'), ('b', 'figures')):
        said = refused(['--paper', '--out', str(tmp_path / folder)], capsys)
        assert f'needs the name of {tmp_path / folder / name}' in said


def test_a_file_of_the_report_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / 'rankings.csv').mkdir()
    said = refused(['--paper', '--out', str(tmp_path), '--no-figures'], capsys)
    assert f'{tmp_path / "rankings.csv"} cannot be written' in said


@pytest.mark.parametrize('name', ['rankings.csv', 'mine.csv'])
@pytest.mark.parametrize('how', ['plain', 'from elsewhere', 'through a link'])
def test_an_input_in_out_is_not_overwritten(tmp_path, monkeypatch, capsys, no_work, name, how):
    text = 'optimizer,R-50\nSGD,70\nAdam,71\n'
    (tmp_path / name).write_text(text)
    out, given = tmp_path, tmp_path / name
    if how == 'from elsewhere':
        monkeypatch.chdir(tmp_path)
        out, given = Path('.'), Path(name)
    if how == 'through a link':
        out = tmp_path / 'link'
        out.symlink_to(tmp_path)
    said = refused([str(given), '--out', str(out)], capsys)
    assert f'{given} lies in it, and a report overwrites no input' in said
    assert (tmp_path / name).read_text() == text


def test_a_table_named_rankings_does_not_clash_with_the_rankings(tmp_path):
    path = tmp_path / 'rankings.csv'
    path.write_text('optimizer,R-50\nSGD,70\nAdam,71\n')
    out = tmp_path / 'o'
    assert main([str(path), '--out', str(out), '--no-figures']) == 0
    assert list(pd.read_csv(out / 'rankings.csv', index_col=0).columns) == ASPECTS
    assert pd.read_csv(out / 'rankings_2.csv', index_col=0)['R-50'].tolist() == [70, 71]


def test_tables_whose_files_would_have_one_name(tmp_path):
    given = []
    for folder, stem in (('a', 'mine'), ('b', 'mine_stats'), ('c', 'Mine')):
        path = tmp_path / folder / f'{stem}.csv'
        path.parent.mkdir()
        path.write_text(f'optimizer,R-50\nSGD,7{len(given)}\nAdam,71\n')
        given.append(str(path))
    assert main([*given, '--out', str(tmp_path / 'o'), '--no-figures']) == 0
    for i, name in enumerate(('mine', 'mine_stats_2', 'Mine_2')):
        assert pd.read_csv(tmp_path / 'o' / f'{name}.csv').iat[0, 1] == 70 + i
    check_contract(tmp_path / 'o', ['mine', 'mine_stats_2', 'Mine_2'], figures=False)


def test_the_module_is_the_tool(tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'bocb_mm.report.cli', '--paper', '--out', 'rep', '--no-figures'],
        cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'rep' / 'report.html').exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['nowhere', '--out', 'o'], 'nowhere: no such file'),
        (['--out', 'o'], 'no run.json found'),
        (['--paper', '--out', 'o', '--gamma', '-1'], 'gamma -1'),
        (['--paper', '--out', 'o', '--gamma', '0'], 'gamma 0'),
        (['--paper', '--out', 'o', '--gamma', 'nan'], 'gamma nan'),
        (['--paper', '--out', 'o', '--weights', '0', '0', '0', '0'], 'weights'),
        (['missing.csv', '--out', 'o'], 'missing.csv'),
        (['--paper', '--out', 'o', '--recommend', 'R-50'], '--out with --recommend: one of them'),
        (['--paper', '--out', 'o', '--task', 'pose'], '--task: goes with --recommend'),
        (['--paper', '--out', 'o', '--selected-on', 'same'], '--selected-on: goes with --export'),
        (['--paper', '--recommend', 'R-5O'], "backbone 'R-5O'; did you mean R-50"),
    ],
)
def test_mistakes_are_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and message in said and said.count('\n') == 1


def test_user_csv(tmp_path):
    path = tmp_path / 'mine.csv'
    path.write_text('optimizer,R-50,Net\nSGD,80,70\nMuon,79,\nLION,60,69\n')
    assert main([str(path), '--out', str(tmp_path / 'o'), '--no-figures']) == 0
    check_contract(tmp_path / 'o', ['mine'], figures=False)


def test_one_optimizer_in_two_spellings_is_refused(tmp_path, capsys):
    path = tmp_path / 'mine.csv'
    path.write_text('optimizer,R-50\nSGD,80\nsgd,79\n')
    said = refused([str(path), '--out', str(tmp_path / 'o')], capsys)
    assert "optimizer 'sgd' stands there twice (as 'SGD'); keep one" in said


@pytest.mark.parametrize(
    ('backbone', 'task', 'expected'),
    [
        ('deit-s', 'classification', 'Adan'),
        ('R-50', 'detection', 'LAMB'),
        ('TNX-T', 'pose', 'AdamW'),  # the best of its only column, CIFAR-100
    ],
)
def test_recommend_from_the_paper(capsys, backbone, task, expected):
    assert main(['--recommend', backbone, '--task', task]) == 0
    places = [
        line.split()[:2] for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()
    ]
    assert [place for place, _ in places] == ['1.', '2.', '3.']
    assert places[0][1] == expected


def test_recommend_takes_own_runs_and_their_settings(tmp_path, capsys):
    for optimizer, best in (('SGD', 85.0), ('AdamW', 70.0), ('LAMB', 71.0), ('Adan', 72.0)):
        save(tmp_path, make_record(optimizer, 'DeiT-S', lr=0.07, weight_decay=0.003, best=best))
    assert main([str(tmp_path), '--recommend', 'deit-s']) == 0
    first = next(s for s in capsys.readouterr().out.splitlines() if s.startswith('1.'))
    assert 'SGD' in first and 'lr 0.07' in first and '0.003' in first and 'your best run' in first


def test_recommend_of_a_network_whose_every_run_diverged(tmp_path, capsys):
    path = tmp_path / 'mine.csv'
    path.write_text('optimizer,MyNet\nSGD,diverged\nAdamW,diverged\n')
    assert main([str(path), '--recommend', 'MyNet']) == 0
    out = capsys.readouterr().out
    assert 'every run of MyNet itself diverged' in out and '1. ' in out


def test_recommend_says_on_how_many_columns_a_setting_was_best(tmp_path, capsys):
    for backbone, lr in (('DeiT-S', 0.07), ('CNX-T', 0.07), ('Swin-T', 0.1)):
        for optimizer in ('LARS', 'LAMB', 'Adan'):
            save(tmp_path, make_record(optimizer, backbone, lr=lr, weight_decay=0.003))
    assert main([str(tmp_path), '--recommend', 'R-50']) == 0
    out = capsys.readouterr().out
    assert 'lr 0.07' in out and 'best on 2 of the 3 other columns of your runs' in out


def test_recommend_finds_a_network_of_ones_own_in_any_case(tmp_path, capsys):
    for optimizer, best in (('SGD', 85.0), ('AdamW', 70.0)):
        save(tmp_path, make_record(optimizer, 'MyNet-3', best=best))
    assert main([str(tmp_path), '--recommend', 'mynet-3']) == 0
    assert '1. SGD' in capsys.readouterr().out


def test_recommend_for_the_task_of_another_toolbox(tmp_path, capsys):
    for optimizer, best in (('SGD', 40.0), ('AdamW', 45.0)):
        record = make_record(optimizer, 'MiT-B0', best=best, task='segmentation', dataset='ade')
        save(tmp_path, record)
    assert main([str(tmp_path), '--recommend', 'MiT-B0', '--task', 'segmentation']) == 0
    assert '1. AdamW' in capsys.readouterr().out
    said = refused([str(tmp_path), '--recommend', 'MiT-B0', '--task', 'segmentaton'], capsys)
    assert "unknown task 'segmentaton'; did you mean segmentation" in said


def test_no_torch_no_mmengine(tmp_path):
    """A whole report in a process where neither can be imported."""
    program = f"""
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.split('.')[0] in ('torch', 'mmengine', 'mmcv', 'torchvision'):
            raise ImportError('refused: ' + name)
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, {str(ROOT)!r})
from bocb_mm.report.cli import main
sys.exit(main(['--paper', '--out', {str(tmp_path)!r}, '--no-figures']))
"""
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'report.html').exists()


def test_figures_do_not_change_the_users_matplotlib(run_report):
    import matplotlib

    assert matplotlib.rcParams['font.size'] == matplotlib.rcParamsDefault['font.size']
