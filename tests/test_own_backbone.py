"""docs/own_backbone.md is true: its files, trained by its commands, on less data."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / 'docs/own_backbone.md').read_text(encoding='utf-8').replace('\\\n', ' ')
# What a test leaves out of ten epochs on all digits.
SHORT = [
    'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'train_dataloader.dataset.indices=128',
    'val_dataloader.dataset.indices=64', 'param_scheduler.1.begin=0', 'param_scheduler.1.end=1',
    'log_level=ERROR', 'default_hooks.layer_metrics=None',
]  # fmt: skip


def commands(tool):
    """Arguments of each call of a tool in the page."""
    lines = re.findall(rf'^bocb {tool} (.*)$', TEXT, re.MULTILINE)
    return [line.split() for line in lines]


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A folder with the page's files and the small data, on the path as the page says."""
    from bocb_mm.datasets import prepare_quickstart, scenes, stick_figures

    folder = tmp_path_factory.mktemp('project')
    for block in re.findall(r'```python\n(# \w[\w-]*\.py\n.*?)```', TEXT, re.DOTALL):
        name = block.partition('\n')[0].removeprefix('# ')
        (folder / name).write_text(block)
    with pytest.MonkeyPatch.context() as patch:
        for module in (scenes, stick_figures):
            patch.setattr(module, 'COUNTS', {'train': 8, 'val': 4})
        prepare_quickstart(folder / 'data/quickstart')
        patch.syspath_prepend(str(folder))
        patch.chdir(folder)
        yield folder
    sys.modules.pop('my_net', None)


@pytest.fixture(scope='module')
def records(project):
    """The page's trainings, in its order: classifiers, then the detector from one of them."""
    import importlib

    train = importlib.import_module('bocb_mm.cli.train')
    done = {}
    for arguments in commands('train'):
        arguments = [a.replace('epoch_10.pth', 'epoch_1.pth') for a in arguments]
        assert train.main([*arguments, '--cfg-options', *SHORT]) in (0, None)
        folder = Path(arguments[arguments.index('--work-dir') + 1])
        done[folder.name] = json.loads((folder / 'run.json').read_text())
    return done


def test_its_trainings_are_recorded_under_its_name(records):
    assert list(records) == ['AdamW', 'LAMB', 'my-detector']
    for name, record in records.items():
        assert (record['status'], record['backbone']) == ('completed', 'MyNet')
        assert record['iterations'] > 0 and record['evaluations']
        if name != 'my-detector':
            assert (record['task'], record['optimizer']) == ('classification', name)


def test_the_detector_starts_from_the_classifier(records):
    record = records['my-detector']
    assert (record['task'], record['pretraining']) == ('detection', 'AdamW')


def test_the_report_compares_its_optimizers(records, project):
    import pandas as pd

    from bocb_mm.report.cli import main

    ((runs, *_),) = commands('report')
    assert main([runs, '--out', 'report', '--quiet', '--no-figures']) == 0
    (table,) = [
        t for f in (project / 'report').glob('*.csv')
        if 'MyNet' in (t := pd.read_csv(f, index_col=0)).columns
    ]  # fmt: skip
    assert set(table.index[table['MyNet'].notna()]) == {'AdamW', 'LAMB'}


def test_another_name_is_the_record_hooks(project):
    from bocb_mm.launch.train import TrainOptions, prepare

    (line,) = re.findall(r'^default_hooks = .*$', TEXT, re.MULTILINE)
    config = project / 'named.py'
    config.write_text((project / 'digits_my-net.py').read_text() + line + '\n')
    cfg = prepare(str(config), TrainOptions(work_dir='named'))
    assert cfg.default_hooks.run_record.backbone == 'MyNet-32'


def test_a_module_that_is_not_on_the_path_is_one_line(project, run_tool, capsys, tmp_path):
    config = tmp_path / 'config.py'
    text = (project / 'digits_my-net.py').read_text()
    config.write_text(text.replace("imports='my_net'", "imports='their_net'"))
    status, _, err = run_tool('train', config, capsys=capsys)
    assert status == 2 and 'their_net' in err and 'Traceback' not in err
