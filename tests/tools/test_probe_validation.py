"""tools/benchmarks/probe_validation.py: what it would train, and its tables."""

import importlib.util
import itertools
import json

import numpy as np
import pytest

from bocb_mm.cli.probe import parser
from bocb_mm.probe.plan import DEFAULT_OPTIMIZERS, SEEDS
from tests.conftest import ROOT
from tests.report.test_validation import ADAPTIVE, FIXED, probe_of, study_of


@pytest.fixture(scope='module')
def tool():
    file = ROOT / 'tools' / 'benchmarks' / 'probe_validation.py'
    spec = importlib.util.spec_from_file_location('probe_validation', file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_study_shares_neither_optimizers_nor_seeds_with_a_probe(tool, tmp_path):
    seeds = {}
    for part in ('probe', 'again', 'study'):
        args = parser().parse_args(tool.arguments_of('vgg', part, tmp_path))
        first = args.first_seed or 0
        seeds[part] = set(range(first, first + 1 + SEEDS))
        names = set(args.optimizers or DEFAULT_OPTIMIZERS)
        assert names == set(ADAPTIVE + FIXED if part == 'study' else DEFAULT_OPTIMIZERS)
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(seeds.values(), 2))
    assert not set(ADAPTIVE + FIXED) & set(DEFAULT_OPTIMIZERS)
    assert (tool.ADAPTIVE, tool.FIXED) == (ADAPTIVE, FIXED)


def test_each_network_has_a_config(tool):
    assert {f.stem for f in tool.CONFIGS.glob('*.py')} == set(tool.NETWORKS)


def save(folder, result, seconds=(60.0, 30.0)):
    result = {**result, 'protocol': {'seeds': 4}}
    (folder / 'runs' / 'a').mkdir(parents=True)
    (folder / 'probe.json').write_text(json.dumps(result))
    lines = [json.dumps({'outcome': 'completed', 'cpu_seconds': s}) for s in seconds]
    (folder / 'runs' / 'a' / 'attempts.jsonl').write_text('\n'.join(['', *lines, '']))


def test_the_tables_hold_what_has_ended(tool, tmp_path):
    rng = np.random.default_rng(0)
    for network, true_gap in zip(tool.NETWORKS[:5], (-5.0, 0.0, 5.0, 8.0, 10.0)):
        save(tmp_path / network / 'probe', probe_of(true_gap, rng))
        save(tmp_path / network / 'study', study_of(true_gap, rng))
    stopped = probe_of(3.0, rng)
    stopped['optimizers'][0]['fresh'].pop()
    save(tmp_path / tool.NETWORKS[0] / 'again', stopped)
    text = tool.tables(tmp_path)
    assert text == (tmp_path / 'validation.md').read_text()
    row = next(line for line in text.splitlines() if line.startswith(f'| {tool.NETWORKS[3]} '))
    assert row.count('coupled to adaptive rates') >= 2 and 'not run' in row
    assert '\n| again |' not in text  # it was stopped on its way
    assert any(line.startswith('| probe | 5 | 28.0 | 1.5 |') for line in text.splitlines())
    whole = json.loads((tmp_path / 'validation.json').read_text())
    assert whole['against']['study']['spearman'][0] == 1.0
    assert (tmp_path / 'validation.png').stat().st_size > 5000


def test_an_empty_folder_is_one_line(tool, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('sys.argv', ['probe_validation.py', str(tmp_path), '--tables'])
    with pytest.raises(SystemExit) as ended:
        tool.main()
    assert ended.value.code == 2 and 'no probe that has ended' in capsys.readouterr().err
