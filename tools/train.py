#!/usr/bin/env python
"""Train the model of a config with any optimizer of the catalog.

python tools/train.py CONFIG [--optimizer NAME] [--lr X] [--weight-decay X] ...
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an installation too

from bocb_mm.errors import one_line_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Train the model of a config. The run goes to '
        'work_dirs/<config>/<optimizer>/lr<..>_wd<..>_seed<..>/ unless --work-dir is given.',
        epilog='Exit status: 0 completed, 2 a mistake in what was given, 3 diverged, '
        '75 interrupted (go on with --resume), 1 any other failure.',
    )
    parser.add_argument('config', help='config file, or mmdet::..., mmpose::..., mmpretrain::...')
    parser.add_argument(
        '--optimizer', metavar='NAME', help='`python -m bocb_mm.optimizers` lists them'
    )
    parser.add_argument('--lr', type=float, help='base learning rate')
    parser.add_argument('--weight-decay', type=float)
    parser.add_argument('--pretrained', metavar='PATH', help='checkpoint of the backbone, or none')
    parser.add_argument('--seed', type=int)
    parser.add_argument('--work-dir', metavar='DIR')
    parser.add_argument(
        '--resume', nargs='?', const='auto', default='', metavar='auto|PATH',
        help='go on from the newest complete checkpoint of the work directory, or from PATH',
    )  # fmt: skip
    parser.add_argument(
        '--amp', nargs='?', const=True, default=False, choices=('bfloat16', 'float16'),
        help='mixed precision; bfloat16 where the device has it, else float16, unless named',
    )  # fmt: skip
    parser.add_argument(
        '--auto-scale-lr', action='store_true',
        help='scale the rate from the batch it is meant for to this one: linearly for the '
        'relatives of SGD, by the square root for those of AdamW',
    )  # fmt: skip
    parser.add_argument(
        '--metric', metavar='NAME', help='metric to judge by, as logged, e.g. coco/AP'
    )
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='load checkpoints that can run any code'
    )
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='K=V')
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from bocb_mm.config import edit

    # Refused before the toolboxes cost their seconds.
    if '::' not in args.config and not Path(args.config).is_file():
        edit.load_config(args.config)
    from bocb_mm.launch.train import TrainOptions, prepare, train

    options = TrainOptions(
        optimizer=args.optimizer,
        lr=args.lr,
        weight_decay=args.weight_decay,
        pretrained=args.pretrained,
        seed=args.seed,
        work_dir=args.work_dir,
        resume=args.resume,
        amp=args.amp,
        launcher=args.launcher,
        trust_checkpoint=args.trust_checkpoint,
        cfg_options=edit.parse_options(args.cfg_options),
        metric=args.metric,
        auto_scale_lr=args.auto_scale_lr,
    )
    return train(prepare(args.config, options), options)


if __name__ == '__main__':
    sys.exit(main())
