"""The reference networks that ship with their results."""

import json

from bocb_mm.probe import plan, target
from bocb_mm.probe.options import Options
from bocb_mm.probe.run import shipped_references
from bocb_mm.report import gap, probed
from bocb_mm.report.probed import Subject


def test_they_follow_from_their_runs(tmp_path):
    found = shipped_references()
    assert found
    for one in found:
        (tmp_path / 'probe.json').write_text(json.dumps(one))
        assert probed.read(tmp_path) == one
        sides = {}
        for row in one['optimizers']:
            fresh = [
                r['value'] for r in one['runs']
                if (r['optimizer'], r['stage'], r['lr']) == (row['name'], 'fresh', row['lr'])
            ]  # fmt: skip
            assert sorted(fresh) == sorted(row['fresh'])
            sides[row['name']] = fresh
        told = one['gap']
        again = gap.difference(sides[told['adaptive']], sides[told['fixed']])
        assert again.to_json() == gap.Interval.of(told['interval']).to_json()
        assert told['verdict'] == gap.decide(again, one['margin'])


def test_they_stand_beside_a_probe_of_the_digits_with_default_arguments(monkeypatch, tmp_path):
    monkeypatch.setenv('BOCB_DATA_ROOT', str(tmp_path))
    monkeypatch.setattr(
        target.networks, 'model_of', lambda *a: {'type': 'A', 'backbone': {'type': 'B'}}
    )
    found = target.find_target(Options(out='x', backbone='Mine'))
    subject = Subject(
        'Mine', found.task, found.dataset, found.metric, found.budget(1), plan.PROTOCOL, found.data
    )
    for one in shipped_references():
        assert subject.comparable(one['subject'])
