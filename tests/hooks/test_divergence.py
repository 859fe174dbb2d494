"""A diverged run ends, keeps its last good weights, and finding out costs no synchronisation."""

import logging
from types import SimpleNamespace

import pytest
import torch

from bocb_mm.checkpoints.read import load_checkpoint
from bocb_mm.errors import UserError
from bocb_mm.hooks.divergence import DivergenceHook
from bocb_mm.hooks.stopping import Diverged
from bocb_mm.runs import exit_codes
from tests import tiny_training as tiny


@pytest.mark.parametrize(
    'settings', [{'factor': 0.5}, {'warmup': -1}, {'smoothing': 0}, {'interval': 0}]
)
def test_arguments_out_of_range_are_refused(settings):
    with pytest.raises(UserError, match='at least'):
        DivergenceHook(**settings)


def test_a_loss_is_fetched_once_in_an_interval(monkeypatch):
    fetched = []
    for name in ('item', 'tolist', '__bool__', '__float__', '__int__', 'cpu', 'numpy'):
        original = getattr(torch.Tensor, name)

        def watched(self, *args, _name=name, _original=original):
            fetched.append(_name)
            return _original(self, *args)

        monkeypatch.setattr(torch.Tensor, name, watched)
    hook = DivergenceHook(interval=50)
    runner = SimpleNamespace(iter=0)
    for runner.iter in range(49):
        hook.after_train_iter(runner, 0, outputs={'loss': torch.tensor(1.0)})
    assert fetched == []
    runner.iter = 49
    hook.after_train_iter(runner, 0, outputs={'loss': torch.tensor(1.0)})
    assert fetched == ['tolist']


class Break(tiny.Hook):
    """Spoils a weight, or the loss, at one iteration."""

    priority = 'VERY_HIGH'

    def __init__(self, iteration, what):
        self.iteration, self.what = iteration, what

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.iteration:
            if self.what == 'weight':
                runner.model.head.weight.data[0, 0] = float('nan')
            else:
                outputs['loss'] = outputs['loss'] * float('inf')


def train(tmp_path, *hooks, **settings):
    checkpoint = {'type': 'bocb_mm.SafeCheckpointHook', 'interval': 4, 'by_epoch': False}
    run = tiny.runner(
        tmp_path,
        default_hooks={'checkpoint': checkpoint},
        custom_hooks=[*hooks, {'type': 'bocb_mm.DivergenceHook', **settings}],
    )
    with pytest.raises(Diverged) as caught:
        run.train()
    return run, caught.value


@pytest.mark.parametrize(
    ('what', 'iteration', 'words'),
    [
        ('loss', 6, 'diverged at iteration 6: the loss is NaN or infinite'),
        ('weight', 8, 'diverged at iteration 8: a weight is NaN or infinite'),
        ('weight', 5, 'diverged at iteration 6: the loss is NaN or infinite'),
    ],
)
def test_a_diverged_run_ends_says_where_and_keeps_the_last_good_weights(
    what, iteration, words, tmp_path
):
    run, stopped = train(tmp_path, Break(iteration, what), interval=50)
    assert words in str(stopped)
    assert 'the last good weights are in' in str(stopped)
    assert stopped.code == exit_codes.DIVERGED
    info = run.message_hub.runtime_info
    assert info['bocb_mm/status'] == 'diverged'
    assert info['bocb_mm/message'] == str(stopped)
    assert [p.name for p in tmp_path.glob('*.pth')] == ['iter_4.pth']
    kept = load_checkpoint(tmp_path / 'iter_4.pth')['state_dict']
    assert all(torch.isfinite(v).all() for v in kept.values())


def test_a_model_without_a_total_loss_is_told_once(caplog):
    hook = DivergenceHook()
    runner = SimpleNamespace(iter=0, logger=logging.getLogger('test'))
    for _ in range(3):
        hook.after_train_iter(runner, 0, outputs={'acc': 1})
    assert len(caplog.records) == 1
