"""The facts that catalogs and report share."""

import pytest

from bocb_mm import facts
from bocb_mm.report import paper


def test_the_papers_rows_come_first_in_the_order_of_its_tables():
    table = paper.read('table1_cifar100')
    for rows, printed in ((facts.OPTIMIZERS, table.index), (facts.BACKBONES, table.columns)):
        flags = [row.in_paper for row in rows.values()]
        assert flags == sorted(flags, reverse=True) and sum(flags) == 20
        find = facts.find_optimizer if rows is facts.OPTIMIZERS else facts.find_backbone
        assert [find(name).name for name in printed] == list(rows)[:20]


@pytest.mark.parametrize(
    'rows', [facts.OPTIMIZERS, facts.BACKBONES], ids=['optimizers', 'backbones']
)
def test_a_name_is_of_one_row(rows):
    seen = {}
    for row in rows.values():
        for name in (row.name, getattr(row, 'paper_name', row.name), *row.aliases):
            assert facts.key(name) and seen.setdefault(facts.key(name), row.name) == row.name


def test_categories_are_known():
    assert {r.category for r in facts.OPTIMIZERS.values()} == set(facts.OPTIMIZER_CATEGORIES)
    assert {r.category for r in facts.BACKBONES.values()} == set(facts.BACKBONE_CATEGORIES)


def test_defaults_are_of_known_optimizers_and_say_their_source():
    for (optimizer, recipe), default in facts.DEFAULTS.items():
        assert optimizer in facts.OPTIMIZERS and recipe
        assert default.lr > 0 and default.weight_decay >= 0 and default.source and default.sourced


@pytest.mark.parametrize('name', ['bocb_mm.timm.muon', 'MyNet', '', '漢'])
def test_an_unknown_name_has_no_row(name):
    assert facts.find_optimizer(name) is None and facts.find_backbone(name) is None
