"""ZeroRedundancyOptimizer in 2 gloo processes, beside plain DDP: ``zero_worker.py FOLDER``."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path
from typing import Any

import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests'), str(ROOT / 'tests' / 'optim_wrappers')]

import tiny_training as tiny  # noqa: E402
from toy import ToyNet, toy_batch  # noqa: E402

from bocb_mm.errors import UserError  # noqa: E402
from bocb_mm.registry import OPTIMIZERS  # noqa: E402

NAMES = ('SGD', 'AdamW', 'LION', 'LARS', 'LAMB', 'AdaFactor', 'NovoGrad', 'SGDP', 'timm.lion')
ZERO = 'bocb_mm.ZeroRedundancyOptimizer'


def settings(name: str) -> dict[str, Any]:
    clips = {'max_grad_norm': 0.0} if name == 'LAMB' else {}
    return {'lr': 0.01, 'weight_decay': 0.01, **clips}


def weights_after(name: str, rank: int, zero: bool) -> list[torch.Tensor]:
    torch.manual_seed(0)
    net = ToyNet().double().eval()
    model = MMDistributedDataParallel(net, device_ids=None, broadcast_buffers=False)
    kind = {'type': ZERO, 'optimizer_type': name} if zero else {'type': f'bocb_mm.{name}'}
    wrapper = build_optim_wrapper(model, {
        'type': 'OptimWrapper', 'constructor': 'bocb_mm.OptimWrapperConstructor',
        'optimizer': {**kind, **settings(name)},
    })  # fmt: skip
    for step in range(4):
        batch = toy_batch(8, seed=step)
        mine = {
            'inputs': batch['inputs'][rank::2].double(),
            'data_samples': batch['data_samples'][rank::2],
        }
        model.train_step(mine, wrapper)
    return [p.detach().clone() for p in net.parameters()]


def resumed(folder: Path, rank: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Weights after 3 epochs at once, and after 2 and 1 with a checkpoint between them."""

    def run(name: str, epochs: int, **changes: Any) -> list[torch.Tensor]:
        torch.manual_seed(0)
        runner = tiny.runner(
            folder / name, launcher='none', train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
            optim_wrapper=dict(optimizer=dict(type=ZERO, optimizer_type='LARS', lr=0.05, momentum=0.9)),
            default_hooks=dict(checkpoint=dict(type='bocb_mm.SafeCheckpointHook', interval=1)), **changes,
        )  # fmt: skip
        runner.train()
        return [p.detach().clone() for p in runner.model.parameters()]

    whole = run('whole', 3)
    run('parts', 2)
    return whole, run('parts', 3, resume=True)


def rank_of(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    found: dict[str, Any] = {
        name: [weights_after(name, rank, zero) for zero in (False, True)] for name in NAMES
    }
    for name, more in (
        ('Adan', {'max_grad_norm': 5.0}),
        ('Sophia', {}),
        ('ScheduleFreeAdamW', {}),
    ):
        try:
            OPTIMIZERS.build({'type': ZERO, 'optimizer_type': name, 'lr': 0.1, **more,
                              'params': list(ToyNet().parameters())})  # fmt: skip
        except UserError as error:
            found[name] = str(error)
    found['resumed'] = resumed(folder, rank)
    torch.save(found, folder / f'{rank}.pt')
    torch.distributed.destroy_process_group()


def main(folder: Path) -> int:
    torch.set_num_threads(1)
    OPTIMIZERS.get('Sophia')  # registered, so imported, before the fork
    context = multiprocessing.get_context('fork')
    ranks = [context.Process(target=rank_of, args=(r, folder), daemon=True) for r in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    return max(abs(process.exitcode or 0) for process in ranks)


if __name__ == '__main__':
    sys.exit(main(Path(sys.argv[1])))
