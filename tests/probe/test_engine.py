"""A probe through the search's engine, with trainings of two iterations."""

import json
import shutil
from dataclasses import replace

from bocb_mm.probe import Options, probe
from bocb_mm.probe.engine import place
from bocb_mm.report.probed import FRESH, TUNING
from tests.tools.tiny_config import write_tiny_config


def test_a_cluster_is_asked_for_gpus_or_not_as_jobs_says():
    on_cpus = place(Options(out='o', address='auto', jobs=4, threads=2))
    assert not on_cpus.on_gpu and on_cpus.threads_each == 2
    assert place(Options(out='o', address='auto')).on_gpu


def test_a_probe_of_real_trainings(tmp_path, monkeypatch):
    out = tmp_path / 'out'
    options = Options(
        out=str(out),
        config=str(write_tiny_config(tmp_path)),
        optimizers=('AdamW',),
        seeds=1,
        jobs=1,
    )
    lines = []
    result, status = probe(options, say=lines.append)
    assert status == 0 and result['gap']['verdict'] == 'undecided'  # one optimizer, one seed
    stages = [r['stage'] for r in result['runs']]
    assert stages.count(TUNING) >= 7 and stages.count(FRESH) == 1
    assert all(r['status'] in ('completed', 'diverged') for r in result['runs'])
    assert result['subject']['metric'] == 'accuracy/top1' and result['subject']['floor'] == 25.0
    records = {p: p.stat().st_mtime_ns for p in out.rglob('run.json')}
    assert len(records) == len(stages)
    assert not list(out.rglob('*.pth'))  # results are kept, weights are not
    assert len(list(out.rglob('layer_metrics.csv'))) == 1
    assert json.loads((out / 'probe.json').read_text())['sentences'] == list(result['sentences'])
    again, status = probe(options, say=lines.append)
    assert status == 0 and again['runs'] == result['runs']
    assert {p: p.stat().st_mtime_ns for p in out.rglob('run.json')} == records
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    shutil.copy(options.config, 'tiny.py')
    for path in ('../tiny.py', 'tiny.py'):  # the same file by another name, and one that was moved
        again, status = probe(replace(options, config=path), say=lines.append)
        assert status == 0 and again['runs'] == result['runs'], path
