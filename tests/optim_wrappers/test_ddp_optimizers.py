"""Each of the 20 optimizers under DDP: 2 and 4 processes train as one with the same global batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bocb_mm.optimizers import list_optimizers

WORKER = Path(__file__).with_name('ddp_optimizers_worker.py')


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    """What every rank found, by number of processes."""
    folder = tmp_path_factory.mktemp('ddp')
    done = subprocess.run(
        [sys.executable, str(WORKER), str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return {
        size: [torch.load(folder / f'{size}_{rank}.pt', weights_only=False) for rank in range(size)]
        for size in (1, 2, 4)
    }


@pytest.mark.parametrize('size', [2, 4])
@pytest.mark.parametrize('name', list_optimizers())
def test_processes_train_as_one(name, size, ranks):
    first, *others = [found[name] for found in ranks[size]]
    for other in others:
        assert all(map(torch.equal, first['weights'], other['weights'])), 'the ranks parted'
    one = ranks[1][0][name]
    mean = torch.tensor([found[name]['losses'] for found in ranks[size]]).mean(0)
    # Sophia's Hessian comes from labels that each process draws for itself: other draws, another
    # estimate, so only what precedes the first one that acts is the same number.
    same = 1 if name == 'Sophia' else len(mean)
    torch.testing.assert_close(mean[:same], torch.tensor(one['losses'])[:same], rtol=1e-6, atol=0)
    if name == 'Sophia':
        assert all(map(torch.equal, first['hessian'], others[0]['hessian']))
        assert any((h > 0).any() for h in first['hessian'])
        assert torch.isfinite(mean).all()
        return
    for ours, whole in zip(first['weights'], one['weights']):
        torch.testing.assert_close(ours, whole, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('name', list_optimizers())
def test_it_took_steps(name, ranks):
    torch.manual_seed(0)
    sys.path.insert(0, str(WORKER.parent))
    from toy import ToyNet

    start = list(ToyNet().double().parameters())
    moved = [(a - b).abs().max() for a, b in zip(start, ranks[4][0][name]['weights'])]
    assert all(float(m) > 0 for m in moved)
