import warnings
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config

from bocb_mm.config import edit
from bocb_mm.config.pretraining import set_pretrained
from bocb_mm.errors import UserError


def config(**more):
    return Config(
        {
            'default_scope': 'mmdet',
            'model': {'type': 'RetinaNet', 'backbone': {'type': 'bocb_mm.R-50'}},
            'train_cfg': {'max_epochs': 12},
            'optim_wrapper': {
                'type': 'OptimWrapper',
                'clip_grad': {'max_norm': 1},
                'optimizer': {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9, 'weight_decay': 1e-4},
            },
            **more,
        }
    )


def test_an_optimizer_is_replaced_whole_and_the_recipe_around_it_stays():
    cfg = config()
    edit.set_optimizer(cfg, 'adamw', lr=3e-4)
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer.type == 'bocb_mm.AdamW' and 'momentum' not in optimizer
    assert optimizer.lr == 3e-4 and optimizer.weight_decay == 0.05  # mmdet's RSB R-50: 1e-4 / 0.05
    assert cfg.optim_wrapper.clip_grad == {'max_norm': 1}
    assert cfg.optim_wrapper.constructor == edit.OUR_CONSTRUCTOR


def test_without_a_name_only_what_is_given_changes():
    cfg = config()
    edit.set_optimizer(cfg, weight_decay=0.0)
    assert cfg.optim_wrapper.optimizer == {
        'type': 'SGD', 'lr': 0.01, 'momentum': 0.9, 'weight_decay': 0.0,
    }  # fmt: skip


def test_options_for_the_optimizer_are_for_the_one_that_is_named():
    cfg = config()
    options = {'optim_wrapper.optimizer.aux_lr': 3e-4, 'optim_wrapper.optimizer.lr': 1.0}
    edit.set_optimizer(cfg, 'Muon', lr=0.01, options={**options, 'train_cfg.max_epochs': 7})
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.aux_lr, optimizer.lr) == ('bocb_mm.Muon', 3e-4, 0.01)
    assert cfg.train_cfg.get('max_epochs') != 7


def test_sophia_brings_its_wrapper():
    cfg = config()
    edit.set_optimizer(cfg, 'Sophia')
    assert cfg.optim_wrapper.type == 'bocb_mm.SophiaOptimWrapper'


@pytest.mark.parametrize(
    'before, after',
    [
        ('bocb_mm.SophiaOptimWrapper', 'OptimWrapper'),
        ('bocb_mm.SophiaAmpOptimWrapper', 'bocb_mm.AmpOptimWrapper'),
    ],
)
def test_another_optimizer_takes_sophias_wrapper_away(before, after):
    cfg = config()
    cfg.optim_wrapper.update(type=before, hessian_interval=5, hessian='empirical-fisher')
    edit.set_optimizer(cfg, 'LAMB')
    assert cfg.optim_wrapper.type == after and cfg.optim_wrapper.clip_grad == {'max_norm': 1}
    assert not {'hessian_interval', 'hessian'} & cfg.optim_wrapper.keys()
    edit.set_optimizer(cfg, 'Sophia')
    assert cfg.optim_wrapper.type == before


@pytest.mark.parametrize('value', [-1.0, float('nan'), float('inf')])
def test_a_rate_that_is_no_rate_is_refused(value):
    with pytest.raises(UserError, match='--lr'):
        edit.set_optimizer(config(), lr=value)


@pytest.mark.parametrize(
    'seed, configured, expected', [(5, 1, 5), (None, 7, 7), (None, None, 0), (0, 7, 0)]
)
def test_every_run_has_a_seed(seed, configured, expected):
    cfg = config(randomness={'seed': configured, 'deterministic': True})
    edit.set_seed(cfg, seed)
    assert cfg.randomness == {'seed': expected, 'deterministic': True}


def test_the_work_directory_says_what_was_run(monkeypatch, tmp_path):
    cfg = config(randomness={'seed': 2})
    where = edit.set_work_dir(cfg, None, 'configs/retinanet_r50.py')
    assert where.as_posix() == 'work_dirs/retinanet_r50/SGD/lr0.01_wd0.0001_seed2'


def test_a_work_directory_of_the_config_counts_but_for_a_config_that_a_run_left(tmp_path):
    cfg = config(randomness={'seed': 2}, work_dir=str(tmp_path))
    assert edit.set_work_dir(cfg, None, 'configs/retinanet_r50.py') == tmp_path
    cfg = config(randomness={'seed': 2}, work_dir=str(tmp_path))
    where = edit.set_work_dir(cfg, None, str(tmp_path / 'retinanet_r50.py'))
    assert where.as_posix().startswith('work_dirs/retinanet_r50/SGD/')


@pytest.mark.parametrize('init_cfg', [dict(type='Pretrained', checkpoint='/mine/r50.pth'), None])
def test_a_variable_of_a_stock_config_does_not_replace_what_the_model_says(init_cfg):
    cfg = config(pretrained='https://host/r50.pth')  # as many of mmdet's have it
    cfg.model.backbone.init_cfg = init_cfg
    set_pretrained(cfg, None)
    assert cfg.model.backbone.init_cfg == init_cfg


