#!/usr/bin/env python
"""What the hooks of every shipped config cost, beside a stock mmengine Runner.

    python tools/benchmarks/hooks.py [--out docs/hooks_benchmark.md]

Iterations of two runners, stock hooks and ours, take turns in one process; each pair gives one
difference, the median of which is the cost. Saves take turns in the same way.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
import torchvision
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset


class Images(Dataset):
    """Random images, one batch of them over and over."""

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return IMAGE, index % 10


IMAGE = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))


class Classifier(BaseModel):
    """A torchvision network with a cross entropy."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.net = torchvision.models.get_model(name)

    def forward(self, inputs: torch.Tensor, y: torch.Tensor, mode: str = 'tensor') -> Any:
        """Logits, or the loss."""
        out = self.net(inputs)
        return {'loss': torch.nn.functional.cross_entropy(out, y)} if mode == 'loss' else out


OURS = [
    {'type': 'bocb_mm.DivergenceHook'},
    {'type': 'bocb_mm.SignalHook'},
    {'type': 'bocb_mm.RunRecordHook', 'task': 'classification', 'dataset': 'random',
     'backbone': 'R-18', 'pretraining': '', 'metric': 'accuracy/top1'},
]  # fmt: skip


def started(name: str, work_dir: str, ours: bool) -> Runner:
    """A runner that has done everything that comes before its first iteration."""
    checkpoint = 'bocb_mm.SafeCheckpointHook' if ours else 'CheckpointHook'
    optimizer = {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9}
    runner = Runner(
        Classifier(name),
        work_dir,
        train_dataloader={
            'dataset': Images(),
            'sampler': {'type': 'DefaultSampler', 'shuffle': True},
            'batch_size': 16,
            'num_workers': 0,
            'collate_fn': {'type': 'default_collate'},
        },
        train_cfg={'by_epoch': True, 'max_epochs': 1000},
        optim_wrapper={'optimizer': optimizer},
        param_scheduler=[{'type': 'CosineAnnealingLR', 'T_max': 1000}],
        default_hooks={'checkpoint': {'type': checkpoint, 'interval': 1}},
        custom_hooks=OURS if ours else [],
        visualizer={'type': 'Visualizer', 'vis_backends': []},
        experiment_name=f'{Path(work_dir).name}_{ours}',
        log_level='ERROR',
        randomness={'seed': 0},
        cfg=Config({'optim_wrapper': {'optimizer': optimizer}}),
    )
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    runner.call_hook('before_run')
    runner.optim_wrapper.initialize_count_status(runner.model, 0, runner.max_iters)
    for place in ('before_train', 'before_train_epoch'):
        runner.call_hook(place)
    runner.model.train()
    return runner


def clocked(function: Any, *args: Any, clock: Any = time.perf_counter) -> float:
    began = clock()
    function(*args)
    return clock() - began


def iterations(pairs: int, warm: int = 30) -> tuple[float, float]:
    """Median time of a stock iteration, and median of the paired differences, in s of the CPU.

    The processor's time, not the clock's: one thread, nothing to wait for, and what other
    programs do on the machine does not count.
    """
    with tempfile.TemporaryDirectory() as directory:
        runners = [started('resnet18', f'{directory}/{o}', ours=o) for o in (False, True)]
        feeds = [iter(r.train_dataloader) for r in runners]

        def step(which: int, index: int) -> None:
            runners[which].train_loop.run_iter(index, next(feeds[which]))

        stock, difference = [], []
        for index in range(warm + pairs):
            order = (0, 1) if index % 2 else (1, 0)
            times = {w: clocked(step, w, index, clock=time.process_time) for w in order}
            if index >= warm:
                stock.append(times[0])
                difference.append(times[1] - times[0])
    return statistics.median(stock), statistics.median(difference)


def saves(pairs: int) -> dict[str, float]:
    """Median times in s of a save by mmengine and by ours, and of the fsync in ours; size in MB."""
    flushed: list[float] = []
    fsync = os.fsync

    def counted(fd: int) -> None:
        flushed.append(clocked(fsync, fd))

    with tempfile.TemporaryDirectory(dir=ROOT / 'work_dirs') as directory:
        runners = [started('resnet50', f'{directory}/{o}', ours=o) for o in (False, True)]
        for runner in runners:  # so that momentum is there
            runner.train_loop.run_iter(0, next(iter(runner.train_dataloader)))
        hooks = [next(h for h in r.hooks if isinstance(h, CheckpointHook)) for r in runners]
        stock, ours, sync = [], [], []
        for index in range(pairs + 1):
            for which in (0, 1) if index % 2 else (1, 0):
                os.sync()
                flushed.clear()
                os.fsync = counted
                taken = clocked(hooks[which]._save_checkpoint, runners[which])
                os.fsync = fsync
                if index:
                    (ours if which else stock).append(taken)
                    if which:
                        sync.append(sum(flushed))
        size = sum(p.stat().st_size for p in Path(directory, 'True').glob('*.pth')) / 1e6
    return {
        'stock': statistics.median(stock),
        'ours': statistics.median(ours),
        'fsync': statistics.median(sync),
        'ratio': statistics.median((o - f) / s for o, f, s in zip(ours, sync, stock)),
        'megabytes': size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--pairs', type=int, default=300, help='pairs of iterations')
    parser.add_argument('--saves', type=int, default=15, help='pairs of saves')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs' / 'hooks_benchmark.md')
    args = parser.parse_args()
    torch.set_num_threads(1)
    (ROOT / 'work_dirs').mkdir(exist_ok=True)
    save = saves(args.saves)
    print(save, flush=True)
    stock, difference = iterations(args.pairs)
    text = f"""\
# What the hooks cost

`python tools/benchmarks/hooks.py`, {platform.machine()}, one thread, torch {torch.__version__}.

| | stock mmengine | with ours | |
|---|---|---|---|
| an iteration (ResNet-18, 16 images of 32x32), ms of CPU | {stock * 1e3:.2f} | \
{(stock + difference) * 1e3:.2f} | {difference / stock:+.2%} |
| saving a checkpoint of ResNet-50 with momentum ({save['megabytes']:.0f} MB), ms | \
{save['stock'] * 1e3:.0f} | {save['ours'] * 1e3:.0f}, of which fsync {save['fsync'] * 1e3:.0f} | \
{save['ratio']:.2f}x without the fsync |

Medians of {args.pairs} pairs of iterations and {args.saves} pairs of saves, taken in turns. Ours:
SafeCheckpointHook, DivergenceHook, SignalHook and RunRecordHook, beside mmengine's default
hooks, which both have; DivergenceHook fetches its verdict every 50 iterations, as by default. The
bounds asked for are 1 % of an iteration, and 1.1x of a save plus the fsync. A save of ours writes
the file as it goes along, where mmengine builds it in memory and copies it; the time won pays for
reading the file back and for the look at the weights.
"""
    args.out.write_text(text, encoding='utf-8')
    print(text)


if __name__ == '__main__':
    main()
