#!/usr/bin/env python
"""The main job on small sets of real images: CIFAR-10 subset, blood cells, mouse pose.

    BOCB_REAL_DATA=DIR python tools/real_small.py [--out DIR] [--workers N]

A small ResNet is pre-trained on 10,000 images of CIFAR-10; RetinaNet on BCCD and top-down pose on
a mouse are fine-tuned from it, and from random weights to compare. DIR holds the folders cifar10,
bccd and mouse_pose (default: ../shared/data). docs/quickstart.md says what came out.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from quickstart import ROOT, new_folder, parse_args, run

from bocb_mm.errors import UserError, one_line_errors
from bocb_mm.launch.chain import Job

CONFIGS = ROOT / 'configs' / 'real_small'
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


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv, __doc__.splitlines()[0])
    check_data()
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
