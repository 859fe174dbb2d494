#!/usr/bin/env python
"""Images a second of a worker's pipeline and the preprocessor, augment_on 'worker' and 'device'.

    python tools/benchmarks/augmentation.py [--recipes deit ...] [--images 300] [--device cuda]

The pipelines of the recipes run in this process as a worker runs them, on random CIFAR images and
on one JPEG of 500 x 375, in turns; the preprocessor (with mixup and cutmix) takes the batches on
--device, the GPU where there is one. A training can take the smaller of workers x the first
number and the second. Median of the rounds; on a CPU in seconds of its own, so that other
processes count less.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from mmengine.dataset import Compose, default_collate
from mmengine.registry import MODELS, DefaultScope
from mmengine.utils import import_modules_from_strings
from PIL import Image

from bocb_mm.config.augment import augment_on_device
from bocb_mm.config.edit import load_config
from bocb_mm.errors import one_line_errors

RECIPES = ('pytorch_cifar_224', 'rsb-a2_cifar_224', 'deit_cifar_224', 'convnext_cifar_32', 'deit')


def build(recipe: str, where: str) -> tuple[Any, Any, int]:
    """The worker's pipeline, the preprocessor and the batch size of a recipe."""
    from mmpretrain.registry import TRANSFORMS

    cfg = load_config(ROOT / f'configs/_base_/recipes/{recipe}.py', {'augment_on': where})
    augment_on_device(cfg)
    pre = cfg.data_preprocessor
    pre.setdefault('type', 'ClsDataPreprocessor')
    pre['batch_augments'] = cfg.model.get('train_cfg')
    loader = cfg.train_dataloader
    pipeline = Compose([TRANSFORMS.build(t) for t in loader.dataset.pipeline])
    return pipeline, MODELS.build(pre), loader.batch_size


def samples(recipe: str, n: int, jpeg: str) -> list[dict[str, Any]]:
    """What a data set hands to its pipeline."""
    rng = np.random.default_rng(0)
    if 'cifar' not in recipe:
        return [{'img_path': jpeg, 'gt_label': i % 10} for i in range(n)]
    images = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    return [{'img': image, 'gt_label': i % 10} for i, image in enumerate(images)]


def measure(recipe: str, where: str, n: int, jpeg: str, device: torch.device) -> dict[str, float]:
    """Images a second of one worker and of the preprocessor, bytes an image between them."""
    pipeline, pre, batch_size = build(recipe, where)
    pre = pre.to(device)
    start = time.process_time()
    done = [pipeline(sample) for sample in samples(recipe, n, jpeg)]
    worker = n / (time.process_time() - start)
    batch = default_collate(done[:batch_size])
    pre({**batch}, training=True)  # the first one allocates
    n_batches = 3
    start = _now(device)
    for _ in range(n_batches):
        pre({**batch}, training=True)
    rate = n_batches * len(batch['inputs']) / (_now(device) - start)
    return {'worker': worker, 'preprocessor': rate, 'bytes': batch['inputs'][0].numel()}


def _now(device: torch.device) -> float:
    if device.type == 'cpu':
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--recipes', nargs='+', choices=RECIPES, default=RECIPES)
    parser.add_argument('--images', type=int, default=300)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args()
    import_modules_from_strings('mmpretrain')
    device = torch.device(args.device)
    torch.set_num_threads(1)
    print(f'torch {torch.__version__}, {args.device}, {args.images} images, one thread')
    print('| recipe | augment_on | a worker, images/s | preprocessor, images/s | bytes an image |')
    print('|---|---|---|---|---|')
    with (
        tempfile.TemporaryDirectory() as folder,
        DefaultScope.overwrite_default_scope('mmpretrain'),
    ):
        jpeg = str(Path(folder, 'image.jpg'))
        noise = np.random.default_rng(0).integers(0, 256, (47, 63, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC).save(jpeg, quality=90)
        for recipe in args.recipes:
            found: dict[str, list[dict[str, float]]] = {'worker': [], 'device': []}
            for _ in range(args.rounds):
                for where, rounds in found.items():
                    np.random.seed(0)
                    rounds.append(measure(recipe, where, args.images, jpeg, device))
            for where, rounds in found.items():
                worker, rate, size = (
                    statistics.median(r[key] for r in rounds)
                    for key in ('worker', 'preprocessor', 'bytes')
                )
                print(f'| {recipe} | {where} | {worker:,.0f} | {rate:,.0f} | {size:,.0f} |')


if __name__ == '__main__':
    main()
