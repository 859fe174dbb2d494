"""``bocb probe CONFIG|--backbone NAME --out DIR``: is a backbone coupled to its optimizer?"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from bocb_mm import shipped
from bocb_mm.cli.running import check_optimizers
from bocb_mm.errors import UserError, one_line_errors
from bocb_mm.probe.options import Options, check

_WHAT = """Is my backbone coupled to its optimizer, or is it just the learning rate?

Trains a network with a few optimizers at several rates, confirms the best ones with fresh seeds,
and answers in three sentences, a page and probe.json. The same command goes on where an interrupted
one stopped."""
_HOW = """examples:
  bocb probe --backbone timm.resnet18 --data photos --out probe_photos
  bocb probe retinanet_r50_sgd_pretrain --minutes 600 --out probe_r50
  bocb probe --translate SGD:0.01 AdamW

Exit status: 0 done, 2 a mistake in what was given, 3 all runs diverged, 75 interrupted."""


def parser() -> argparse.ArgumentParser:
    """The arguments of ``bocb probe``."""
    found = argparse.ArgumentParser(
        description=_WHAT, epilog=_HOW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    found.add_argument('config', nargs='?', metavar='CONFIG',
        help='a file, the name of a shipped config (`bocb configs`), or mmdet::...')  # fmt: skip
    found.add_argument('--backbone', metavar='NAME',
        help='in place of a config: a network of the catalog, timm.<name>, or a registered class '
        "such as 'mmpretrain.ResNet(depth=18)'")  # fmt: skip
    found.add_argument('--data', metavar='FOLDER',
        help='for --backbone: a folder with one folder of images a class, or train/ and val/ of '
        'that kind (default: the embedded digits)')  # fmt: skip
    found.add_argument('--out', metavar='DIR', help='where runs, page and probe.json go')
    found.add_argument('--dry-run', action='store_true', help='print plan and cost, train nothing')
    found.add_argument('--minutes', type=float, metavar='M',
        help='shorten the schedule, as a whole, so that the probe takes about so long')  # fmt: skip
    found.add_argument('--optimizers', nargs='+', metavar='NAME[:LR[:WD]]',
        help='default: SGD LARS AdamW LION; timm.<name>, pytorch_optimizer.<name> too')  # fmt: skip
    found.add_argument('--seeds', type=int, metavar='N', help='fresh seeds at each best rate (4)')
    found.add_argument('--margin', type=float, metavar='POINTS',
        help="what counts as a difference (the paper's gamma: 3, on ImageNet 1)")  # fmt: skip
    found.add_argument('--lengths', type=float, nargs='+', metavar='X',
        help='lengths of the schedule; at the further ones the best settings are confirmed again: '
        'does the gap grow?')  # fmt: skip
    found.add_argument('--references', nargs='+', metavar='DIR',
        help='probes of other networks on the same data and budget, shown beside')  # fmt: skip
    found.add_argument('--pretrained', metavar='PATH', help="backbone's checkpoint, or none")
    found.add_argument('--first-seed', type=int, metavar='N', help='another set of seeds')
    found.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='K=V',
        help='change the config, e.g. val_dataloader.batch_size=8',
    )  # fmt: skip
    found.add_argument('--translate', nargs=2, metavar=('OPTIMIZER:LR', 'OPTIMIZER'),
        help='print the rate to start from with another optimizer, and end')  # fmt: skip
    images = found.add_argument_group('for --backbone')
    images.add_argument('--iterations', type=int, metavar='N', help='of a run (400; digits 200)')
    images.add_argument('--batch', type=int, metavar='N', help='images a batch (64)')
    images.add_argument('--size', type=int, metavar='PX', help='side of the images (their own)')
    images.add_argument('--import', nargs='+', dest='imports', metavar='MODULE',
        help='modules that register your classes')  # fmt: skip
    where = found.add_argument_group('where it runs')
    where.add_argument('--gpus', metavar='0,1', type=lambda text: text.split(','),
        help='one training at a time on each of these')  # fmt: skip
    where.add_argument('--jobs', type=int, metavar='N', help='trainings at a time on the CPU')
    where.add_argument('--threads', type=int, metavar='N', help='threads of each (1)')
    where.add_argument('--address', metavar='ADDRESS', help='of a running Ray cluster')
    return found


@one_line_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Probe; returns the exit status."""
    args = parser().parse_args(arguments)
    args.config = args.config and shipped.find_config(args.config)
    if args.translate:
        from bocb_mm.config.translate import translate

        given, wanted = args.translate
        print(translate(given, wanted, args.config, args.out))
        return 0
    if not args.out and not args.dry_run:
        raise UserError('--out DIR is expected: where runs, page and probe.json go')
    given = {k: v for k, v in vars(args).items() if v is not None and k != 'translate'}
    options = Options(**{**given, 'out': args.out or '', 'cfg_options': {}})
    # Mistakes are refused before the imports below cost their seconds.
    check(options)
    check_optimizers(text.partition(':')[0] for text in options.optimizers)
    from bocb_mm.config.edit import parse_options
    from bocb_mm.probe.run import probe

    options = dataclasses.replace(options, cfg_options=parse_options(args.cfg_options))
    return probe(options, say=lambda line: print(line, flush=True))[1]


if __name__ == '__main__':
    sys.exit(main())
