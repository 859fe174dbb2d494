"""Where a rate comes from, for which batch it is meant, and what scaling makes of it."""

import pytest
from mmengine.config import Config

from bocb_mm.config import edit
from bocb_mm.config.rates import batch_of, check_schedule, note_rate, origin_of_default
from bocb_mm.errors import UserError


def config(scope='mmdet', batch=4, optimizer='SGD', lr=0.01, **more):
    return Config(
        {
            'default_scope': scope,
            'model': {'backbone': {'type': 'bocb_mm.R-50'}},
            'train_dataloader': {'batch_size': batch, 'dataset': {'type': 'CocoDataset'}},
            'optim_wrapper': {'optimizer': {'type': optimizer, 'lr': lr, 'weight_decay': 1e-4}},
            **more,
        }
    )


def noted(optimizer=None, lr=None, processes=1, scale=False, **settings):
    cfg = config(**settings)
    edit.set_optimizer(cfg, optimizer, lr)
    note_rate(cfg, optimizer, lr is not None, processes, scale)
    return cfg


def test_a_default_says_for_which_data_and_batch_it_is_meant():
    cfg = noted('SGD')
    assert cfg.lr_origin == 'sourced'
    assert 'SGD: lr 0.01, weight decay 0.0001: sourced (mmdet RetinaNet R-50)' in cfg.lr_source
    assert 'for COCO, schedule detection, batch 16' in cfg.lr_source
    assert 'for coco another may be best by far: search it' in cfg.lr_source
    assert 'this run has batch 4, not 16: --auto-scale-lr' in cfg.lr_source


@pytest.mark.parametrize('name', ['timm.adopt', 'bocb_mm.pytorch_optimizer.SOAP'])
def test_a_library_has_no_sourced_default_and_one_line_says_what_was_taken(name):
    cfg = noted(name)
    assert cfg.optim_wrapper.optimizer.type == f'bocb_mm.{name.removeprefix("bocb_mm.").lower()}'
    assert cfg.lr_origin == 'extrapolated' and '\n' not in cfg.lr_source
    taken = f'lr {cfg.optim_wrapper.optimizer.lr}, '
    assert taken in cfg.lr_source
    assert 'states no rate for a task; its own defaults are taken' in cfg.lr_source


def test_on_the_data_it_is_meant_for_and_at_its_batch_nothing_more_is_said():
    dataset = {'type': 'CocoDataset', 'ann_file': 'annotations/instances_train2017.json'}
    cfg = noted('LAMB', train_dataloader={'batch_size': 16, 'dataset': dataset})
    assert cfg.lr_origin == 'extrapolated' and cfg.lr_source.endswith('batch 16')


def test_a_task_without_rates_of_its_own_has_no_sourced_one():
    origin, text, batch = origin_of_default(config('mmseg'), 'SGD')
    assert (origin, batch) == ('extrapolated', 16) and 'no rate is known for segmentation' in text


def test_what_the_user_gave_is_given():
    assert noted('SGD', lr=0.2).lr_origin == noted().lr_origin == 'given'


BASE = {'auto_scale_lr': {'base_batch_size': 16, 'enable': False}}


@pytest.mark.parametrize(
    ('optimizer', 'lr', 'processes', 'expected'),
    [
        ('SGD', 0.01, 1, 0.0025),  # linear
        ('SGD', 0.01, 8, 0.02),
        ('bocb_mm.LARS', 0.1, 1, 0.025),
        ('AdamW', 1e-4, 1, 5e-5),  # the square root
        ('bocb_mm.LION', 1e-4, 1, 5e-5),
        ('AdaDelta', 1.0, 1, 1.0),  # its rate follows no batch
    ],
)
def test_a_rate_is_scaled_by_the_rule_of_its_relatives(optimizer, lr, processes, expected):
    cfg = config(optimizer=optimizer, lr=lr, **BASE)
    note_rate(cfg, None, False, processes, scale=True)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(expected)
    assert cfg.auto_scale_lr is None, 'mmengine would scale it once more'
    assert f'from {lr:g} at batch 16 to batch {4 * processes}' in cfg.lr_source


def test_a_default_is_scaled_from_the_batch_of_its_schedule():
    assert noted('SGD', scale=True).optim_wrapper.optimizer.lr == pytest.approx(0.0025)


@pytest.mark.parametrize('changes', [{}, {'optimizer': 'MyOptimizer', **BASE}])
def test_without_a_batch_or_a_rule_it_is_refused(changes):
    cfg = config(**changes)
    with pytest.raises(UserError, match='--auto-scale-lr: .* is not known; set'):
        note_rate(cfg, None, False, scale=True)


def test_mmengines_own_scaling_is_said():
    cfg = config(auto_scale_lr={'base_batch_size': 16, 'enable': True})
    note_rate(cfg, None, False)
    assert 'mmengine scales the rate linearly' in cfg.lr_source


def test_the_batch_may_stand_in_the_batch_sampler():
    loader = {'batch_sampler': {'type': 'AspectRatio', 'batch_size': 3}}
    assert batch_of({'train_dataloader': loader}) == 3
    assert batch_of({'train_dataloader': {}}) is None


@pytest.mark.parametrize('name', ['ScheduleFreeAdamW', 'bocb_mm.pytorch_optimizer.schedulefreesgd'])
def test_a_schedule_for_a_schedule_free_optimizer_is_refused(name):
    warm_up = {'type': 'LinearLR', 'end': 5}
    cosine = {'type': 'CosineAnnealingLR', 'T_max': 10}
    cfg = config(param_scheduler=[warm_up, cosine])
    check_schedule(cfg)  # of SGD
    edit.set_optimizer(cfg, name)
    with pytest.raises(UserError, match=r'has CosineAnnealingLR: add --cfg-options param_sch') as e:
        check_schedule(cfg)
    assert '\n' not in str(e.value)
    for fine in ([warm_up], [], None, warm_up):
        cfg.param_scheduler = fine
        check_schedule(cfg)
