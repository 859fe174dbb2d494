"""The step timer: right, cheap, and blind to nothing that steps."""

from __future__ import annotations

import time

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict

from bocb_mm.optim_wrappers.timing import WARM_UP, StepTimer


class Sleeper(torch.optim.SGD):
    """An optimizer whose step takes the given time in ms."""

    milliseconds = 2.0

    def step(self, closure=None):
        time.sleep(self.milliseconds / 1e3)
        return super().step(closure)


def optimizer(kind=Sleeper) -> torch.optim.Optimizer:
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    return kind([p], lr=0.1)


def steps(o, n):
    for _ in range(n):
        o.step()


def test_median_of_the_steps_after_warm_up():
    o = optimizer()
    timer = StepTimer(o)
    assert timer.median_ms() is None
    o.milliseconds = 60.0
    steps(o, WARM_UP)
    assert timer.median_ms() >= 60.0  # nothing better yet
    o.milliseconds = 2.0
    steps(o, 5)
    assert 2.0 <= timer.median_ms() < 60.0
    timer.remove()
    kept = timer.median_ms()
    o.milliseconds = 200.0
    steps(o, 1)
    assert timer.median_ms() == kept


def test_wrapper_and_several_optimizers():
    one, two = OptimWrapper(optimizer()), OptimWrapper(optimizer())
    single, both = StepTimer(one), StepTimer(OptimWrapperDict(a=one, b=two))
    for _ in range(WARM_UP + 3):
        one.step()
        two.step()
    assert single.median_ms() >= 2.0
    assert both.median_ms() >= 4.0  # the sum: an iteration steps both


def test_costs_next_to_nothing():
    """Two clock readings, about a microsecond; a hundred are allowed on a busy machine."""
    timer = StepTimer(optimizer())
    series = timer._series[0]
    start = time.perf_counter()
    for _ in range(2000):
        series._before()
        series._after()
    assert (time.perf_counter() - start) / 2000 < 1e-4


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
    o = optimizer(torch.optim.SGD)
    timer = StepTimer(o)
    series = timer._series[0]
    series._cuda = True
    for _ in range(5):
        series._before()
        FakeEvent.clock += 7.0
        series._after()
    assert timer.median_ms() is None
    monkeypatch.setattr(FakeEvent, 'done', True)
    assert timer.median_ms() == 7.0
