"""ZeroRedundancyOptimizer takes our names, trains as DDP does, is saved, and refuses what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = Path(__file__).with_name('zero_worker.py')
NAMES = ('SGD', 'AdamW', 'LION', 'LARS', 'LAMB', 'AdaFactor', 'NovoGrad', 'SGDP', 'timm.lion')


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    """What both processes found."""
    folder = tmp_path_factory.mktemp('zero')
    done = subprocess.run(
        [sys.executable, str(WORKER), str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]
    return [torch.load(folder / f'{rank}.pt', weights_only=False) for rank in range(2)]


@pytest.mark.parametrize('name', NAMES)
def test_a_divided_state_trains_as_a_whole_one(name, ranks):
    for found in ranks:
        whole, divided = found[name]
        torch.testing.assert_close(divided, whole, rtol=1e-12, atol=1e-14)
    assert all(map(torch.equal, ranks[0][name][1], ranks[1][name][1]))


def test_it_is_saved_by_all_processes_and_resumed(ranks):
    for found in ranks:
        whole, parts = found['resumed']
        assert all(map(torch.equal, whole, parts))


@pytest.mark.parametrize(
    ('name', 'why'),
    [('Adan', 'max_grad_norm'), ('Sophia', 'Hessian'), ('ScheduleFreeAdamW', 'the average')],
)
def test_what_needs_all_parameters_is_refused(name, why, ranks):
    assert all(why in found[name] for found in ranks)
