"""``bocb SUBCOMMAND ...``: finds the sub-command's module and calls its ``main``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from bocb_mm import __version__
from bocb_mm.errors import one_line_errors, unknown_name

# Sub-command -> (the module whose main(argv) it is, what it does). Imported when it is called.
COMMANDS = {
    'quickstart': ('bocb_mm.cli.quickstart', 'the whole job on small embedded data, in minutes'),
    'train': ('bocb_mm.cli.train', 'train the model of a config with any optimizer'),
    'test': ('bocb_mm.cli.test', 'evaluate a checkpoint'),
    'dist': ('bocb_mm.cli.dist', 'train on several GPUs or CPU processes of a node'),
    'slurm': ('bocb_mm.cli.slurm', 'train under Slurm'),
    'sweep': ('bocb_mm.cli.sweep', 'search learning rate x weight decay'),
    'slurm-sweep': ('bocb_mm.cli.slurm_sweep', 'work on a search under Slurm'),
    'probe': ('bocb_mm.cli.probe', 'is a backbone coupled to its optimizer?'),
    'layers': ('bocb_mm.cli.layers', 'measure the layers of checkpoints'),
    'report': ('bocb_mm.report.cli', 'tables, figures and rankings of runs, or of the paper'),
    'optimizers': ('bocb_mm.cli.optimizers', 'list the optimizers and what to start from'),
    'backbones': ('bocb_mm.cli.backbones', 'list the backbones'),
    'configs': ('bocb_mm.cli.configs', 'list the configs that come with the package'),
    'doctor': ('bocb_mm.cli.doctor', 'what of this machine keeps a training from running'),
    'gpu-check': ('bocb_mm.cli.gpu_check', 'every path that differs on a GPU, in 8 minutes'),
}


def commands() -> dict[str, tuple[str, str]]:
    """The sub-commands this installation has: name to module and one line."""
    return {name: row for name, row in COMMANDS.items() if find_spec(row[0]) is not None}


def usage() -> str:
    """What ``bocb --help`` prints."""
    lines = [f'  {name:<12}{text}' for name, (_, text) in commands().items()]
    return '\n'.join(
        [
            'usage: bocb SUBCOMMAND ...',
            '',
            'Any optimizer on any vision backbone in OpenMMLab, and whether the two are coupled.',
            '',
            *lines,
            '',
            '`bocb SUBCOMMAND --help` says more; --version prints the version.',
            'Exit status: 0 done, 1 failure, 2 a mistake in what was given, 3 diverged, '
            '75 interrupted.',
        ]
    )


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command; returns its exit status.

    Raises:
        UnknownNameError: No such sub-command (printed as one line, exit status 2).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ('-h', '--help'):
        print(usage())
        return 0 if words else 2
    if words[0] == '--version':
        print(f'bocb_mm {__version__}')
        return 0
    known = commands()
    if words[0] not in known:
        raise unknown_name('command', words[0], known, '`bocb --help` lists them')
    sys.argv[0] = f'bocb {words[0]}'  # what argparse calls the program
    return int(importlib.import_module(known[words[0]][0]).main(words[1:]) or 0)
