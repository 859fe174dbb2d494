"""Every experiment's config: it is what its name says, builds, and trains a step on tiny data."""

from __future__ import annotations

import copy
import functools
import gc
import importlib
import json
import os
from pathlib import Path

import pytest

from bocb_mm.backbones import get_spec, list_backbones
from bocb_mm.report import names
from tests.tiny_data import trust_tiny_cifar, write_cifar100, write_coco, write_imagenet

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
EXPERIMENTS = sorted(
    p.relative_to(CONFIGS).as_posix()
    for p in [*CONFIGS.glob('*.py'), *CONFIGS.glob('pretrain/*/*.py')]
)
TABLE_1 = [n for n in EXPERIMENTS if n.startswith('pretrain/cifar100')]
PRE_TRAININGS = [n for n in EXPERIMENTS if n.startswith('pretrain/imagenet')]
FINE_TUNINGS = [n for n in EXPERIMENTS if not n.startswith('pretrain')]

# Table 3: config -> head of its column in the paper.
COLUMNS = {
    'retinanet_r50_sgd_pretrain.py': 'det R-50 (SGD)',
    'retinanet_r50_lars_pretrain.py': 'det R-50 (LARS)',
    'retinanet_r50_rsb-a3_pretrain.py': 'det R-50 (A3)',
    'retinanet_r50_rsb-a2_pretrain.py': 'det R-50 (A2)',
    'retinanet_r50_rsb-a1_pretrain.py': 'det R-50 (A1)',
    'retinanet_r50_adan_pretrain.py': 'det R-50 (Adan)',
    'retinanet_swin-t_adamw_pretrain.py': 'det Swin-T (AdamW)',
    'retinanet_convnext-t_adamw_pretrain.py': 'det CNX-T (AdamW)',
    'topdown_vgg13bn_sgd_pretrain.py': 'pose VGG-13 (SGD)',
    'topdown_r50_sgd_pretrain.py': 'pose R-50 (SGD)',
    'topdown_swin-t_adamw_pretrain.py': 'pose Swin-T (AdamW)',
}
COLUMNS |= {
    n.replace('.py', '_384x288.py'): c for n, c in COLUMNS.items() if n.startswith('topdown')
}


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    write_coco(root / 'coco', n_train=2, n_val=1)
    write_imagenet(root / 'imagenet', n_train=2, n_val=1)
    write_cifar100(root / 'cifar100', n_train=2, n_test=1)
    for toolbox in ('mmpretrain', 'mmdet', 'mmpose'):
        importlib.import_module(f'{toolbox}.models')
    gc.freeze()  # Runners collect garbage; half a second each with all that is imported
    yield root
    gc.unfreeze()


@functools.cache
def _read(name, data_root):  # which is written into the config
    from mmengine.config import Config

    return Config.fromfile(CONFIGS / name)


def load(name):
    return copy.deepcopy(_read(str(name), os.environ.get('BOCB_DATA_ROOT')))


# One batch holds the whole tiny data set: one training step.
SMALL = {  # per kind of config: small images and batches
    'retinanet': [
        'train_dataloader.dataset.pipeline.2.scale=(128,96)',
        'val_dataloader.dataset.pipeline.1.scale=(128,96)',
        'train_dataloader.batch_size=2',
    ],
    'topdown': [
        'train_dataloader.batch_size=2',
        'val_dataloader.batch_size=1',
        'model.test_cfg.flip_test=False',
    ],
    'pretrain/imagenet': ['train_dataloader.batch_size=2', 'val_dataloader.batch_size=1'],
    'pretrain/cifar100': ['train_dataloader.batch_size=2', 'val_dataloader.batch_size=1'],
}
COMMON = [
    'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False',
    'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'log_level=ERROR',
    # Files of up to 1 GB, and the spectra of all layers: other tests look at these.
    'default_hooks.checkpoint.interval=-1', 'default_hooks.checkpoint.save_last=False',
    'default_hooks.checkpoint.save_best=None', 'default_hooks.layer_metrics=None',
]  # fmt: skip


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_an_experiment_trains_a_step_on_tiny_data(
    name, data_root, run_tool, capsys, monkeypatch, tmp_path
):
    from mmengine.config import Config

    monkeypatch.setenv('BOCB_DATA_ROOT', str(data_root))
    trust_tiny_cifar(monkeypatch)
    small = next(options for kind, options in SMALL.items() if name.startswith(kind))
    if load(name).param_scheduler[-1].get('begin', 0) > 0:  # one epoch is less than the warm-up
        small = [*small, 'param_scheduler.1.begin=0']
    status, _, err = run_tool(
        'train', CONFIGS / name, '--pretrained', 'none', '--work-dir', tmp_path,
        '--cfg-options', *COMMON, *small, capsys=capsys,
    )  # fmt: skip
    assert status == 0, err
    record = json.loads((tmp_path / 'run.json').read_text())
    assert record['status'] == 'completed' and record['iterations'] == 1
    assert record['gamma'] == (1 if 'imagenet' in name else 3) and record['recipe']
    assert record['metric'] in record['evaluations'][0]
    # What the Runner wrote down is a config that says the same.
    written = Config.fromfile(tmp_path / Path(name).name)
    assert written.model.to_dict() == {**load(name).model.to_dict(), **written.model.to_dict()}
    assert written.optim_wrapper.to_dict() == load(name).optim_wrapper.to_dict()


