"""Two gloo processes under DDP: accumulation, clipping, Hessian passes and the timer together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

WORKER = Path(__file__).with_name('ddp_worker.py')


def test_two_processes_agree(tmp_path):
    done = subprocess.run(
        [sys.executable, str(WORKER), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout
    one, two = (torch.load(tmp_path / f'{rank}.pt', weights_only=False) for rank in (0, 1))
    for name in one['weights']:
        assert torch.equal(one['weights'][name], two['weights'][name]), name
    for a, b in zip(one['hessian'], two['hessian']):
        assert torch.equal(a, b)
    assert any((h > 0).any() for h in one['hessian'])
    assert one['kind'] == two['kind'] == 'gauss-newton-bartlett (categorical)'
    # 8 iterations / 2 accumulated = 4 updates, a Hessian before updates 0 and 2, over 4 + 4 images.
    assert one['batches'] == two['batches'] == [8, 8]
    # Labels are drawn independently, though both ranks have the same torch seed.
    assert not set(one['seeds']) & set(two['seeds'])
    assert one['losses'] != two['losses']
    assert one['ms'] > 0
