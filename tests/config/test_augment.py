"""augment_on='device': what moves, what stays, what is refused; a shipped recipe trains with it."""

import pytest
from mmengine.config import Config

from bocb_mm.config.augment import augment_on_device
from bocb_mm.config.describe import type_name
from bocb_mm.errors import UserError
from tests.tiny_data import trust_tiny_cifar, write_cifar100

RECIPES = 'configs/_base_/recipes'
# Recipe -> what its workers keep, what moves.
MOVES = {
    'pytorch_cifar_224': ('RandomFlip PackInputs', 'RandomResizedCrop'),
    'deit_cifar_224': ('RandomResizedCrop RandomFlip RandAugment PackInputs', 'RandomErasing'),
    'rsb-a2_cifar_224': ('RandomResizedCrop RandomFlip RandAugment PackInputs', ''),
    'convnext_cifar_32': ('RandomCrop RandomFlip RandAugment PackInputs', 'RandomErasing'),
    'pytorch': ('LoadImageFromFile RandomResizedCrop RandomFlip PackInputs', ''),
    'deit': (
        'LoadImageFromFile RandomResizedCrop RandomFlip RandAugment PackInputs',
        'RandomErasing',
    ),
}


def recipe(name, where='device'):
    cfg = Config.fromfile(f'{RECIPES}/{name}.py')
    cfg.merge_from_dict({'augment_on': where, 'model': dict(type='ImageClassifier')})
    return cfg


def split_of(cfg):
    pre = cfg.data_preprocessor
    moved = [type_name(t).removeprefix('bocb_mm.Batch') for t in pre.get('batch_transforms', [])]
    return ' '.join(map(type_name, cfg.train_dataloader.dataset.pipeline)), ' '.join(moved)


@pytest.mark.parametrize('name', MOVES)
def test_each_recipe_is_split_where_its_distribution_allows(name):
    cfg = recipe(name)
    before = {type_name(t): t for t in cfg.train_dataloader.dataset.pipeline}
    augment_on_device(cfg)
    assert split_of(cfg) == MOVES[name]
    for moved in cfg.data_preprocessor.get('batch_transforms', []):
        name = moved.type.removeprefix('bocb_mm.Batch')
        assert moved == {**before[name], 'type': moved.type}
    again = cfg.copy()
    augment_on_device(again)  # a dumped config, trained anew
    assert again.to_dict() == cfg.to_dict()


def test_the_default_is_the_workers():
    cfg = Config.fromfile(f'{RECIPES}/deit.py')
    assert cfg.augment_on == 'worker'
    before = cfg.copy()
    augment_on_device(cfg)
    assert cfg.to_dict() == before.to_dict()


def test_what_cannot_be_is_one_line():
    with pytest.raises(UserError, match="augment_on='gpu'"):
        augment_on_device(recipe('deit', where='gpu'))
    detector = recipe('deit')
    detector.default_scope = 'mmdet'
    with pytest.raises(UserError, match='not mmdet'):
        augment_on_device(detector)


def test_a_shipped_config_trains_with_it(tmp_path, monkeypatch):
    from mmengine.runner import Runner

    from bocb_mm.launch.train import TrainOptions, prepare

    write_cifar100(tmp_path / 'cifar100', n_train=8, n_test=4)
    monkeypatch.setenv('BOCB_DATA_ROOT', str(tmp_path))
    trust_tiny_cifar(monkeypatch)
    options = {
        'augment_on': 'device', 'train_cfg.max_epochs': 1, 'train_dataloader.batch_size': 4,
        'train_dataloader.dataset.pipeline.0.scale': 64, 'log_level': 'ERROR',
    }  # fmt: skip
    for name in ('train', 'val', 'test'):
        options |= {f'{name}_dataloader.{k}': v for k, v in
                    (('num_workers', 0), ('persistent_workers', False))}  # fmt: skip
    cfg = prepare(
        'configs/pretrain/cifar100/mobv2.py',
        TrainOptions(work_dir=str(tmp_path / 'run'), cfg_options=options),
    )
    runner = Runner.from_cfg(cfg)
    seen = []
    runner.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs.get('inputs', args[:1])), with_kwargs=True
    )
    runner.train()
    assert type(runner.model.data_preprocessor).__name__ == 'AugmentingDataPreprocessor'
    assert runner.iter == 2 and 'RandomResizedCrop' not in str(
        runner.train_dataloader.dataset.pipeline
    )
    saved = Config.fromfile(tmp_path / 'run' / 'mobv2.py')
    assert saved.data_preprocessor.type == 'bocb_mm.AugmentingDataPreprocessor'
