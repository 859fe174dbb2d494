"""One of two gloo processes: trains the toy under DDP and saves what the other one must agree with.

Called as ``ddp_worker.py RANK STORE OUT``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests' / 'optim_wrappers')]


def main(rank: int, store: str, out: str) -> None:
    from toy import CrossEntropyLoss, ToyNet, toy_batch

    from bocb_mm.optim_wrappers import StepTimer, hessian

    hessian._SAMPLERS[f'{CrossEntropyLoss.__module__.split(".")[0]}.CrossEntropyLoss'] = (
        hessian._cross_entropy
    )
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{store}', rank=rank, world_size=2
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
        out,
    )
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
