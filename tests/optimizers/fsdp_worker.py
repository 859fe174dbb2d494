"""PyTorch's nine on sharded parameters (FSDP2) in two gloo processes, beside whole ones.

Called as ``fsdp_worker.py FOLDER``; rank 0 writes ``found.json``: by optimizer the
largest difference of a parameter to an unsharded training and how far that went, or the error.
"""

from __future__ import annotations

import copy
import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


from bocb_mm.optimizers import build_optimizer, get_spec, list_optimizers

SETTINGS: dict[str, Any] = {'lr': 1e-2, 'weight_decay': 0.1}


def network() -> nn.Module:
    """Five rows do not divide by two."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 4)).double()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, first: int = 0) -> None:
    for i in range(first, first + 3):
        x = torch.randn(7, 6, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def difference(model: nn.Module, whole: nn.Module) -> float:
    full = [getattr(p, 'full_tensor', lambda p=p: p)() for p in model.parameters()]
    return max((p - q).abs().max().item() for p, q in zip(full, whole.parameters()))


def fsdp(name: str, mesh: Any) -> tuple[float, float]:
    """Six steps, the last three after loading into another optimizer."""
    whole, model = network(), network()
    fully_shard(model, mesh=mesh)
    reference = build_optimizer(name, whole.parameters(), foreach=False, **SETTINGS)
    optimizer = build_optimizer(name, model.parameters(), **SETTINGS)
    train(model, optimizer)
    fresh = build_optimizer(name, model.parameters(), **SETTINGS)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, fresh, 3)
    train(whole, reference)
    train(whole, reference, 3)
    return difference(model, whole), difference(network(), whole)


def rank_of(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    mesh = init_device_mesh('cpu', (2,))
    found: dict[str, Any] = {}
    for name in list_optimizers():
        if get_spec(name).implementation == 'bocb_mm':
            continue  # sharded_worker.py
        try:
            found[name] = fsdp(name, mesh)
        except Exception as error:
            found[name] = f'{type(error).__name__}: {error}'
    if rank == 0:
        (folder / 'found.json').write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def main(folder: Path) -> int:
    torch.set_num_threads(1)
    context = multiprocessing.get_context('fork')
    ranks = [context.Process(target=rank_of, args=(r, folder), daemon=True) for r in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    return max(abs(process.exitcode or 0) for process in ranks)


if __name__ == '__main__':
    sys.exit(main(Path(sys.argv[1])))