def test_a_given_checkpoint_is_set_in_one_place(tmp_path):
    cfg = config(pretrained='torchvision://resnet50', pretraining='SGD')
    set_pretrained(cfg, None)
    assert cfg.model.backbone.init_cfg.checkpoint == 'torchvision://resnet50'
    assert cfg.pretraining == 'SGD'
    file = tmp_path / 'mine.pth'
    file.touch()
    set_pretrained(cfg, str(file))
    assert cfg.model.backbone.init_cfg.checkpoint == str(file) and cfg.pretraining == 'mine'
    set_pretrained(cfg, 'none')
    assert 'init_cfg' not in cfg.model.backbone and cfg.pretraining == ''


def test_a_missing_checkpoint_names_the_command_that_makes_it():
    cfg = config(pretrained='work_dirs/gone.pth', pretrained_command='bash make_it.sh')
    with pytest.raises(UserError, match='gone.pth: no such file; to make it: bash make_it.sh'):
        set_pretrained(cfg, None)


@pytest.mark.parametrize(
    'before, after',
    [
        ('OptimWrapper', 'bocb_mm.AmpOptimWrapper'),
        ('AmpOptimWrapper', 'bocb_mm.AmpOptimWrapper'),
        ('bocb_mm.SophiaOptimWrapper', 'bocb_mm.SophiaAmpOptimWrapper'),
    ],
)
def test_amp_takes_the_precision_that_is_named(before, after):
    cfg = config()
    cfg.optim_wrapper.type = before
    edit.set_amp(cfg, 'bfloat16')
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.dtype) == (after, 'bfloat16')
    assert 'loss_scale' not in cfg.optim_wrapper  # bfloat16 has float32's range
    edit.set_amp(cfg, 'float16')
    assert (cfg.optim_wrapper.dtype, cfg.optim_wrapper.loss_scale) == ('float16', 'dynamic')


def test_amp_refuses_a_wrapper_of_its_own_precision_and_other_types():
    cfg = config()
    with pytest.raises(UserError, match='--amp int8: bfloat16 or float16'):
        edit.set_amp(cfg, 'int8')
    cfg.optim_wrapper.type = 'ApexOptimWrapper'
    with pytest.raises(UserError, match='ApexOptimWrapper'):
        edit.set_amp(cfg, 'bfloat16')


def test_missing_data_name_the_path_and_the_variable(tmp_path):
    loader = {'dataset': {'type': 'CocoDataset', 'data_root': str(tmp_path), 'ann_file': 'a.json'}}
    cfg = config(train_dataloader=loader, data_root_variable='BOCB_DATA_ROOT')
    with pytest.raises(UserError, match='a.json; set BOCB_DATA_ROOT'):
        edit.check_data(cfg)
    (tmp_path / 'a.json').touch()
    edit.check_data(cfg)


def test_a_part_for_base_is_no_config_of_a_training(tmp_path):
    (tmp_path / 'part.py').write_text('model = dict(type="RetinaNet")')
    with pytest.raises(UserError, match='has no train_cfg'):
        edit.load_config(tmp_path / 'part.py')


def test_a_rate_that_yaml_reads_as_text_is_one_line(tmp_path):
    """mmengine's constructor would multiply it by ``bias_lr_mult``: a TypeError."""
    (tmp_path / 'c.yaml').write_text(
        'model: {type: RetinaNet}\n'
        'train_cfg: {type: EpochBasedTrainLoop}\n'
        'optim_wrapper: {type: OptimWrapper, optimizer: {type: SGD, lr: 5e-2}}\n'
    )
    with pytest.raises(UserError, match=r"lr='5e-2' is text, not a number; write 0\.05"):
        edit.load_config(tmp_path / 'c.yaml')


def test_a_config_that_is_not_python_is_named(tmp_path):
    (tmp_path / 'bad.py').write_text('model = dict(')
    with pytest.raises(UserError, match='bad.py cannot be read'):
        edit.load_config(tmp_path / 'bad.py')


def test_a_typing_error_in_the_name_lists_the_near_one(tmp_path):
    (tmp_path / 'retinanet_r50.py').touch()
    with pytest.raises(UserError, match='did you mean .*retinanet_r50.py'):
        edit.load_config(tmp_path / 'retinanet_r5.py')


def test_reading_a_shipped_config_does_not_warn_about_pkg_resources():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        edit.load_config('mmpretrain::resnet/resnet18_8xb16_cifar10.py')
    assert not [w for w in caught if 'pkg_resources' in str(w.message)]


LAZY = """
from mmengine.model import PretrainedInit
from mmpretrain.models import ImageClassifier, ResNet
from torch.optim import SGD
from bocb_mm.hooks.run_record import RunRecordHook
model = dict(
    type=ImageClassifier,
    backbone=dict(type=ResNet, depth=18, init_cfg=dict(type=PretrainedInit, checkpoint='x.pth')))
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1))
train_cfg = dict(by_epoch=True, max_epochs=1)
custom_hooks = [dict(type=RunRecordHook)]
"""


