"""30 steps of each optimizer with ``compile=True`` against the CPU."""

from __future__ import annotations

import shutil
import time
import warnings

import torch

from bocb_mm.gpu_check import steps
from bocb_mm.gpu_check.parity import BOUNDS, train
from bocb_mm.gpu_check.report import Report, Settings

#: On a CPU each is compiled as C++ for up to a minute; one stands for all.
ON_CPU = ('LION',)


def run(report: Report, settings: Settings) -> None:
    """Every optimizer, until the time is up."""
    warnings.simplefilter('ignore')
    longest = 0.0
    if settings.small and not any(shutil.which(c) for c in ('g++', 'c++', 'clang++')):
        report.skip('all', 'no C++ compiler on PATH, which torch.compile needs on a CPU')
        return
    for name in ON_CPU if settings.small else steps.names(settings):
        if settings.seconds_left() < longest:
            report.skip(name, f"the stage's time is up; the slowest took {longest:.0f} s")
            continue
        start = time.monotonic()
        with report.guard(name):
            torch.compiler.reset()
            dtype = torch.float32
            found = train(name, settings.device, dtype, compile=True)
            gap = steps.difference(found, train(name, 'cpu', dtype))
            report.check(name, gap, BOUNDS[dtype])
        longest = max(longest, time.monotonic() - start)