def test_every_config_takes_our_hooks_and_our_constructor():
    hooks = load('_base_/hooks.py').bocb_hooks
    for name in EXPERIMENTS:
        cfg = load(name)
        for key, hook in hooks.items():
            assert {**cfg.default_hooks[key], **hook} == cfg.default_hooks[key], (name, key)
        assert cfg.optim_wrapper.constructor == 'bocb_mm.OptimWrapperConstructor', name
        assert cfg.optim_wrapper.optimizer.type.startswith('bocb_mm.'), name


# Table 1 and Table 2


def test_table_1_is_complete():
    assert {Path(n).stem for n in TABLE_1} == {b.lower() for b in list_backbones()}


@pytest.mark.parametrize('name', TABLE_1)
def test_a_row_of_table_a1_is_its_recipe_its_size_and_its_network(name):
    spec = get_spec(Path(name).stem)
    recipe = f'{spec.recipe.lower().replace(" ", "-")}_cifar_{spec.input_size}'
    expected = load(f'_base_/recipes/{recipe}.py')
    form = {'cifar': True} if spec.input_size == 32 else {}
    expected.merge_from_dict({'model': spec.classifier(100, **form)})
    assert load(name).to_dict() == expected.to_dict()


@pytest.mark.parametrize('name', PRE_TRAININGS)
def test_an_imagenet_pre_training_is_its_recipe_and_its_network(name):
    backbone, recipe, *optimizer = Path(name).stem.split('_')
    expected = load(f'_base_/recipes/{recipe}.py')
    expected.merge_from_dict({'model': get_spec(backbone).classifier(1000)})
    found = load(name)
    if optimizer:  # another optimizer than the recipe's, at the catalog's rate and decay
        from bocb_mm.optimizers import get_spec as optimizer_spec

        spec = optimizer_spec(optimizer[0])
        cfg = dict(found.optim_wrapper.optimizer)
        assert cfg.pop('type') == f'bocb_mm.{spec.name}'
        defaults = spec.defaults_for('classification', recipe)
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in cfg.items()}
        assert given == {k: defaults[k] for k in given} and {'lr', 'weight_decay'} <= set(given)
        expected.optim_wrapper.optimizer = found.optim_wrapper.optimizer
    if optimizer == ['adan']:  # test_adan_is_trained_as_by_its_authors
        expected.optim_wrapper.paramwise_cfg = found.optim_wrapper.paramwise_cfg
        expected.train_dataloader.sampler = found.train_dataloader.sampler
        expected.param_scheduler = found.param_scheduler
    assert found.to_dict() == expected.to_dict()


def test_adan_is_trained_as_by_its_authors():
    """sail-sg/Adan, CV/timm/supervised.md and exp_results/ResNet/Res50/args_res50_300.yaml."""
    cfg = load('pretrain/imagenet/r-50_rsb-a2_adan.py')
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay, optimizer.max_grad_norm) == (0.015, 0.02, 5.0)
    assert cfg.optim_wrapper.paramwise_cfg == {'excluded_decay_mult': 1.0}  # --bias-decay
    assert cfg.train_dataloader.sampler.type == 'DefaultSampler'  # --aug-repeats 0
    warmup, cosine = cfg.param_scheduler
    assert (warmup.end, cosine.begin, cosine.eta_min) == (60, 60, 1e-5)


def test_table_2_and_the_pre_trainings_of_table_3_are_there():
    stems = {Path(n).stem for n in PRE_TRAININGS}
    epochs = {s: load(f'pretrain/imagenet/{s}.py').train_cfg.max_epochs for s in stems}
    assert epochs == {
        # caption of Table 3
        'r-50_pytorch': 100, 'r-50_pytorch_lars': 100, 'r-50_rsb-a3': 100, 'vgg-13_pytorch': 100,
        'r-50_rsb-a2': 300, 'r-50_rsb-a2_adan': 300, 'r-50_rsb-a1': 600,
        'swin-t_convnext': 300, 'cnx-t_convnext': 300,
        'deit-s_deit': 300,  # Table 2
    }  # fmt: skip


