"""``bocb train CONFIG [--optimizer NAME] [--lr X] [--weight-decay X] ...``: one training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bocb_mm import shipped
from bocb_mm.cli.running import add_running, check_optimizers
from bocb_mm.errors import one_line_errors
from bocb_mm.launch.leaving import leaves_at_once


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of ``bocb train``."""
    parser = argparse.ArgumentParser(
        description='Train the model of a config. The run goes to '
        'work_dirs/<config>/<optimizer>/lr<..>_wd<..>_seed<..>/ unless --work-dir is given.',
        epilog='Exit status: 0 completed, 2 a mistake in what was given, 3 diverged, '
        '75 interrupted (go on with --resume), 1 any other failure.',
    )
    parser.add_argument(
        'config', help='file, name of a shipped one (`bocb configs` lists them), or mmdet::...'
    )
    parser.add_argument('--optimizer', metavar='NAME', help='`bocb optimizers` lists them')
    parser.add_argument('--lr', type=float, help='base learning rate')
    parser.add_argument('--weight-decay', type=float, metavar='WD', help='base weight decay')
    parser.add_argument('--pretrained', metavar='PATH', help='checkpoint of the backbone, or none')
    parser.add_argument('--seed', type=int, help="random seed (default: the config's)")
    parser.add_argument('--work-dir', metavar='DIR', help='where the run goes')
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
    add_running(parser)
    return parser.parse_args(argv)


@leaves_at_once
@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit status of the run."""
    args = parse_args(argv)
    # Wrong names are refused before the imports below cost their seconds.
    config = shipped.find_config(args.config)
    check_optimizers([args.optimizer] if args.optimizer else [])
    from bocb_mm.config import edit
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
    return train(prepare(config, options), options)


if __name__ == '__main__':
    sys.exit(main())
