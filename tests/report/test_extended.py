"""A 21st optimizer and a 21st backbone: a row of facts each, and the report shows them."""

import dataclasses

import pandas as pd
import pytest

from bocb_mm import facts
from bocb_mm.report import build, names, recommend, style, summary
from bocb_mm.report.cli import main
from bocb_mm.report.model import Options
from tests.report.synthetic_runs import make_record, save


@pytest.fixture
def toys(monkeypatch):
    """An optimizer of category b and a classical backbone, neither of them the paper's."""
    optimizer = dataclasses.replace(
        facts.OPTIMIZERS['AdamW'], name='ToyOpt', in_paper=False, aliases=('Toy-Opt',)
    )
    backbone = dataclasses.replace(
        facts.BACKBONES['R-50'], name='ToyNet', in_paper=False, paper_name='ToyNet-9', aliases=()
    )
    monkeypatch.setitem(facts.OPTIMIZERS, 'ToyOpt', optimizer)
    monkeypatch.setitem(facts.BACKBONES, 'ToyNet', backbone)


def test_they_are_reported_and_drawn(toys, tmp_path):
    for optimizer in ('SGD', 'bocb_mm.toyopt', 'timm.muon', 'AdamW'):
        for backbone in ('CNX-T', 'toynet-9', 'MyNet'):
            for i, lr in enumerate((1e-3, 1e-2)):
                record = make_record(optimizer, backbone, lr=lr, best=70.0 + len(optimizer) + i)
                save(tmp_path / 'runs', record)
    assert main([str(tmp_path / 'runs'), '--paper', '--out', str(tmp_path / 'o'), '--quiet']) == 0
    paper_rows = (tmp_path / 'o' / 'table1_cifar100.csv').read_text().splitlines()
    assert [line.split(',')[0] for line in paper_rows[1:]] == ['SGD', 'AdamW']
    lines = (tmp_path / 'o' / 'table1_cifar100_extended.csv').read_text().splitlines()
    assert lines[0] == 'optimizer,CNX-T,ToyNet,MyNet'
    assert [line.split(',')[0] for line in lines[1:]] == ['SGD', 'AdamW', 'ToyOpt', 'timm.muon']
    curves = (tmp_path / 'o' / 'figures' / 'table1_cifar100_extended_lr_curves.svg').read_text()
    for optimizer in ('SGD', 'ToyOpt', 'timm.muon'):
        assert style.look(optimizer).color.lower() in curves.lower()
    page = (tmp_path / 'o' / 'report.html').read_text(encoding='utf-8')
    assert 'adaptive rate with momentum; not one of the paper&#39;s' in page
    assert 'in the extended table only: ToyOpt, timm.muon' in page
    ranked = (tmp_path / 'o' / 'rankings.csv').read_text().splitlines()
    assert {line.split(',')[0] for line in ranked[1:]} == {'SGD', 'AdamW'}
    # the paper's own table has its 20 only
    assert 'ToyOpt' not in (tmp_path / 'o' / 'table1_cifar100_paper.csv').read_text()


def results(tmp_path, optimizers, dataset='cifar100'):
    """A report of runs of these optimizers on two networks, better from one to the next."""
    for i, optimizer in enumerate(optimizers):
        for backbone in ('CNX-T', 'R-50'):
            save(tmp_path, make_record(optimizer, backbone, dataset=dataset, best=70.0 + i))
    return build.gather(Options(paths=(str(tmp_path),), figures=False, progress=False))


def test_an_error_of_a_network_that_only_the_others_were_run_on(tmp_path):
    for optimizer, backbone in (('SGD', 'R-50'), ('Adam', 'R-50'), ('timm.muon', 'Swin-T')):
        record = make_record(optimizer, backbone, best=None)
        record.metric = 'val/loss'
        record.add_evaluation(4, 400, {'val/loss': 0.5})
        save(tmp_path / 'runs', record)
    assert main([str(tmp_path / 'runs'), '--paper', '--out', str(tmp_path / 'o'), '--quiet']) == 0
    assert (tmp_path / 'o' / 'table1_cifar100.csv').read_text().startswith('optimizer,R-50\n')


def test_thresholds_and_ranks_of_the_papers_table_do_not_see_the_others(tmp_path):
    own = results(tmp_path / 'a', ['SGD', 'AdamW', 'LAMB'])
    both = results(tmp_path / 'b', ['SGD', 'AdamW', 'LAMB', 'Muon', 'SOAP'])
    alone, extended = both.tables
    assert (alone.name, extended.name) == ('table1_cifar100', 'table1_cifar100_extended')
    pd.testing.assert_frame_equal(alone.statistics, own.tables[0].statistics)
    pd.testing.assert_frame_equal(both.rankings, own.rankings)
    assert list(extended.values.index) == ['SGD', 'AdamW', 'LAMB', 'Muon', 'SOAP']
    assert (
        set(alone.cells['optimizer']) == set(alone.settings['optimizer']) == set(own.rankings.index)
    )


def test_advice_counts_each_result_once(tmp_path):
    report = results(tmp_path, ['SGD', 'AdamW', 'Muon'])
    advice, basis = recommend.recommend(report.tables, 'CNX-T', n=30)
    assert basis.startswith('2 columns of')  # one of the runs, one of the paper
    own = {a.optimizer: [r for r in a.reasons if r.startswith('yours')] for a in advice}
    assert {o: len(lines) for o, lines in own.items() if lines} == dict.fromkeys(
        ('SGD', 'AdamW', 'Muon'), 1
    )


def test_without_any_of_the_papers_there_is_the_extended_table_alone(tmp_path):
    report = results(tmp_path, ['Muon', 'SOAP'])
    assert [t.name for t in report.tables] == ['table1_cifar100_extended']
    assert list(report.rankings.index) == ['SOAP', 'Muon']


def test_a_table_of_other_data_holds_whatever_was_run(tmp_path):
    report = results(tmp_path, ['SGD', 'Muon'], dataset='digits')
    assert [t.name for t in report.tables] == ['classification_digits']
    assert list(report.rankings.index) == ['Muon', 'SGD']


def test_a_csv_of_the_papers_name_is_split_too(tmp_path):
    file = tmp_path / 'table1_cifar100.csv'
    file.write_text('optimizer,CNX-T,R-50\nSGD-M,70,71\nMuon,80,81\nAdamW,75,74\n')
    options = Options(paths=(str(file),), paper=True, figures=False)
    alone, extended, *_ = build.gather(options).tables
    assert list(alone.values.index) == ['SGD-M', 'AdamW'] and len(extended.values) == 3
    assert extended.reference.loc['AdamW', 'CNX-T'] == alone.reference.loc['AdamW', 'CNX-T']


def test_their_looks(toys):
    assert names.optimizer_class('ToyOpt') == 'b' and names.optimizer_class('timm.muon') == ''
    assert names.backbone_class('ToyNet') == 'classical CNN' and names.backbone_class('MyNet') == ''
    assert style.look('toy-opt') == style.look('ToyOpt') != style.look('AdamW')
    assert summary.kind_label('timm.muon') == 'in no catalog'
    assert [n for n, row in facts.OPTIMIZERS.items() if row.in_paper] == names.OPTIMIZERS


def test_no_two_of_the_catalog_look_the_same():
    looks = {style.look(name) for name in facts.OPTIMIZERS}
    assert len(looks) == len(facts.OPTIMIZERS)
    assert len({look.color for look in looks}) >= 20
