"""Our own networks against numbers of the official models.

``golden/golden_outputs.json`` and the lists of keys were measured on the official code (the
repositories are named in the network modules), with weights and images made by a formula.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bocb_mm.backbones.moganet import MogaNet
from bocb_mm.backbones.transnext import TransNeXt
from bocb_mm.backbones.unireplknet import UniRepLKNet

GOLDEN = Path(__file__).parent / 'golden'
NUMBERS = json.loads((GOLDEN / 'golden_outputs.json').read_text())


@dataclass(frozen=True)
class Row:
    """One network: how to build it and what is known of it."""

    name: str
    build: Callable[..., nn.Module]
    params: dict[int, int]  # classes -> parameters, counted on the official model
    # A text in the golden case's `variant` or `mode` -> the arguments that make the variant.
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)


ROWS = [
    Row(
        'moganet_small',
        MogaNet,
        {1000: 25335675, 100: 24873975, 0: 24822675},
        {'attn_force_fp32=True': {'attn_force_fp32': True}},
    ),
    Row('unireplknet_tiny', UniRepLKNet, {1000: 31693420, 100: 31116520, 0: 31052420}),
    Row(
        'transnext_tiny',
        TransNeXt,
        {1000: 28258960, 100: 27739660, 0: 27681960},
        {'is_extrapolation=False': {'interpolate_bias': True}},
    ),
]
by_name = pytest.mark.parametrize('row', ROWS, ids=lambda row: row.name)


def read_keys(name: str) -> list[tuple[str, tuple[int, ...], str]]:
    """Name, shape and type of every entry of the official state_dict, in its order."""
    entries = []
    for line in (GOLDEN / f'{name}_keys.txt').read_text().splitlines():
        key, shape, *dtype = line.split()
        sizes = () if shape == '-' else tuple(map(int, shape.split('x')))
        entries.append((key, sizes, dtype[0] if dtype else 'float32'))
    return entries


def noise(j: int, count: int) -> np.ndarray:
    """The formula's pseudo-random numbers b(j, 0..count-1), float64, mean 0, variance 1."""
    with np.errstate(over='ignore'):
        h = np.arange(1, count + 1, dtype=np.uint32) * np.uint32(2654435761)
        h += np.uint32((j + 1) * 2246822519 % 2**32)
        h = (h ^ (h >> 15)) * np.uint32(2246822519)
        h = (h ^ (h >> 13)) * np.uint32(3266489917)
        h ^= h >> 16
    return (h / 2**32 - 0.5) * np.sqrt(12)


def golden_state(name: str) -> dict[str, torch.Tensor]:
    """All entries of the official state_dict, filled by the formula."""
    c0, c1 = NUMBERS['models'][name]['c0'], NUMBERS['models'][name]['c1']
    state = {}
    for j, (key, shape, dtype) in enumerate(read_keys(name)):
        count = int(np.prod(shape))
        b, last = noise(j, count), key.rsplit('.')[-1]
        if dtype == 'int64':
            values = np.zeros(count, dtype=np.int64)
        elif last in ('running_var', 'running_mean'):
            values = (last == 'running_var') + 0.1 * b
        elif last == 'weight':
            values = 1 + 0.1 * b if len(shape) == 1 else b / np.sqrt(count / shape[0])
        else:
            values = 0.05 * b if last == 'bias' else c0 + c1 * b
        wanted = torch.int64 if dtype == 'int64' else torch.float32
        state[key] = torch.from_numpy(values).to(wanted).reshape(shape)
    return state


@pytest.fixture(scope='module', params=ROWS, ids=lambda row: row.name)
def golden_row(request: pytest.FixtureRequest) -> tuple[Row, dict[str, torch.Tensor]]:
    return request.param, golden_state(request.param.name)


def assert_summary(got: torch.Tensor, want: dict[str, Any]) -> None:
    assert list(got.shape) == want['shape']
    flat = got.double().flatten()
    numbers = {
        'mean': [flat.mean()],
        'std': [flat.std()],
        'absmax': [flat.abs().max()],
        'first4': flat[:4],
        'last4': flat[-4:],
    }
    for key, values in numbers.items():
        np.testing.assert_allclose(
            np.ravel(values), np.ravel(want[key]), rtol=0, atol=2e-5, err_msg=key
        )


def test_outputs_are_the_official_ones(golden_row):
    # The issue asks for 1e-4; the file says that a wrong LayerNorm eps is a matter of 3e-5.
    row, state = golden_row
    for case in NUMBERS['models'][row.name]['cases']:
        told = case.get('variant', '') + case.get('mode', '')
        kwargs = [v for text, v in row.variants.items() if text in told]
        model = row.build(num_classes=1000, **(kwargs[0] if kwargs else {})).eval()
        model.load_state_dict(state)
        shape = case['input']
        x = torch.from_numpy(noise(-1, int(np.prod(shape)))).float().reshape(shape)
        with torch.no_grad():
            logits, maps = model(x), model.forward_features(x)
        for got, want in zip(maps, case['stages'], strict=True):
            assert_summary(got, want)
        if 'logits' in case:
            assert_summary(logits, case['logits'])


@by_name
def test_state_dict_is_the_official_one(row):
    got = [
        (k, tuple(v.shape), str(v.dtype).removeprefix('torch.'))
        for k, v in row.build(num_classes=1000).state_dict().items()
    ]
    assert got == read_keys(row.name)


@by_name
@pytest.mark.parametrize('classes', [1000, 100])
def test_parameter_count(row, classes):
    model = row.build(num_classes=classes)
    assert sum(p.numel() for p in model.parameters()) == row.params[classes]
    inner = sum(p.numel() for n, p in model.named_parameters() if not n.startswith('head.'))
    assert inner == row.params[0]
