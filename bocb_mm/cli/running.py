"""What the commands that run a config take alike."""

from __future__ import annotations

import argparse


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