# Table 3


def test_table_3_is_complete():
    from bocb_mm.report import paper

    printed = {names.split_column(c) for c in paper.read('table3_coco').columns}
    assert set(FINE_TUNINGS) == set(COLUMNS)
    assert {names.split_column(c) for c in COLUMNS.values()} == printed


@pytest.mark.parametrize('name', FINE_TUNINGS)
def test_a_fine_tuning_reports_under_its_column_and_threshold(name):
    from bocb_mm.config.describe import describe

    cfg = load(name)
    found = describe(cfg)
    column = names.column(found.task, get_spec(found.backbone).name, cfg.pretraining)
    assert column == COLUMNS[name]
    assert cfg.gamma == 3
    table = names.table_name(found.task, found.dataset)
    assert table == ('pose_coco-384x288' if '384x288' in name else 'table3_coco')


@pytest.mark.parametrize('name', FINE_TUNINGS)
def test_the_pre_training_is_named_and_can_be_had(name):
    from bocb_mm.checkpoints.download import resolve
    from bocb_mm.runs.record import run_directory

    cfg = load(name)
    config = next(w for w in cfg.pretrained_command.split() if w.endswith('.py'))
    pretraining = load(Path(config).relative_to('configs'))
    spec = get_spec(cfg.model.backbone.type)
    assert get_spec(pretraining.model.backbone.type) is spec
    if '://' in cfg.pretrained:
        assert cfg.pretrained in spec.checkpoints
        assert resolve(cfg.pretrained).startswith('https://')
    else:  # our own pre-training: the file is the one that the named command leaves
        optimizer = pretraining.optim_wrapper.optimizer
        where = run_directory(
            'work_dirs', Path(config).stem, optimizer.type.removeprefix('bocb_mm.'),
            optimizer.lr, optimizer.weight_decay, 0,
        )  # fmt: skip
        assert Path(cfg.pretrained) == where / f'epoch_{pretraining.train_cfg.max_epochs}.pth'
    # The name in the column is the optimizer's or the recipe's.
    recipe = names.training(pretraining.recipe)
    optimizer = names.optimizer(pretraining.optim_wrapper.optimizer.type.rpartition('.')[2])
    assert cfg.pretraining in (recipe, optimizer)
    processes = int(cfg.pretrained_command.split(config)[1].split()[0])
    accumulated = int(cfg.pretrained_command.partition('accumulative_counts=')[2] or '1')
    batch = processes * accumulated * pretraining.train_dataloader.batch_size
    assert batch == pretraining.auto_scale_lr.base_batch_size


@pytest.mark.parametrize('name', [n for n in FINE_TUNINGS if n.startswith('topdown')])
def test_pose_sizes(name):
    cfg = load(name)
    height, width = (384, 288) if '384x288' in name else (256, 192)
    codec = cfg.model.head.decoder
    assert codec.input_size == (width, height) and codec.heatmap_size == (width // 4, height // 4)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        (affine,) = [t for t in loader.dataset.pipeline if t.type == 'TopdownAffine']
        assert affine.input_size == codec.input_size
    (target,) = [t for t in cfg.train_dataloader.dataset.pipeline if t.type == 'GenerateTarget']
    assert target.encoder == codec


# Processes that a config's rate counts on: the paper's 4 GPUs for COCO (A.2); CIFAR-100 takes one.
PROCESSES = {'retinanet': 4, 'topdown': 4, 'pretrain/cifar100': 1}


@pytest.mark.parametrize('name', [n for n in EXPERIMENTS if not n.startswith('pretrain/imagenet')])
def test_the_batch_is_the_one_the_rate_is_for(name):
    """Also the pre-trainings on ImageNet: test_the_pre_training_is_named_and_can_be_had."""
    cfg = load(name)
    processes = next(n for kind, n in PROCESSES.items() if name.startswith(kind))
    accumulated = cfg.optim_wrapper.get('accumulative_counts', 1)
    batch = processes * accumulated * cfg.train_dataloader.batch_size
    assert batch == cfg.auto_scale_lr.base_batch_size
    if name.startswith('topdown'):
        warm_up = cfg.param_scheduler[0]
        assert warm_up.end // accumulated == 500  # steps, as in mmpose


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_workers_stay_and_feed_the_device(name):
    cfg = load(name)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.persistent_workers and loader.pin_memory and 2 <= loader.num_workers <= 8
        if name.startswith('pretrain'):
            assert loader.collate_fn == {'type': 'default_collate'}
    # cuDNN chooses by measuring where every image has one size; RetinaNet's images have many.
    assert cfg.env_cfg.cudnn_benchmark is not name.startswith('retinanet')
