"""The command line of the probe."""

import json
import sys

import pytest

from bocb_mm.cli.probe import main
from bocb_mm.probe.run import shipped_references


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    return capsys.readouterr().err


def test_what_is_missing_is_said_in_a_line(capsys, tmp_path):
    assert 'error: --out DIR is expected' in refused(['--backbone', 'R-50'], capsys)
    text = refused(['--out', str(tmp_path / 'x')], capsys)
    assert (
        text == 'error: a CONFIG, or --backbone NAME with or without --data FOLDER, is expected\n'
    )
    text = refused([str(tmp_path / 'no.py'), '--out', str(tmp_path / 'x')], capsys)
    assert 'no such file' in text and not (tmp_path / 'x').exists()


@pytest.mark.parametrize(
    'arguments, said',
    [
        (['--iterations', '8'], '--iterations 8: at least 20 is expected'),
        (['--optimizers', 'SGD', 'adanw:0.1'], "unknown optimizer 'adanw'"),
        (['mine.py', '--data', 'photos'], 'a CONFIG, or --backbone NAME'),
    ],
)
def test_a_mistake_is_said_before_the_toolboxes_are_imported(
    arguments, said, capsys, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, 'bocb_mm.probe.run', None)  # its import would fail
    (tmp_path / 'mine.py').touch()
    monkeypatch.chdir(tmp_path)
    assert said in refused(['--backbone', 'R-50', '--out', 'x', *arguments], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ['mine.py']


def test_a_rate_for_another_optimizer(capsys):
    assert main(['--translate', 'sgd:0.02', 'adamw']) == 0
    assert capsys.readouterr().out.startswith(
        'AdamW: lr 0.0002, weight decay 0.05; SGD 0.02 times 0.01'
    )
    assert 'OPTIMIZER:LR' in refused(['--translate', 'sgd', 'adamw'], capsys)
    assert "unknown optimizer 'adamx'" in refused(['--translate', 'sgd:1', 'adamx'], capsys)


def test_a_rate_of_a_detector_is_the_detectors(capsys, tmp_path):
    config = tmp_path / 'c.py'
    config.write_text(
        "default_scope = 'mmdet'\nmodel = dict(type='A')\ntrain_cfg = dict(max_epochs=2)\n"
    )
    assert main([str(config), '--translate', 'SGD:0.02', 'AdamW']) == 0
    assert 'for schedule detection (SGD 0.01: mmdet RetinaNet R-50' in capsys.readouterr().out


def test_a_probes_own_rates_come_first(capsys, tmp_path):
    rows = [
        {'name': 'SGD', 'lr': 0.4, 'fresh': [1.0]},
        {'name': 'AdamW', 'lr': 0.004, 'fresh': [1.0]},
    ]
    whole = {**shipped_references()[0], 'optimizers': rows}
    (tmp_path / 'probe.json').write_text(json.dumps(whole))
    assert main(['--translate', 'SGD:0.2', 'AdamW', '--out', str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert 'AdamW: lr 0.002' in out and 'the ratio of their best rates' in out
    assert main(['--translate', 'SGD:0.2', 'LION', '--out', str(tmp_path)]) == 0
    assert "the catalog's rates" in capsys.readouterr().out
