"""Layer metrics of weights on the device against the same on the CPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from bocb_mm.gpu_check.report import Report, Settings
from bocb_mm.metrics import layer_metrics

BOUND = 1e-4  # relative; eigenvalue routines of the devices differ in rounding


def run(report: Report, settings: Settings) -> None:
    """Every column of every layer."""
    torch.manual_seed(0)
    width = 32 if settings.small else 256
    network = nn.Sequential(
        nn.Conv2d(3, width, 7),
        nn.Conv2d(width, width, 3, groups=width),
        nn.Conv2d(width, 2 * width, 3),
        nn.Linear(2 * width, 4 * width),
        nn.MultiheadAttention(2 * width, 4),
    )
    expected = layer_metrics(network)
    found = layer_metrics(network.to(settings.device))
    report.holds(
        'the same layers',
        list(found['layer']) == list(expected['layer']),
        str(list(found['layer'])),
    )
    for column in expected.select_dtypes('number'):
        a, b = found[column].to_numpy(float), expected[column].to_numpy(float)
        same_gaps = bool((np.isnan(a) == np.isnan(b)).all())
        report.holds(f'{column}, layers without a value', same_gaps, f'{a} for {b}')
        gap = np.nanmax(np.abs(a - b) / np.maximum(np.abs(b), 1e-12), initial=0.0)
        report.check(column, float(gap), BOUND)
