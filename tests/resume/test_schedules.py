"""What a changed setting means to a run that is resumed."""

import pytest
import torch
from mmengine.runner._flexible_runner import FlexibleRunner

from bocb_mm.checkpoints.read import load_checkpoint
from bocb_mm.errors import UserError
from tests import tiny_training as tiny


def cosine(epochs):
    return [{'type': 'CosineAnnealingLR', 'T_max': epochs, 'end': epochs, 'by_epoch': True}]


class Rates(tiny.Hook):
    """Notes the learning rate of every iteration."""

    def __init__(self):
        self.rates = {}

    def before_train_iter(self, runner, **_):
        self.rates[runner.iter] = runner.optim_wrapper.optimizer.param_groups[0]['lr']


def rates(directory, epochs, lr=0.05, start=None, schedule=None):
    """Learning rate by iteration of a run, from the start or resumed."""
    note = Rates()
    tiny.runner(
        directory,
        default_hooks=tiny.saving(by_epoch=True, interval=1),
        custom_hooks=[note],
        train_cfg={'by_epoch': True, 'max_epochs': epochs, 'val_interval': 100},
        param_scheduler=schedule or cosine(epochs),
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': lr, 'momentum': 0.9}},
        **({'resume': True, 'load_from': str(start)} if start else {}),
    ).train()
    return note.rates


WARM = {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'begin': 0, 'end': 8}
CHANGES = {
    'longer': {'epochs': 4},
    'another rate': {'epochs': 2, 'lr': 0.2},
    'another schedule': {'epochs': 3, 'schedule': [WARM, *cosine(3)]},
    'iteration-based': {
        'epochs': 4,
        'schedule': [{'type': 'PolyLR', 'eta_min': 0.0, 'by_epoch': True, 'end': 4,
                      'convert_to_iter_based': True}],
    },
}  # fmt: skip


@pytest.mark.parametrize('stock', [False, True], ids=['ours', 'of stock mmengine'])
@pytest.mark.parametrize('change', CHANGES)
def test_a_changed_schedule_is_followed_as_if_it_had_been_there_from_the_start(
    change, stock, tmp_path
):
    rates(tmp_path / 'old', epochs=2)
    start = tmp_path / 'old' / 'epoch_1.pth'
    if stock:
        content = load_checkpoint(start)
        content.pop('bocb_mm')
        torch.save(content, start)
    expected = rates(tmp_path / 'new', **CHANGES[change])
    found = rates(tmp_path / 'resumed', start=start, **CHANGES[change])
    assert found == pytest.approx({k: v for k, v in expected.items() if k >= 6}, rel=1e-9)


REFUSED = {
    'optimizer': {'optim_wrapper': {'optimizer': {'type': 'AdamW', 'lr': 0.05}}},
    'batch_size': {'train_dataloader': tiny.loader(batch_size=8)},
    'batches': {'train_dataloader': tiny.loader(dataset=tiny.TinyData(40))},
    'parameters': {
        'optim_wrapper': {
            'optimizer': {'type': 'SGD', 'lr': 0.05, 'momentum': 0.9, 'weight_decay': 0.0},
            'paramwise_cfg': {'norm_decay_mult': 0.0},
        }
    },
}


@pytest.mark.parametrize('what', REFUSED)
def test_what_cannot_be_changed_in_a_run_is_refused_with_the_reason(what, tmp_path):
    tiny.runner(tmp_path, default_hooks=tiny.saving()).train()
    changed = {'default_hooks': tiny.saving(), **REFUSED[what]}
    start = str(tmp_path / 'iter_9.pth')
    with pytest.raises(UserError, match=f'{what} was .* and is now .*; keep it, or start'):
        tiny.runner(tmp_path, resume=True, load_from=start, **changed).train()


def test_a_changed_weight_decay_takes_effect(tmp_path):
    tiny.runner(tmp_path, default_hooks=tiny.saving()).train()
    optimizer = {'type': 'SGD', 'lr': 0.05, 'momentum': 0.9, 'weight_decay': 0.3}
    run = tiny.runner(
        tmp_path,
        default_hooks=tiny.saving(),
        optim_wrapper={'optimizer': optimizer},
        resume=True,
        load_from=str(tmp_path / 'iter_9.pth'),
    )
    run.train()
    assert run.optim_wrapper.optimizer.param_groups[0]['weight_decay'] == 0.3


def test_the_flexible_runner_follows_a_changed_schedule(tmp_path):
    settings = {'kind': FlexibleRunner, 'default_hooks': tiny.saving(by_epoch=True, interval=1)}
    tiny.runner(tmp_path, **settings, param_scheduler=cosine(3)).train()
    note = Rates()
    longer = {'by_epoch': True, 'max_epochs': 5, 'val_interval': 9}
    changed = {'param_scheduler': cosine(5), 'train_cfg': longer, 'custom_hooks': [note]}
    tiny.resumed(tmp_path, tmp_path / 'epoch_2.pth', **settings, **changed)
    expected = Rates()
    tiny.runner(tmp_path / 'new', **{**settings, **changed, 'custom_hooks': [expected]}).train()
    assert note.rates == pytest.approx({k: v for k, v in expected.rates.items() if k >= 12})


def test_a_plateau_run_that_is_only_made_longer_goes_on(tmp_path):
    def settings(epochs):
        # `end` is that of the run, as the builder of schedulers fills it in
        plateau = {'type': 'ReduceOnPlateauLR', 'monitor': 'tiny/accuracy', 'rule': 'greater',
                   'patience': 1, 'factor': 0.5}  # fmt: skip
        return {
            'default_hooks': tiny.saving(by_epoch=True, interval=1),
            'param_scheduler': [plateau],
            'train_cfg': {'by_epoch': True, 'max_epochs': epochs, 'val_interval': 1},
        }

    def final(run):
        run.train()
        return tiny.weights(run), run.optim_wrapper.get_lr()['lr']

    whole = final(tiny.runner(tmp_path / 'whole', **settings(8)))
    tiny.runner(tmp_path / 'cut', **settings(4)).train()
    start = str(tmp_path / 'cut' / 'epoch_4.pth')
    again = final(tiny.runner(tmp_path / 'cut', resume=True, load_from=start, **settings(8)))
    assert whole[1] == again[1] and whole[1][0] < 0.05, 'the rate was never reduced'
    assert tiny.same(whole[0], again[0])
