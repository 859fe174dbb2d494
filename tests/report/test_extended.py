"""A 21st optimizer and a 21st backbone: a row of facts each, and the report shows them."""

import dataclasses

import pytest

from bocb_mm import facts
from bocb_mm.report import names, style, summary
from bocb_mm.report.cli import main
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
    lines = (tmp_path / 'o' / 'table1_cifar100.csv').read_text().splitlines()
    assert lines[0] == 'optimizer,CNX-T,ToyNet,MyNet'
    assert [line.split(',')[0] for line in lines[1:]] == ['SGD', 'AdamW', 'ToyOpt', 'timm.muon']
    curves = (tmp_path / 'o' / 'figures' / 'table1_cifar100_lr_curves.svg').read_text()
    for optimizer in ('SGD', 'ToyOpt', 'timm.muon'):
        assert style.look(optimizer).color.lower() in curves.lower()
    page = (tmp_path / 'o' / 'report.html').read_text(encoding='utf-8')
    assert 'adaptive rate with momentum; not one of the paper&#39;s' in page
    # the paper's own table has its 20 only
    assert 'ToyOpt' not in (tmp_path / 'o' / 'table1_cifar100_paper.csv').read_text()


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
