"""The command ``bocb``: what it lists, finds and refuses, from any folder."""

import os
import subprocess
import sys

import pytest

from bocb_mm import facts
from bocb_mm.cli import main as cli


def bocb(*argv, capsys):
    """Call the command in this process; returns (exit status, stdout, stderr)."""
    capsys.readouterr()
    try:
        status = cli.main([str(a) for a in argv])
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    return status or 0, out, err


@pytest.fixture(autouse=True)
def keep_argv(monkeypatch):
    """The command sets sys.argv[0] for argparse."""
    monkeypatch.setattr(sys, 'argv', list(sys.argv))


def test_help_names_every_command_with_what_it_does(capsys):
    status, out, _ = bocb('--help', capsys=capsys)
    assert status == 0
    for name, (_, text) in cli.commands().items():
        assert f'  {name}' in out and text in out
    assert {'train', 'test', 'dist', 'sweep', 'report', 'layers', 'doctor', 'quickstart'} <= set(
        cli.commands()
    )


def test_without_a_command_it_says_how_to_call_it(capsys):
    status, out, _ = bocb(capsys=capsys)
    assert status == 2 and out.startswith('usage: bocb')


@pytest.mark.parametrize('name', list(cli.commands()))
def test_every_command_has_help_under_its_own_name(name, capsys):
    status, out, _ = bocb(name, '--help', capsys=capsys)
    assert status == 0
    assert f'bocb {name}' in out or name in ('dist', 'slurm', 'slurm-sweep', 'sweep')


def test_a_mistyped_command_is_one_line(capsys):
    status, _, err = bocb('trian', capsys=capsys)
    assert status == 2 and err.count('\n') == 1 and 'did you mean train' in err


def test_the_version_is_the_packages(capsys):
    from bocb_mm import __version__

    assert bocb('--version', capsys=capsys)[1] == f'bocb_mm {__version__}\n'


def test_the_optimizers_are_listed_with_where_to_start(capsys):
    status, out, _ = bocb('optimizers', capsys=capsys)
    assert status == 0
    names = [line.split('|')[1].strip() for line in out.splitlines() if line.startswith('| ')]
    assert names[2:] == list(facts.OPTIMIZERS)
    _, out, _ = bocb('optimizers', 'ada*', capsys=capsys)
    assert 'AdaBound' in out and 'LARS' not in out


def test_one_optimizer_shows_its_sources(capsys):
    status, out, _ = bocb('optimizers', 'sgd-m', capsys=capsys)
    assert status == 0
    for recipe in facts.RECIPES:
        assert f'| {recipe} ' in out and facts.default('SGD', recipe).source in out


def test_the_backbones_are_listed(capsys):
    _, out, _ = bocb('backbones', capsys=capsys)
    assert all(f'| {name} ' in out for name in facts.BACKBONES)
    _, out, _ = bocb('backbones', '*former*', capsys=capsys)
    assert 'CAF-12' in out and 'R-50' not in out


def test_the_configs_are_listed(capsys, root):
    _, out, _ = bocb('configs', 'cifar100/*', capsys=capsys)
    assert len(out.splitlines()) == 20 and 'pretrain/cifar100/cnx-t\n' in out
    _, out, _ = bocb('configs', 'cnx-t', '--paths', capsys=capsys)
    assert out.strip() == str(root / 'configs' / 'pretrain' / 'cifar100' / 'cnx-t.py')


@pytest.mark.parametrize(
    'argv, words',
    [
        (['train', 'cifar100/cnx-tt'], ['cifar100/cnx-tt', 'pretrain/cifar100/cnx-t']),
        (['train', 'cifar100/cnx-t', '--optimizer', 'adanw'], ['adanw', 'AdamW']),
        (['test', 'cifar100/cnx-tt', 'x.pth'], ['cifar100/cnx-tt']),
        (['dist', 'cifar100/cnx-tt', '2'], ['cifar100/cnx-tt']),
        (['slurm', 'part', 'job', 'cifar100/cnx-tt', 'w'], ['cifar100/cnx-tt']),
        (['optimizers', 'adanw'], ['adanw', 'AdamW']),
        (['backbones', 'r-51'], ['r-51', 'R-50']),
        (['configs', 'nothing*'], ['nothing*']),
    ],
)
def test_a_wrong_name_is_one_line_before_anything_is_imported(argv, words, tmp_path):
    blocked = ''.join(f'sys.modules[{name!r}] = None; ' for name in ('torch', 'mmengine', 'pandas'))
    code = f'import sys; {blocked}from bocb_mm.cli.main import main; sys.exit(main())'
    done = subprocess.run(
        [sys.executable, '-c', code, *argv], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
    for word in words:
        assert word in done.stderr


def test_dist_hands_the_named_config_and_this_python_to_the_script(monkeypatch, root):
    from bocb_mm.cli import dist

    seen = {}
    monkeypatch.delenv('PYTHON', raising=False)
    monkeypatch.setattr(os, 'execvpe', lambda *call: seen.update(call=call))
    dist.main(['cifar100/cnx-t', '4', '--amp'])
    program, words, environment = seen['call']
    config = str(root / 'configs' / 'pretrain' / 'cifar100' / 'cnx-t.py')
    script = str(root / 'tools' / 'dist_train.sh')
    assert (program, words) == ('bash', ['bash', script, config, '4', '--amp'])
    assert environment['PYTHON'] == sys.executable


def test_two_processes_train_a_config_from_a_folder_that_is_not_the_checkout(tmp_path):
    from bocb_mm.runs.record import RunRecord
    from tests.tools.tiny_config import write_tiny_config

    config = write_tiny_config(tmp_path)
    done = subprocess.run(
        [sys.executable, '-m', 'bocb_mm.cli', 'dist', config.name, '2', '--work-dir', 'w'],
        cwd=tmp_path, capture_output=True, text=True, timeout=280,
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': '-1',
             'PYTHONPATH': os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert RunRecord.load(tmp_path / 'w').status == 'completed'
