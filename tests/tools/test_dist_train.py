"""The shell launchers, as users call them."""

import json
import os
import subprocess

import pytest

from tests.tools.tiny_config import write_tiny_config


def launch(root, script, *argv, cwd, **env):
    return subprocess.run(
        ['bash', str(root / 'tools' / script), *map(str, argv)],
        cwd=cwd, capture_output=True, text=True, timeout=280,
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': '-1', **env},
    )  # fmt: skip


@pytest.mark.parametrize(
    'script, argv, words',
    [
        ('dist_train.sh', ['c.py'], 'usage:'),
        ('dist_train.sh', ['{config}', '0'], 'at least 1'),
        ('dist_train.sh', ['{config}', 'four'], 'whole number'),
        ('dist_train.sh', ['gone.py', '2'], 'gone.py: no such file'),
        ('slurm_train.sh', ['part', 'job', '{config}'], 'usage:'),
        ('slurm_train.sh', ['part', 'job', 'gone.py', 'w'], 'gone.py: no such file'),
        ('NNODES=two dist_train.sh', ['{config}', '2'], 'NNODES=two: a whole number'),
        (
            'PYTHON=python3.99 dist_train.sh',
            ['{config}', '2'],
            'PYTHON=python3.99: no such program',
        ),
        ('GPUS=x slurm_train.sh', ['part', 'job', '{config}', 'w'], 'GPUS=x: a whole number'),
        ('GPUS_PER_NODE=0 slurm_train.sh', ['part', 'job', '{config}', 'w'], 'GPUS_PER_NODE=0: a'),
    ],
)
def test_a_mistake_gets_one_line_before_anything_starts(root, tmp_path, script, argv, words):
    config = tmp_path / 'c.py'
    config.write_text('')
    *told, script = script.split()
    env = dict(word.split('=') for word in told)
    done = launch(root, script, *[a.format(config=config) for a in argv], cwd=tmp_path, **env)
    assert done.returncode == 2
    assert done.stderr.startswith('error: ') and words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_slurm_is_asked_for_what_the_variables_say(root, tmp_path):
    """srun is a stand-in that prints its arguments: there is no Slurm here."""
    config = tmp_path / 'c.py'
    config.write_text('')
    fake = tmp_path / 'bin' / 'srun'
    fake.parent.mkdir()
    fake.write_text('#!/bin/bash\necho "$@"\n')
    fake.chmod(0o755)
    path = f'{fake.parent}:{os.environ["PATH"]}'
    done = launch(
        root,
        'slurm_train.sh',
        'part',
        'job',
        config,
        'w',
        '--amp',
        cwd=tmp_path,
        PATH=path,
        GPUS='16',
    )
    assert done.returncode == 0, done.stderr
    for word in ('-p part', '--ntasks=16', '--gres=gpu:8', '--signal=USR1@120', '--launcher slurm'):
        assert word in done.stdout
    assert done.stdout.strip().endswith(f'{config} --work-dir w --launcher slurm --amp')


@pytest.mark.timeout(600)
def test_two_cpu_processes_train_as_one_and_resume(root, tmp_path, run_tool, capsys):
    """Same global batch, BN in eval mode: the weights agree within float tolerance."""
    config = write_tiny_config(tmp_path, batch_size=4, norm_eval=True)
    unshuffled = 'train_dataloader.sampler.shuffle=False'
    two = launch(
        root, 'dist_train.sh', config, '2', '--work-dir', 'two', '--cfg-options', unshuffled,
        cwd=tmp_path,
    )  # fmt: skip
    assert two.returncode == 0, two.stderr[-3000:]
    status, _, err = run_tool(
        'train', config, '--work-dir', tmp_path / 'one', '--cfg-options', unshuffled,
        'train_dataloader.batch_size=8', capsys=capsys,
    )  # fmt: skip
    assert status == 0, err
    records = [json.loads((tmp_path / n / 'run.json').read_text()) for n in ('one', 'two')]
    assert [r['iterations'] for r in records] == [2, 2]
    assert records[1]['last'] == pytest.approx(records[0]['last'])

    import torch

    states = [
        torch.load(tmp_path / n / 'epoch_1.pth', weights_only=False)['state_dict']
        for n in ('one', 'two')
    ]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-5, msg=name)

    import pandas as pd

    frames = [pd.read_csv(tmp_path / n / 'layer_metrics.csv') for n in ('one', 'two')]
    assert not frames[1].duplicated(['layer', 'iteration']).any()  # the main process alone writes
    pd.testing.assert_frame_equal(
        frames[1][['layer', 'l2_norm', 'iteration']],
        frames[0][['layer', 'l2_norm', 'iteration']],
        rtol=1e-4,
    )

    more = launch(
        root, 'dist_train.sh', config, '2', '--work-dir', 'two', '--resume',
        '--cfg-options', unshuffled, 'train_cfg.max_epochs=2', cwd=tmp_path,
    )  # fmt: skip
    assert more.returncode == 0, more.stderr[-3000:]
    record = json.loads((tmp_path / 'two' / 'run.json').read_text())
    assert record['iterations'] == 4 and len(record['evaluations']) == 2


def test_a_mistake_inside_the_processes_is_one_line_too(root, tmp_path):
    config = write_tiny_config(tmp_path)
    done = launch(root, 'dist_train.sh', config, '2', '--optimizer', 'adanw', cwd=tmp_path)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1 and 'AdamW' in errors[0]
    assert 'Traceback' not in done.stderr
