"""Two gloo processes: each trains the toy under DDP and saves what the other one must agree with.

Called as ``ddp_worker.py FOLDER``; writes ``0.pt`` and ``1.pt``. A process of its own, because it
forks after the imports, which are most of the time, and before any autograd.
"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests' / 'optim_wrappers')]


from toy import CrossEntropyLoss, ToyNet, toy_batch  # noqa: E402

from bocb_mm.optim_wrappers import StepTimer, hessian  # noqa: E402
from bocb_mm.registry import OPTIMIZERS  # noqa: E402


def train(rank: int, folder: Path) -> None:
    hessian._SAMPLERS[f'{CrossEntropyLoss.__module__.split(".")[0]}.CrossEntropyLoss'] = (
        hessian._cross_entropy
    )
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    torch.manual_seed(0)  # the same on both ranks, as mmengine's default is
    model = MMDistributedDataParallel(ToyNet(), device_ids=None, broadcast_buffers=False)
    wrapper = build_optim_wrapper(
        model,
        {
            'type': 'bocb_mm.SophiaOptimWrapper',
            'constructor': 'bocb_mm.OptimWrapperConstructor',
            'hessian_interval': 2,
            'accumulative_counts': 2,
            'clip_grad': {'max_norm': 5.0},
            'optimizer': {'type': 'bocb_mm.Sophia', 'lr': 0.02},
        },
    )
    seeds, batches = [], []
    estimate = wrapper.optimizer.update_hessian

    def spy(batch_size: int) -> None:
        batches.append(batch_size)
        seeds.append(wrapper._seed())
        estimate(batch_size)

    wrapper.optimizer.update_hessian = spy
    timer = StepTimer(wrapper)
    losses = [
        float(model.train_step(toy_batch(n=4, seed=10 * i + rank), wrapper)['loss'])
        for i in range(8)
    ]
    torch.save(
        {
            'weights': dict(model.module.named_parameters()),
            'hessian': [wrapper.optimizer.state[p]['hessian'] for p in model.module.parameters()],
            'kind': wrapper.hessian_kind,
            'batches': batches,
            'seeds': seeds,
            'losses': losses,
            'ms': timer.median_ms(),
        },
        folder / f'{rank}.pt',
    )
    torch.distributed.destroy_process_group()


def main(folder: Path) -> int:
    OPTIMIZERS.get('Sophia')  # registered, so imported, before the fork
    context = multiprocessing.get_context('fork')
    ranks = [context.Process(target=train, args=(r, folder), daemon=True) for r in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    return max(abs(process.exitcode or 0) for process in ranks)


if __name__ == '__main__':
    sys.exit(main(Path(sys.argv[1])))
