"""When a loss is gone, and that finding out costs no synchronisation."""

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


def first_bad(losses, **settings):
    """Iteration at which the hook's rule finds the losses diverged, or None."""
    hook = DivergenceHook(**settings)
    for iteration, loss in enumerate(losses, start=1):
        hook._note(torch.tensor(float(loss)), iteration)
    found = float(hook._state[3])
    return None if found == float('inf') else int(found)


WATCHED = {
    'falls': ([7 / (1 + t / 50) for t in range(400)], None),
    'noisy': ([3 + (-1) ** t for t in range(400)], None),
    'one spike': ([2.0] * 200 + [60.0] + [2.0] * 100, None),
    'negative': ([5 - t / 10 for t in range(400)], None),
    'negative and through zero': ([1 - t / 100 for t in range(300)], None),
    'NaN': ([2.0] * 30 + [float('nan')] + [2.0] * 100, 31),
    'infinite': ([2.0] * 150 + [float('inf')] * 9, 151),
    'NaN at once': ([float('nan')] * 5, 1),
    'minus infinite': ([1.0] * 7 + [float('-inf')], 8),
}


@pytest.mark.parametrize('case', WATCHED)
def test_the_rule(case):
    losses, expected = WATCHED[case]
    assert first_bad(losses) == expected


def test_a_blow_up_is_found_when_the_smoothed_loss_passes_the_bound():
    # b = s_w = 1 and f = 10: diverged when s > 11. s after n losses of 101 is 101 - 100 * 0.95^n,
    # which passes 11 at n = 3 (15.3; 10.75 at n = 2).
    assert first_bad([1.0] * 200 + [101.0] * 50) == 203


@pytest.mark.parametrize(
    'settings', [{'factor': 0.5}, {'warmup': -1}, {'smoothing': 0}, {'interval': 0}]
)
def test_arguments_out_of_range_are_refused(settings):
    with pytest.raises(UserError, match='at least'):
        DivergenceHook(**settings)


def test_noting_a_loss_never_brings_a_number_to_the_host(monkeypatch):
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
    assert fetched == ['tolist']  # once in 50 iterations


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
