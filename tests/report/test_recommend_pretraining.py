"""Advice that knows what made the checkpoint, and what was probed."""

import json

from bocb_mm.report.probed import analyse
from bocb_mm.report.recommend import from_probes, recommend
from tests.report.test_probed import DEFAULTS, SUBJECT, runs


def test_each_pretraining_of_r50_has_its_own_answer():
    found = {
        name: recommend([], 'R-50', 'detection', pretraining=name)
        for name in ('SGD', 'lars', 'rsb-a2', 'adan')
    }
    first = {name: tuple(a.optimizer for a in advice) for name, (advice, _) in found.items()}
    assert len(set(first.values())) == 4
    assert '1 of them from the pre-training A2' in found['rsb-a2'][1]


def test_without_one_it_says_that_they_are_mixed():
    _, basis = recommend([], 'R-50', 'detection')
    assert 'SGD' in basis and 'LARS' in basis and '--pretraining NAME' in basis
    _, basis = recommend([], 'R-50', 'detection', pretraining='Muon')
    assert 'none from the pre-training Muon' in basis
    _, basis = recommend([], 'DeiT-S')
    assert 'pretraining' not in basis


def test_a_probe_of_the_network_comes_first(tmp_path):
    heights = {'SGD': 40, 'LARS': 38, 'AdamW': 47, 'LION': 46}
    (tmp_path / 'probe.json').write_text(json.dumps(analyse(SUBJECT, runs(heights), DEFAULTS, 3.0)))
    (line,) = from_probes([str(tmp_path), str(tmp_path / 'none')], 'mynet', 'classification')
    assert 'coupled to adaptive rates' in line and 'Train with AdamW' in line
    assert not from_probes([str(tmp_path)], 'R-50', 'classification')
    assert not from_probes([str(tmp_path)], 'MyNet', 'detection')
