"""The step timer: right, and blind to nothing that steps. The test tells the time."""

from __future__ import annotations

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict

from bocb_mm.optim_wrappers import timing
from bocb_mm.optim_wrappers.timing import WARM_UP, StepTimer


class Clock:
    """Stands still unless it is told to go on; in ms."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now / 1e3


@pytest.fixture(autouse=True)
def clock(monkeypatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(timing, 'time', found)
    return found


class Slow(torch.optim.SGD):
    """An optimizer whose step takes ``milliseconds`` of ``clock``."""

    milliseconds = 2.0
    clock: Clock

    def step(self, closure=None):
        self.clock.now += self.milliseconds
        return super().step(closure)


def optimizer(kind=torch.optim.SGD, clock=None):
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    made = kind([p], lr=0.1)
    made.clock = clock
    return made


def steps(o, n):
    for _ in range(n):
        o.step()


def test_median_of_the_steps_after_warm_up(clock):
    o = optimizer(Slow, clock)
    timer = StepTimer(o)
    assert timer.median_ms() is None
    o.milliseconds = 60.0
    steps(o, WARM_UP)
    assert timer.median_ms() == pytest.approx(60)  # nothing better yet
    o.milliseconds = 2.0
    steps(o, 5)
    assert timer.median_ms() == pytest.approx(2)
    timer.remove()
    o.milliseconds = 200.0
    steps(o, 9)
    assert timer.median_ms() == pytest.approx(2), 'removed: nothing is measured any more'


def test_wrapper_and_several_optimizers(clock):
    one, two = (OptimWrapper(optimizer(Slow, clock)) for _ in range(2))
    single, both = StepTimer(one), StepTimer(OptimWrapperDict(a=one, b=two))
    for _ in range(WARM_UP + 3):
        one.step()
        two.step()
    assert single.median_ms() == pytest.approx(2)
    assert both.median_ms() == pytest.approx(4), 'the sum: an iteration steps both'


def test_a_left_out_step_is_not_counted():
    """A loss scaler leaves out a step whose gradients are infinite."""
    o = optimizer(torch.optim.SGD)
    timer = StepTimer(o)
    scaler = torch.amp.GradScaler('cpu')
    loss = (o.param_groups[0]['params'][0] * float('inf')).sum()
    scaler.scale(loss).backward()
    scaler.step(o)
    assert timer.median_ms() is None


class FakeEvent:
    """A CUDA event whose time is told by the test; ``elapsed_time`` before ``query`` is an error."""

    done = False
    clock = 0.0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.at = FakeEvent.clock

    def query(self):
        return FakeEvent.done

    def elapsed_time(self, end):
        assert FakeEvent.done, 'read before the device was there'
        return end.at - self.at

    def synchronize(self):
        pytest.fail('waited for the device')


def test_cuda_events_are_read_only_when_done(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'Event', FakeEvent)
    monkeypatch.setattr(FakeEvent, 'done', False)
    monkeypatch.setattr(torch.Tensor, 'is_cuda', property(lambda p: True))
    o = optimizer()
    timer = StepTimer(o)
    o.register_step_pre_hook(lambda *_: setattr(FakeEvent, 'clock', FakeEvent.clock + 7.0))
    steps(o, 5)
    assert timer.median_ms() is None
    monkeypatch.setattr(FakeEvent, 'done', True)
    assert timer.median_ms() == 7.0
