"""Steps that wait for the device: none may, but for one question a step of clipping and scaler."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bocb_mm.gpu_check import steps
from bocb_mm.gpu_check.report import Report, Settings


def run(report: Report, settings: Settings) -> None:
    """Every optimizer as it runs by default: fresh, going on, and from a checkpoint."""
    grads = steps.gradients(4)
    for name in steps.names(settings):
        with report.guard(name):
            params = steps.parameters(settings.device, torch.float32)
            optimizer = steps.build(name, params)
            steps.give(params, grads[0])
            with _counting(settings) as fresh:
                steps.step(name, optimizer, 0)
                optimizer.step()
            state = steps.copied(optimizer.state_dict())
            again = steps.build(name, params)
            again.load_state_dict(state)
            with _counting(settings) as loaded:
                again.step()
                again.step()
            _check(report, settings, f'{name}, fresh', fresh, 0)
            _check(report, settings, f'{name}, from a checkpoint', loaded, 0)
    _clipping_and_scaler(report, settings)


def _clipping_and_scaler(report: Report, settings: Settings) -> None:
    """A scaler asks once a step whether a gradient was infinite; clipping asks nothing."""
    params = steps.parameters(settings.device, torch.float32)
    optimizer = steps.build('AdamW', params)
    scaler = torch.amp.GradScaler(settings.device)
    scaler.scale(torch.ones((), device=settings.device))
    for _ in range(2):
        steps.give(params, steps.gradients(1)[0])
        with _counting(settings) as waits:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            scaler.step(optimizer)
            scaler.update()
    _check(report, settings, 'clipping and scaler, a step', waits, 1)


@contextmanager
def _counting(settings: Settings) -> Iterator[list[str]]:
    """Where the block waited for the device."""
    waits: list[str] = []
    if settings.device != 'cuda':
        yield waits
        return
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        torch.cuda.set_sync_debug_mode('warn')
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode('default')
    for warning in caught:
        if 'synchroniz' in str(warning.message):
            waits.append(f'{warning.filename}:{warning.lineno}')


def _check(report: Report, settings: Settings, name: str, waits: list[str], most: int) -> None:
    if settings.device != 'cuda':
        report.skip(name, 'a CPU waits for nothing; the steps ran')
    elif len(waits) > most:
        report.fail(name, f'{len(waits)} waits, {most} may be: {", ".join(sorted(set(waits)))}')
    else:
        report.check(name, len(waits), most)
