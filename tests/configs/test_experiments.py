"""Every experiment's config: it can be read, builds, and trains a step on tiny data of its format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tiny_data import trust_tiny_cifar, write_cifar100, write_coco, write_imagenet

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
EXPERIMENTS = sorted(
    p.relative_to(CONFIGS).as_posix()
    for p in [*CONFIGS.glob('*.py'), *CONFIGS.glob('pretrain/*/*.py')]
)


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    write_coco(root / 'coco')
    write_imagenet(root / 'imagenet', n_train=8, n_val=4)
    write_cifar100(root / 'cifar100')
    return root


SMALL = {  # per kind of config: small pictures and batches, nothing else is changed
    'retinanet': [
        'train_dataloader.dataset.pipeline.2.scale=(128,96)',
        'val_dataloader.dataset.pipeline.1.scale=(128,96)',
        'train_dataloader.batch_size=2',
    ],
    'topdown': ['train_dataloader.batch_size=2', 'val_dataloader.batch_size=2'],
    'pretrain/imagenet': ['train_dataloader.batch_size=4', 'val_dataloader.batch_size=4'],
    'pretrain/cifar100': ['train_dataloader.batch_size=32', 'val_dataloader.batch_size=32'],
}
COMMON = [
    'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False',
    'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'log_level=ERROR',
    'default_hooks.layer_metrics=None',
]  # fmt: skip


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_an_experiment_trains_on_tiny_data(
    name, data_root, run_tool, capsys, monkeypatch, tmp_path
):
    monkeypatch.setenv('BOCB_DATA_ROOT', str(data_root))
    trust_tiny_cifar(monkeypatch)
    small = next(options for kind, options in SMALL.items() if name.startswith(kind))
    status, _, err = run_tool(
        'train', CONFIGS / name, '--pretrained', 'none', '--work-dir', tmp_path,
        '--cfg-options', *COMMON, *small, capsys=capsys,
    )  # fmt: skip
    assert status == 0, err
    record = json.loads((tmp_path / 'run.json').read_text())
    assert record['status'] == 'completed' and record['iterations'] >= 1
    assert record['gamma'] == (1 if 'imagenet' in name else 3) and record['recipe']
    assert record['metric'] in record['evaluations'][0]


@pytest.mark.parametrize('name', [n for n in EXPERIMENTS if not n.startswith('pretrain')])
def test_the_pre_training_is_named_and_can_be_had(name):
    from mmengine.config import Config

    from bocb_mm.runs import run_directory

    cfg = Config.fromfile(CONFIGS / name)
    assert cfg.pretraining
    if '://' in cfg.pretrained:
        return
    # Our own pre-training: the file is the one that the named command leaves.
    config = next(w for w in cfg.pretrained_command.split() if w.endswith('.py'))
    pretraining = Config.fromfile(CONFIGS.parent / config)
    optimizer = pretraining.optim_wrapper.optimizer
    where = run_directory(
        'work_dirs', Path(config).stem, optimizer.type.removeprefix('bocb_mm.'),
        optimizer.lr, optimizer.weight_decay, 0,
    )  # fmt: skip
    assert Path(cfg.pretrained) == where / f'epoch_{pretraining.train_cfg.max_epochs}.pth'
