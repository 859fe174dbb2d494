"""Run directories with made-up but plausible results, written by the real writer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bocb_mm.report import names
from bocb_mm.runs.record import RunRecord, config_hash, run_directory

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
DECAYS = (0.0, 1e-4, 1e-2, 5e-2, 0.1)
METRICS = {
    'classification': 'accuracy/top1',
    'detection': 'coco/bbox_mAP',
    'pose': 'coco/AP',
}


def make_record(
    optimizer: str = 'AdamW',
    backbone: str = 'R-50',
    lr: float | None = 1e-3,
    weight_decay: float | None = 0.05,
    seed: int | None = 0,
    best: float | None = 75.0,
    epochs: int = 4,
    **changes: object,
) -> RunRecord:
    """A record of a completed classification run on CIFAR-100, changed as asked."""
    settings = {'task': 'classification', 'dataset': 'cifar100', 'status': 'completed', **changes}
    metric = METRICS.get(str(settings['task']), 'mIoU')
    record = RunRecord(
        optimizer=optimizer,
        backbone=backbone,
        lr=lr,
        weight_decay=weight_decay,
        seed=seed,
        metric=metric,
        optimizer_settings={'lr': lr, 'weight_decay': weight_decay},
        max_epochs=epochs,
        epochs=epochs,
        iterations=epochs * 100,
        losses=[[i * 10, 4.6 * math.exp(-i / 20)] for i in range(100)],
        peak_memory_mb=1000.0,
        optimizer_step_ms=12.0,
        seconds_per_iteration=0.2,
        versions={'torch': '2.9.1', 'mmengine': '0.10.7'},
        config=f'{backbone}_{settings["dataset"]}',
        config_hash=config_hash({'backbone': backbone, 'lr': lr, 'wd': weight_decay}),
        started=f'2026-11-21T10:00:{(seed or 0) % 60:02d}+00:00',
        finished='2026-11-21T11:00:00+00:00',
        **settings,
    )
    if best is not None:
        for epoch in range(1, epochs + 1):
            share = 1 - 0.5 * math.exp(-3 * epoch / epochs) + 0.5 * math.exp(-3)
            record.add_evaluation(epoch, epoch * 100, {metric: best * share})
    return record


def save(root: Path, record: RunRecord) -> Path:
    """Write ``record`` where a training would and return the directory."""
    place = run_directory(
        root / record.task,
        record.config,
        record.optimizer,
        record.lr,
        record.weight_decay,
        record.seed,
    )
    place.mkdir(parents=True, exist_ok=True)
    record.save(place)
    return place


def landscape(
    optimizer: str, backbone: str, lr: float, wd: float, rng: np.random.Generator
) -> float:
    """A result that peaks at a rate and a decay of the pair's own."""
    o, b = names.OPTIMIZERS.index(optimizer), names.BACKBONES.index(backbone)
    peak = math.log10(RATES[(o + b // 7) % 5]), (o * b) % 5
    far = abs(math.log10(lr) - peak[0]) * 4 + abs(DECAYS.index(wd) - peak[1]) * 0.8
    coupled = 6.0 if o % 4 == 0 and b % 5 == 0 else 0.0
    return 78 + 3 * math.sin(b) - 0.1 * o - far - coupled + rng.normal(0, 0.2)


def make_grid(
    root: Path,
    optimizers: Sequence[str],
    backbones: Sequence[str],
    rates: Sequence[float] = RATES,
    decays: Sequence[float] = DECAYS,
    seeds: int = 1,
    epochs: int = 4,
) -> list[Path]:
    """A whole LR x WD search of every pair, written to ``root``; the highest rate may diverge."""
    rng = np.random.default_rng(0)
    made = []
    for optimizer in optimizers:
        for backbone in backbones:
            for lr in rates:
                for decay in decays:
                    for seed in range(seeds):
                        lost = lr == max(RATES) and optimizer in ('LION', 'AdaBound')
                        best = landscape(optimizer, backbone, lr, decay, rng)
                        record = make_record(optimizer, backbone, lr, decay, seed, best, epochs)
                        if lost:
                            record.status, record.message = 'diverged', 'loss is NaN'
                        made.append(save(root, record))
    return made
