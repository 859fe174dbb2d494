"""Longer and shorter schedules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bocb_mm.config.length import schedule_options, words_of
from bocb_mm.errors import UserError

CFG = {
    'train_cfg': {'by_epoch': True, 'max_epochs': 12, 'val_interval': 1, 'val_begin': 6},
    'param_scheduler': [
        {'type': 'LinearLR', 'start_factor': 0.001, 'by_epoch': False, 'begin': 0, 'end': 500},
        {
            'type': 'MultiStepLR',
            'begin': 0,
            'end': 12,
            'by_epoch': True,
            'milestones': [8, 11],
            'gamma': 0.1,
        },
    ],
}


def test_warm_up_and_steps_keep_their_shares():
    found = schedule_options(CFG, 2)
    assert found['train_cfg.max_epochs'] == found['train_cfg.val_interval'] == 24
    warm_up, steps = found['param_scheduler']
    assert warm_up['end'] == 1000 and warm_up['start_factor'] == 0.001 and warm_up['begin'] == 0
    assert steps['milestones'] == [16, 22] and steps['end'] == 24 and steps['gamma'] == 0.1
    assert found['train_cfg.val_begin'] == 1
    assert CFG['param_scheduler'][1]['milestones'] == [8, 11]


def test_restarts_and_patience_keep_their_shares_too():
    cosine = {'type': 'CosineRestartLR', 'periods': [100, 200], 'restart_weights': [1, 0.5]}
    plateau = {'type': 'ReduceOnPlateauLR', 'patience': 10, 'cooldown': 0}
    cfg = {'train_cfg': {'max_iters': 300}, 'param_scheduler': [cosine, plateau]}
    cosine, plateau = schedule_options(cfg, 0.1)['param_scheduler']
    assert cosine['periods'] == [10, 20] and cosine['restart_weights'] == [1, 0.5]
    assert (plateau['patience'], plateau['cooldown']) == (1, 0)


def test_the_same_length_leaves_the_schedule_alone():
    found = schedule_options(CFG, 1.0)
    assert 'param_scheduler' not in found and found['train_cfg.max_epochs'] == 12


def test_a_schedule_that_would_lose_its_steps_is_refused():
    with pytest.raises(UserError, match='too short: MultiStepLR'):
        schedule_options(CFG, 1 / 12)


def test_a_config_without_length_is_refused():
    with pytest.raises(UserError, match='max_epochs'):
        schedule_options({'train_cfg': {'by_epoch': True}}, 1)


@given(st.integers(1, 500), st.floats(0.01, 8))
def test_the_decay_ends_with_the_training(epochs, length):
    cfg = {
        'train_cfg': {'max_epochs': epochs},
        'param_scheduler': {
            'type': 'CosineAnnealingLR',
            'begin': 0,
            'end': epochs,
            'T_max': epochs,
        },
    }
    found = schedule_options(cfg, length)
    n = found['train_cfg.max_epochs']
    if n != epochs:
        (cosine,) = found['param_scheduler']
        assert cosine['end'] == cosine['T_max'] == n


def test_words():
    assert words_of(CFG, 0.5, 16) == '6 epochs at batch 16'
