"""A run that is asked to end saves itself, says so, and goes on as if nothing had happened."""

import signal

import pytest

from bocb_mm.errors import UserError
from bocb_mm.hooks.signals import SignalHook
from bocb_mm.hooks.stopping import Interrupted
from bocb_mm.resume.find import find_resumable
from bocb_mm.runs import exit_codes
from tests import tiny_training as tiny


class Send(tiny.Hook):
    """Sends this process a signal in the middle of an iteration or of a validation."""

    def __init__(self, number, iteration, where='before_train_iter'):
        self.number, self.iteration = number, iteration
        setattr(self, where, self.send)

    def send(self, runner, **_):
        if runner.iter + 1 == self.iteration:
            # Not os.kill: another thread may get that, and two that are pending count as one.
            signal.raise_signal(self.number)


def settings(by_epoch=True):
    return {
        'default_hooks': {
            'checkpoint': {
                'type': 'bocb_mm.SafeCheckpointHook',
                'interval': 1 if by_epoch else 5,
                'by_epoch': by_epoch,
            }
        },
    }


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    run = tiny.runner(tmp_path_factory.mktemp('whole'), **settings())
    run.train()
    return tiny.weights(run)


def interrupted(directory, *hooks, **changes):
    """A run that a signal ends; the exception that did it."""
    run = tiny.runner(directory, custom_hooks=[*hooks, {'type': 'bocb_mm.SignalHook'}], **changes)
    with pytest.raises(Interrupted) as caught:
        run.train()
    return run, caught.value


def resumed(directory, **changes):
    start = find_resumable(directory)
    run = tiny.runner(directory, resume=True, load_from=str(start), **changes)
    run.train()
    return tiny.weights(run)


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT', 'SIGUSR1'])
def test_a_signal_saves_ends_with_75_and_the_run_goes_on_bit_equal(name, by_epoch, whole, tmp_path):
    before = signal.getsignal(signal.Signals[name])
    send = Send(signal.Signals[name], 9)
    run, stopped = interrupted(tmp_path, send, **settings(by_epoch))
    assert stopped.code == exit_codes.INTERRUPTED == 75
    assert name in str(stopped) and 'iteration 9' in str(stopped) and '--resume' in str(stopped)
    assert run.message_hub.runtime_info['bocb_mm/status'] == 'interrupted'
    assert signal.getsignal(signal.Signals[name]) == before
    assert find_resumable(tmp_path) == tmp_path / 'iter_9.pth'
    assert tiny.same(resumed(tmp_path, **settings(by_epoch)), whole)
    assert not (tmp_path / 'iter_9.pth').exists(), 'the regular checkpoints replace it'


def test_a_signal_during_validation_need_not_wait_for_its_end(whole, tmp_path):
    send = Send(signal.SIGTERM, 7, where='before_val_iter')
    run, stopped = interrupted(tmp_path, send, **settings())
    assert stopped.message.startswith('SIGTERM: ended at iteration 6')
    assert 'accuracy' not in str(run.message_hub.log_scalars)
    assert tiny.same(resumed(tmp_path, **settings()), whole)


def test_a_second_signal_ends_at_once(tmp_path):
    twice = Send(signal.SIGINT, 9)
    twice.before_train_iter = lambda runner, **_: [twice.send(runner), twice.send(runner)]
    run = tiny.runner(tmp_path, custom_hooks=[twice, SignalHook()], **settings())
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert not (tmp_path / 'iter_9.pth').exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_unknown_signal_is_refused():
    with pytest.raises(UserError, match="'SIGNOPE' is not a signal"):
        SignalHook(signals=['SIGNOPE'])


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(UserError, match='interval 0: at least 1'):
        SignalHook(interval=0)
