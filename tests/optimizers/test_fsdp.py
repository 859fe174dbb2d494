"""PyTorch's nine on sharded parameters (FSDP2): two processes hold what one holds, after loading too."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .test_torch_based import TORCH

WORKER = Path(__file__).with_name('fsdp_worker.py')


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp('fsdp')
    done = subprocess.run(
        [sys.executable, str(WORKER), str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return json.loads((folder / 'found.json').read_text())


@pytest.mark.parametrize('name', TORCH)
def test_fsdp2_trains_as_one_process_and_loads(name, found):
    difference, moved = found[name]
    assert difference < 1e-12 < moved
