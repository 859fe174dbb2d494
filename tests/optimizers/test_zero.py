"""Sharded state (ZeRO), and PyTorch's nine on sharded parameters (FSDP2), with loading."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .table import CASES
from .test_torch_based import TORCH

WORKER = Path(__file__).with_name('zero_worker.py')


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp('zero')
    done = subprocess.run(
        [sys.executable, str(WORKER), str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return json.loads((folder / 'found.json').read_text())


@pytest.mark.parametrize('name', TORCH)
def test_fsdp2_trains_as_one_process_and_loads(name, found):
    difference, moved = found['fsdp'][name]
    assert difference < 1e-12 < moved


@pytest.mark.parametrize('name', CASES)
def test_zero_trains_as_one_process_and_loads(name, found):
    difference, moved = found['zero'][name]
    assert difference < 1e-12 < moved


def test_zero_refuses_to_clip_by_a_share(found):
    assert 'max_grad_norm' in found['zero']['LAMB clipped']


def test_zero_takes_our_names_in_a_config(tmp_path):
    """With the groups of our constructor, in a process group of one."""
    import torch
    from mmengine.optim import build_optim_wrapper

    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    try:
        model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
        for name in ('LARS', 'bocb_mm.Adan', 'timm.lion'):
            wrapper = build_optim_wrapper(
                model,
                {
                    'constructor': 'bocb_mm.OptimWrapperConstructor',
                    'type': 'OptimWrapper',
                    'optimizer': {
                        'type': 'bocb_mm.ZeroRedundancyOptimizer',
                        'optimizer_type': name,
                        'lr': 0.1,
                        'weight_decay': 0.1,
                    },
                },
            )
            wrapper.update_params(model(torch.randn(4, 3)).square().mean())
            assert [g['weight_decay'] for g in wrapper.optimizer.optim.param_groups] == [0.1, 0.0]
            wrapper.load_state_dict(wrapper.state_dict())
    finally:
        torch.distributed.destroy_process_group()
