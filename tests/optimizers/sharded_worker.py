"""Two processes with half of each parameter as DTensors (FSDP2), compared with whole parameters.

``python sharded_worker.py FILE``: what each optimizer did, by name: the largest difference, or the
message with which it refused.
"""

import json
import sys
from pathlib import Path

import torch
import torch.multiprocessing as mp
from torch import nn

from bocb_mm import optimizers
from bocb_mm.errors import UserError

SHAPES = [(6, 4), (4, 3, 2, 2), (8,)]


def steps(name, params, grads, settings):
    optimizer = optimizers.build_optimizer(name, params, lr=1e-2, weight_decay=0.1, **settings)
    for step in grads:
        for p, g in zip(params, step):
            p.grad = g
        if name == 'Sophia':
            optimizer.update_hessian(8)
        optimizer.step()
    state = optimizer.state[params[0]]
    assert not hasattr(params[0], 'to_local') or hasattr(list(state.values())[-1], 'to_local')
    return [p.detach() for p in params]


def compare(name, mesh, settings):
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    torch.manual_seed(0)
    weights = [torch.randn(s).double() for s in SHAPES]
    grads = [[torch.randn(s).double() for s in SHAPES] for _ in range(3)]
    whole = steps(name, [nn.Parameter(w.clone()) for w in weights], grads, settings)

    def spread(tensors, kind):
        return [distribute_tensor(t.clone(), mesh, [kind]) for t in tensors]

    found = {}
    for label, kind, gradient_kind in (
        ('sharded', Shard(0), Shard(0)),
        ('gradients whole', Shard(0), Replicate()),
        ('replicated', Replicate(), Replicate()),
    ):
        try:
            params = [nn.Parameter(w) for w in spread(weights, kind)]
            sharded = steps(name, params, [spread(g, gradient_kind) for g in grads], settings)
        except UserError as error:
            found[label] = str(error)
            continue
        pairs = zip((p.full_tensor() for p in sharded), whole)
        found[label] = max((a - b).abs().max().item() for a, b in pairs)
    return found


def zero(name, settings):
    """How far the least moved weight is from its 1 under torch's ZeroRedundancyOptimizer."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    params = [nn.Parameter(torch.ones(s)) for s in SHAPES]
    try:
        cls = optimizers.get_spec(name).cls
        optimizer = ZeroRedundancyOptimizer(params, cls, lr=1e-2, **settings)
    except UserError as error:
        return str(error)
    for p in params:
        p.grad = torch.ones_like(p)
    for _ in range(2):  # SOAP's first step only looks at the gradients
        optimizer.step()
    return min((p - 1).abs().min().item() for p in params)


def work(rank, file):
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f'{file}.store', 2)
    torch.distributed.init_process_group('gloo', rank=rank, world_size=2, store=store)
    mesh = torch.distributed.device_mesh.init_device_mesh('cpu', (2,))
    found = {}
    for name in optimizers.list_optimizers():
        if optimizers.get_spec(name).implementation != 'bocb_mm':
            continue
        found[name] = compare(name, mesh, {})
        found[name]['zero'] = zero(name, {})
        if name in ('Adan', 'LAMB'):
            found[f'{name} clipped'] = compare(name, mesh, {'max_grad_norm': 1.0})
            found[f'{name} clipped']['zero'] = zero(name, {'max_grad_norm': 1.0})
            found[f'{name} unclipped'] = {'zero': zero(name, {'max_grad_norm': 0.0})}
    if rank == 0:
        Path(file).write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    mp.spawn(work, (sys.argv[1],), 2)
