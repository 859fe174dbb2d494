"""``bocb test CONFIG CHECKPOINT [--out metrics.json]``: evaluate a checkpoint."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bocb_mm import shipped
from bocb_mm.cli.running import add_running
from bocb_mm.errors import UserError, one_line_errors
from bocb_mm.launch.leaving import leaves_at_once
from bocb_mm.runs.files import atomic_write_text, check_parent


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of ``bocb test``."""
    parser = argparse.ArgumentParser(
        description='Evaluate a checkpoint on the test set of a config.'
    )
    parser.add_argument('config', help='as for `bocb train`')
    parser.add_argument('checkpoint', help='file or URL')
    parser.add_argument('--work-dir', metavar='DIR', help='default: test beside the checkpoint')
    parser.add_argument('--out', metavar='FILE.json', help='write the metrics there as well')
    add_running(parser)
    return parser.parse_args(argv)


@leaves_at_once
@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, print the metrics, and write them where asked to."""
    args = parse_args(argv)
    config = shipped.find_config(args.config)
    if '://' not in args.checkpoint and not Path(args.checkpoint).is_file():
        raise UserError(f'checkpoint {args.checkpoint}: no such file; `bocb train` makes one')
    if args.out:
        check_parent('--out', args.out)
    from bocb_mm.config.edit import parse_options
    from bocb_mm.launch.evaluate import evaluate

    metrics = evaluate(
        config,
        args.checkpoint,
        work_dir=args.work_dir,
        launcher=args.launcher,
        trust=args.trust_checkpoint,
        cfg_options=parse_options(args.cfg_options),
    )
    from mmengine.dist import is_main_process

    if not is_main_process():
        return 0
    for name, value in sorted(metrics.items()):
        print(f'{name:<28}{f"{value:.4f}" if isinstance(value, float) else value}')
    if args.out:
        told = {k: None if v != v else v for k, v in metrics.items()}  # JSON has no NaN
        atomic_write_text(args.out, json.dumps(told, indent=1) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
