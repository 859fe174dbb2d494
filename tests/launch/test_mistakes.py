"""Mistakes in a config that show only while its parts are built."""

import sys
from types import SimpleNamespace

import pytest
from torch import nn

from bocb_mm.errors import UserError
from bocb_mm.launch.mistakes import check_heads
from bocb_mm.launch.train import TrainOptions, prepare, train
from tests.tools.tiny_config import write_tiny_config


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return write_tiny_config(tmp_path_factory.mktemp('tiny'))


@pytest.fixture
def start(config, tmp_path, monkeypatch):
    """Trains the tiny config with some more lines in it."""
    monkeypatch.chdir(tmp_path)

    def run(lines):
        file = tmp_path / 'mine.py'
        file.write_text(f'_base_ = {str(config)!r}\n{lines}\n')
        options = TrainOptions(work_dir='w')
        return train(prepare(str(file), options), options)

    return run


@pytest.mark.parametrize(
    ('lines', 'words'),
    [
        ("custom_hooks = [dict(type='EMAHok')]", "unknown hook 'EMAHok'; did you mean EMAHook"),
        ("val_evaluator = dict(type='Accuraccy')", 'did you mean Accuracy'),
        (
            "param_scheduler = [dict(type='CosineAnnealingRL', T_max=1)]",
            'did you mean CosineAnnealingLR',
        ),
        (
            "train_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImage')]))",
            "unknown transform 'LoadImage'; did you mean LoadImageFromFile",
        ),
        (
            'model = dict(backbone=dict(detph=18))',
            r"model mmpretrain.ResNet_CIFAR: TypeError: .*argument 'detph'",
        ),
        ('model = dict(backbone=dict(depth=19))', r'ResNet_CIFAR: invalid depth 19 .*, line \d+\)'),
        (
            "train_dataloader = dict(dataset=dict(data_prefix='nope'))",
            'dataset CustomDataset of .*data: FileNotFoundError: .*nope',
        ),
        ('val_dataloader = None', 'val_dataloader, val_cfg, and val_evaluator should be either'),
        ('train_dataloader = None', 'train_dataloader, train_cfg, and optim_wrapper should be'),
        ("default_hooks = dict(checkpoint='x')", 'hook should be an instance of Hook or dict'),
        ('auto_scale_lr = dict(enable=True)', 'Lack of `base_batch_size`'),
        ("log_level = 'LOUD'", "log_level is 'LOUD', DEBUG, INFO"),
        ('model = dict(head=dict(num_classes=2))', 'num_classes is 2, but the training .* 4 class'),
        # found without building
        ('train_cfg = dict(max_epochs=0)', 'max_epochs is 0, at least 1 is expected'),
        ("train_cfg = dict(max_epochs='three')", "max_epochs is 'three', a number is expected"),
        ('train_dataloader = dict(batch_size=0)', 'batch_size is 0, at least 1'),
        ('train_dataloader = dict(num_workers=-1)', 'num_workers is -1, at least 0'),
        ('randomness = dict(seed=-1)', 'seed -1: a whole number from 0'),
        ('randomness = dict(seed=2**32)', 'seed 4294967296: a whole number from 0'),
        ("randomness = dict(seed='a')", "seed is 'a', a whole number"),
        ("param_scheduler = 'cosine'", "param_scheduler is 'cosine', a list"),
        ('optim_wrapper = dict(clip_grad=5)', 'clip_grad is 5, a dict'),
        ('env_cfg = dict(mp_cfg=7)', 'mp_cfg is 7, a dict'),
    ],
)
def test_the_part_is_named_in_one_line(lines, words, start, tmp_path):
    with pytest.raises(UserError, match=words) as caught:
        start(lines)
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 500
    assert not list(tmp_path.rglob('run.json')) and not list(tmp_path.rglob('*.pth'))


def test_code_of_ones_own_keeps_its_traceback(start, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / 'own_hook.py').write_text(
        'from mmengine.hooks import Hook\n'
        'from mmengine.registry import HOOKS\n\n'
        '@HOOKS.register_module()\n'
        'class OwnHook(Hook):\n'
        '    def __init__(self, n=None):\n'
        '        self.n = n + 1\n'
    )
    mine = "custom_imports = dict(imports=['own_hook'])\ncustom_hooks = [dict(type='OwnHook'{})]"
    try:
        with pytest.raises(TypeError, match='unsupported operand'):
            start(mine.format(''))
        with pytest.raises(UserError, match="hook OwnHook: TypeError: .*argument 'm'"):
            start(mine.format(', m=1'))
    finally:
        sys.modules.pop('own_hook', None)


def test_an_environment_that_is_none_is_the_default_one(start):
    assert start('env_cfg = None') == 0


@pytest.mark.parametrize(
    ('name', 'n', 'fits'),
    [
        ('head', 2, False),
        ('bbox_head', 2, False),
        ('head', 3, True),
        ('head', 80, True),
        ('rpn_head', 1, True),
        ('semantic_head', 1, True),
        ('backbone', 1, True),
    ],
)
def test_a_head_has_as_many_classes_as_the_data(name, n, fits):
    model, part = nn.Module(), nn.Module()
    part.num_classes = n
    model.add_module(name, nn.ModuleList([part]))
    data = SimpleNamespace(metainfo={'classes': ('a', 'b', 'c')})
    if fits:
        check_heads(model, data)
    else:
        with pytest.raises(UserError, match=r'head.0.num_classes is 2.*3 classes \(a, b, c\)'):
            check_heads(model, data)
    check_heads(model, SimpleNamespace())  # data that name no classes
    panoptic = {'classes': ('a', 'b', 'sky'), 'thing_classes': ('a', 'b')}
    if n > 1:
        check_heads(model, SimpleNamespace(metainfo=panoptic))
