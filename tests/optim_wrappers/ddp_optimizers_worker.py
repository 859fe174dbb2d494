"""All 20 optimizers under DDP in 1, 2 and 4 gloo processes, on the same global batches.

Called as ``ddp_optimizers_worker.py FOLDER``; rank r of n processes writes ``n_r.pt``: by optimizer
its losses, its weights and, of Sophia, its Hessian. It forks after the imports, before any autograd.
"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path
from typing import Any

import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests' / 'optim_wrappers')]

from toy import CrossEntropyLoss, ToyNet, toy_batch  # noqa: E402

from bocb_mm.optim_wrappers import hessian  # noqa: E402
from bocb_mm.optimizers import get_spec, list_optimizers  # noqa: E402
from bocb_mm.registry import OPTIMIZERS  # noqa: E402

SIZES, STEPS, BATCH = (1, 2, 4), 5, 12


def steps_of(name: str, rank: int, size: int) -> dict[str, Any]:
    """Some steps of one optimizer on this rank's share of each batch."""
    torch.manual_seed(0)
    # In double precision and with BN in eval mode, only a true difference shows.
    net = ToyNet().double()
    net.backbone[1].eval()
    model = MMDistributedDataParallel(net, device_ids=None, broadcast_buffers=False)
    sophia = {'type': 'bocb_mm.SophiaOptimWrapper', 'hessian_interval': 2}
    wrapper = build_optim_wrapper(
        model,
        {
            'constructor': 'bocb_mm.OptimWrapperConstructor',
            'optimizer': {
                'type': f'bocb_mm.{name}', **get_spec(name).defaults_for('classification')
            },
            'paramwise_cfg': {'custom_keys': {'head': {'matrix': True}}},  # for those with two halves
            **(sophia if name == 'Sophia' else {'type': 'OptimWrapper'}),
        },
    )  # fmt: skip
    losses = []
    for step in range(STEPS):
        batch = toy_batch(BATCH, seed=step)
        share = slice(rank, None, size)
        mine = {
            'inputs': batch['inputs'][share].double(),
            'data_samples': batch['data_samples'][share],
        }
        losses.append(float(model.train_step(mine, wrapper)['loss']))
    found = {'losses': losses, 'weights': [p.detach().clone() for p in net.parameters()]}
    if name == 'Sophia':
        found['hessian'] = [wrapper.optimizer.state[p]['hessian'] for p in net.parameters()]
    return found


def rank_of(rank: int, size: int, folder: Path) -> None:
    hessian._SAMPLERS[f'{CrossEntropyLoss.__module__.split(".")[0]}.CrossEntropyLoss'] = (
        hessian._cross_entropy
    )
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store{size}', rank=rank, world_size=size
    )
    found = {name: steps_of(name, rank, size) for name in list_optimizers()}
    torch.save(found, folder / f'{size}_{rank}.pt')
    torch.distributed.destroy_process_group()


def main(folder: Path) -> int:
    torch.set_num_threads(1)
    OPTIMIZERS.get('Sophia')  # registered, so imported, before the fork
    context = multiprocessing.get_context('fork')
    codes = []
    for size in SIZES:
        ranks = [
            context.Process(target=rank_of, args=(r, size, folder), daemon=True)
            for r in range(size)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        codes += [abs(process.exitcode or 0) for process in ranks]
    return max(codes)


if __name__ == '__main__':
    sys.exit(main(Path(sys.argv[1])))
