"""What the commands that run a config take alike."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from fnmatch import fnmatchcase

from bocb_mm import facts
from bocb_mm.errors import unknown_name


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add how a config is changed, how processes start, and what its checkpoints may hold."""
    parser.add_argument(
        '--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none',
        help='what started this process; `bocb dist` and `bocb slurm` set it',
    )  # fmt: skip
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='load checkpoints that can run any code'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='K=V',
        help='change the config, e.g. test_dataloader.batch_size=8',
    )  # fmt: skip
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)


def check_optimizers(names: Iterable[str], patterns: bool = False) -> None:
    """Refuse what nothing is called, before imports that take seconds.

    Args:
        names: As given; a library's names have a dot and are looked up later.
        patterns: Whether patterns of the catalog are taken, too.

    Raises:
        UserError: The first that is unknown, with the nearest names.
    """
    for name in names:
        if '.' in name or facts.find_optimizer(name):
            continue
        if patterns and any(fnmatchcase(n.lower(), name.lower()) for n in facts.OPTIMIZERS):
            continue
        raise unknown_name('optimizer', name, facts.OPTIMIZERS, '`bocb optimizers` lists them')