def test_a_lazy_config_whose_types_are_classes_is_read_as_any_other(tmp_path):
    from bocb_mm.config.describe import describe

    (tmp_path / 'lazy.py').write_text(LAZY)
    cfg = edit.load_config(tmp_path / 'lazy.py')
    found = describe(cfg)
    assert (found.task, found.backbone) == ('classification', 'ResNet-18')
    where = edit.set_work_dir(cfg, None, str(tmp_path / 'lazy.py'))
    assert where.as_posix() == 'work_dirs/lazy/SGD/lr0.1_wdnone_seednone'
    edit.set_hooks(cfg)
    assert 'run_record' not in cfg.default_hooks  # it has one
    set_pretrained(cfg, 'none')
    assert 'init_cfg' not in cfg.model.backbone


@pytest.mark.parametrize(
    'registry, words',
    [
        ('OPTIMIZERS', 'did you mean .*python -m bocb_mm.optimizers lists them'),
        ('MODELS', 'python -m bocb_mm.backbones lists them'),
        ('HOOKS', 'bocb_mm has .*DivergenceHook'),
    ],
)
def test_an_unknown_type_says_where_the_known_ones_are(registry, words):
    import bocb_mm.registry

    with pytest.raises(UserError, match=words):
        getattr(bocb_mm.registry, registry).get('bocb_mm.R-18-AdamQ')


@pytest.mark.parametrize(
    'content, words',
    [
        ('# 配置\nmodel = 1\n'.encode('gbk'), 'not in UTF-8'),
        (b'model = 1 / 0\n', 'ZeroDivisionError'),
        (b'model = [\n', 'SyntaxError'),
        (b"_base_ = 'nowhere.py'\n", 'nowhere.py'),
        (b'', 'has no model'),
    ],
)
def test_a_config_that_cannot_be_read_is_one_line(tmp_path, content, words):
    (tmp_path / 'c.py').write_bytes(content)
    with pytest.raises(UserError, match=words):
        edit.load_config(tmp_path / 'c.py')


def test_a_package_that_is_not_there_is_named_and_not_installed():
    with pytest.raises(UserError, match='mmdett is not installed'):
        edit.load_config('mmdett::retinanet/retinanet_r50_fpn_1x_coco.py')


def test_an_option_that_does_not_fit_the_config_is_named():
    with pytest.raises(UserError, match=r'--cfg-options train_pipeline\.99\.type=A'):
        edit.load_config(
            'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', {'train_pipeline.99.type': 'A'}
        )


@pytest.mark.parametrize('pair', ['a=[1,2', 'a=[1,(2]', 'a'])
def test_an_option_whose_brackets_do_not_close_is_one_line(pair):
    with pytest.raises(UserError, match='--cfg-options'):
        edit.parse_options([pair])


@given(st.text(alphabet='a=[](),1.\'" -{}', max_size=12))
def test_any_option_is_read_or_refused(pair):
    with suppress(UserError):
        assert isinstance(edit.parse_options([pair]), dict)


@pytest.mark.parametrize(
    'dataset, place',
    [
        ({'data_root': 'gone'}, 'dataset'),
        ({'type': 'RepeatDataset', 'dataset': {'data_root': 'gone'}}, 'dataset.dataset'),
        (
            {'type': 'ConcatDataset', 'datasets': [{'data_root': '.'}, {'data_root': 'gone'}]},
            'dataset.datasets.1',
        ),
    ],
)
def test_the_option_for_missing_data_works(dataset, place):
    cfg = config(train_dataloader={'dataset': dataset}, data_command='python -m x')
    with pytest.raises(UserError, match='gone; python -m x writes it') as caught:
        edit.check_data(cfg)
    option = str(caught.value).rpartition('--cfg-options ')[2].replace('DIR', '.')
    assert option == f'train_dataloader.{place}.data_root=.'
    cfg.merge_from_dict(edit.parse_options([option]))
    edit.check_data(cfg)


@pytest.mark.parametrize(
    ('path', 'value', 'words'),
    [
        ('optim_wrapper.optimizer.lr', '5e-2', "lr='5e-2' is text, not a number"),
        ('train_dataloader.batch_size', 'four', "batch_size is 'four', a whole number"),
        ('custom_hooks', 3, 'custom_hooks is 3, a list'),
        ('randomness', 'x', "randomness is 'x', a dict"),
    ],
)
def test_a_part_of_another_kind_is_named(tmp_path, path, value, words):
    text = 'model = dict(type="A", backbone=dict())\ntrain_cfg = dict(max_epochs=1)\n'
    text += 'optim_wrapper = dict(optimizer=dict(type="SGD"))\ntrain_dataloader = dict()\n'
    (tmp_path / 'c.py').write_text(text)
    with pytest.raises(UserError, match=words):
        edit.load_config(tmp_path / 'c.py', {path: value})
