"""Parameters of which a process holds a part: right, or refused with the reason."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import bocb_mm.optimizers as optimizers
from bocb_mm.errors import UserError

from .table import CASES

OWN = [n for n in CASES if optimizers.get_spec(n).implementation == 'bocb_mm']
WHOLE = [n for n in OWN if not optimizers.get_spec(n).elementwise]
ELEMENTWISE = [n for n in OWN if optimizers.get_spec(n).elementwise]


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    """What :mod:`.sharded_worker` saw."""
    file = tmp_path_factory.mktemp('sharded') / 'found.json'
    command = [sys.executable, str(Path(__file__).with_name('sharded_worker.py')), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


@pytest.mark.parametrize('name', [*ELEMENTWISE, 'Adan clipped'])
def test_elementwise_ones_train_on_shards(name, found):
    for label in ('sharded', 'gradients whole', 'replicated'):
        assert found[name][label] < 1e-12, label


@pytest.mark.parametrize('name', WHOLE)
def test_the_others_refuse_shards_and_take_copies(name, found):
    for label in ('sharded', 'gradients whole'):
        assert found[name][label].startswith(f'{name} needs whole parameters, but DTensor (FSDP2)')
    assert found[name]['replicated'] < 1e-12


@pytest.mark.parametrize('name', OWN)
def test_zero_redundancy_optimizer(name, found):
    """It divides whole parameters among processes: a sum over all is the only thing that breaks."""
    if name == 'Prodigy':
        assert 'Prodigy needs all gradients' in found[name]['zero']
        return
    if name == 'LAMB':  # clips by default
        assert 'max_grad_norm=0' in found[name]['zero']
        name = 'LAMB unclipped'
    assert found[name]['zero'] > 0
    assert 'ZeroRedundancyOptimizer' in found['Adan clipped']['zero']


@pytest.mark.parametrize('name', OWN)
def test_flat_parameters_of_fsdp1(name, tmp_path):
    """One process is enough: a flat parameter holds several, even where it is not divided."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    store = torch.distributed.FileStore(str(tmp_path / 'store'), 1)
    torch.distributed.init_process_group('gloo', rank=0, world_size=1, store=store)
    try:
        for original in (False, True):
            net = nn.Linear(3, 2)
            net = FullyShardedDataParallel(
                net, use_orig_params=original, device_id=torch.device('cpu')
            )
            if name in WHOLE:
                with pytest.raises(UserError, match='needs whole parameters, but FSDP1'):
                    optimizers.build_optimizer(name, net.parameters())
                continue
            optimizer = optimizers.build_optimizer(name, net.parameters(), lr=0.1)
            before = [p.detach().clone() for p in net.parameters()]
            net(torch.ones(4, 3)).sum().backward()
            optimizer.step()
            assert not any(map(torch.equal, before, net.parameters()))
            if name == 'Adan':
                with pytest.raises(UserError, match='FSDP1 gives each process a share'):
                    optimizers.build_optimizer(name, net.parameters(), max_grad_norm=1.0)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize('name', OWN)
def test_parameters_that_a_wrapper_makes_flat(name):
    """As DeepSpeed does with the groups of an optimizer that it is given."""
    settings = {'max_grad_norm': 1.0} if name == 'Adan' else {}
    params = [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2))]
    optimizer = optimizers.build_optimizer(name, params, lr=0.1, **settings)
    flat = nn.Parameter(torch.ones(8))
    flat.grad = torch.ones(8)
    optimizer.param_groups[0]['params'] = [flat]
    if name in WHOLE or name == 'Adan':
        with pytest.raises(UserError, match='DeepSpeed'):
            optimizer.step()
        assert not optimizer.state and torch.equal(flat, torch.ones(8))
    else:
        optimizer.step()
        assert (flat < 1).all()
