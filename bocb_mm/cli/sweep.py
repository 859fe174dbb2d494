"""``bocb sweep``, ``tools/sweep.py``: a search of learning rate x weight decay."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bocb_mm import shipped
from bocb_mm.cli.running import check_optimizers
from bocb_mm.errors import UserError, one_line_errors
from bocb_mm.runs.files import atomic_open, check_parent
from bocb_mm.words import counted

MOST_FAILURES = 20  # shown by status
STUDY = 'the directory of a study; on several machines, one that all of them see'


def parser() -> argparse.ArgumentParser:
    """The arguments of ``tools/sweep.py``."""
    found = argparse.ArgumentParser(
        description='Search learning rate x weight decay for pairs of config and optimizer.',
        epilog='Exit status: 0 done, 2 a mistake in what was given, 75 interrupted (work again).',
    )
    commands = found.add_subparsers(dest='command', required=True)
    _add_create(commands.add_parser('create', help='write down what is to be trained'))
    _add_work(commands.add_parser('work', help='train what waits; any number of these at a time'))
    commands.add_parser('status', help='how far it is').add_argument(
        'study', metavar='STUDY', help=STUDY
    )
    best = commands.add_parser('best', help='the best setting of each pair')
    best.add_argument('study', metavar='STUDY', help=STUDY)
    best.add_argument('--csv', metavar='FILE', help='write the table there too')
    best.add_argument(
        '--extend', action='store_true',
        help='where the best lies on the edge of what was tried, add the next value',
    )  # fmt: skip
    old = commands.add_parser('import', help='turn a study of bocb_mm 0.1 into a directory')
    old.add_argument('study', metavar='STUDY', help=STUDY)
    old.add_argument('database', metavar='FILE.db', help='SQLite file of the old study')
    return found


def _add_create(create: argparse.ArgumentParser) -> None:
    create.add_argument('study', metavar='STUDY', help=STUDY)
    create.add_argument(
        '--config', nargs='+', required=True, metavar='CONFIG',
        help="files, names of shipped ones, or patterns of them such as 'cifar100/*'",
    )  # fmt: skip
    create.add_argument(
        '--optimizers', nargs='+', default=['*'], metavar='NAME',
        help="names, or patterns of the catalog such as 'Ada*' (default: all of the catalog)",
    )  # fmt: skip
    create.add_argument(
        '--grid', default='5x5', metavar='LRxWD',
        help="consecutive values around the catalog's default: rates x decays (default 5x5)",
    )  # fmt: skip
    create.add_argument(
        '--recipe', metavar='NAME',
        help="the catalog's recipe to take the defaults of (default: the config's own)",
    )  # fmt: skip
    create.add_argument('--lr', nargs='+', type=float, help='these rates, for every optimizer')
    create.add_argument('--weight-decay', nargs='+', type=float, help='these decays, likewise')
    create.add_argument('--seeds', type=int, default=1, metavar='N', help='seeds 0 to N-1')
    create.add_argument('--work-dir', metavar='DIR', help='of the runs (default: STUDY)')
    create.add_argument('--pretrained', metavar='PATH', help="backbone's checkpoint, or none")
    create.add_argument('--amp', action='store_true', help='mixed precision')
    create.add_argument('--gpus-per-trial', type=float, default=1, metavar='N',
        help='GPUs that train a trial together (default 1)')  # fmt: skip
    create.add_argument('--retries', type=int, default=3, metavar='N',
        help='further attempts after failures of the machine (default 3)')  # fmt: skip
    create.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='K=V',
        help='change the config, e.g. val_dataloader.batch_size=8',
    )  # fmt: skip


def _add_work(work: argparse.ArgumentParser) -> None:
    work.add_argument('study', metavar='STUDY', help=STUDY)
    where = work.add_mutually_exclusive_group()
    where.add_argument('--gpus', metavar='0,1', help='these (default: all that are visible)')
    where.add_argument('--jobs', type=int, metavar='N', help='trials at a time on the CPU')
    work.add_argument('--gpus-per-trial', type=float, metavar='N',
        help='a fraction: several trials share a GPU; 0 with --address: on the CPU')  # fmt: skip
    work.add_argument('--threads', type=int, metavar='N', help='threads of each training')
    work.add_argument('--address', metavar='auto|ray://HOST:PORT',
        help='a Ray cluster (default: one of its own, on this machine)')  # fmt: skip
    work.add_argument('--dashboard', action='store_true', help="start Ray's dashboard")
    work.add_argument('--trials', type=int, metavar='N', help='end after so many')
    work.add_argument('--minutes', type=float, metavar='M', help='end after so long, saving')
    work.add_argument('--shard', default='1/1', metavar='I/N',
        help='every Nth trial, for file systems without locks')  # fmt: skip
    work.add_argument('--again', action='store_true', help='try trials that failed again')
    work.add_argument(
        '--no-wait', action='store_true',
        help='end when nothing waits, rather than stay for what other drivers may lose',
    )  # fmt: skip


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (see the epilog of :func:`parser`)."""
    args = parser().parse_args(argv)
    commands = {'create': create, 'work': work, 'status': status, 'best': best, 'import': take_over}
    return commands[args.command](args)


# -- create -------------------------------------------------------------------------------------


def create(args: argparse.Namespace) -> int:
    """Write the plan."""
    for name, least in (('seeds', 1), ('retries', 0)):
        if getattr(args, name) < least:
            raise UserError(f'--{name} {getattr(args, name)}: at least {least} is expected')
    processes = _processes(args.gpus_per_trial)
    size = parse_size(args.grid)
    given = (
        positive('--lr', args.lr) if args.lr else None,
        positive('--weight-decay', args.weight_decay, zero=True) if args.weight_decay else None,
    )
    # Wrong names are refused before the imports below cost their seconds.
    configs = [path for name in args.config for path in shipped.find_configs(name)]
    check_optimizers(args.optimizers, patterns=True)
    from bocb_mm.config import edit
    from bocb_mm.config.describe import task_of_rates
    from bocb_mm.search.plan import Cell
    from bocb_mm.search.study import Study

    options = edit.parse_options(args.cfg_options)
    names = optimizer_names(args.optimizers)
    grids = []
    for config in configs:
        cfg = edit.load_config(config, options)
        try:
            edit.check_data(cfg)
        except UserError as error:  # no mistake where other machines train
            print(f'note: on this machine {error}', file=sys.stderr)
        task, recipe = task_of_rates(cfg), args.recipe or edit.recipe_of(cfg)
        grids += [(config, name, *_values(name, task, recipe, size, given)) for name in names]
    # One seed is gone through before the next, so that early results count.
    cells = [
        Cell(config, name, lr, decay, seed)
        for seed in range(args.seeds)
        for config, name, rates, decays in grids
        for lr, decay in itertools.product(rates, decays)
    ]
    settings: dict[str, Any] = {
        'options': options, 'pretrained': args.pretrained, 'amp': args.amp,
        'retries': args.retries, 'processes': processes, 'work_dir': args.work_dir or '',
    }  # fmt: skip
    study = Study.create(args.study, cells, **settings)
    if args.recipe:
        notes = {k: {**v, 'recipe': args.recipe} for k, v in study.plan.configs.items()}
        study.change(configs=notes)
    of = f'{counted(len(grids), "pair")}, {counted(args.seeds, "seed")}'
    print(f'{args.study}: {counted(len(study.plan.cells), "trial")} ({of})')
    print(f'now: bocb sweep work {args.study}')
    return 0


def optimizer_names(words: Sequence[str]) -> list[str]:
    """Names of optimizers that names and patterns stand for, each once.

    Raises:
        UserError: A name or pattern that stands for none.

    Example:
        >>> optimizer_names(['sgd', 'AdaB*'])
        ['SGD', 'AdaBound', 'AdaBelief']
    """
    from bocb_mm.optimizers import get_spec, list_optimizers

    found: dict[str, None] = {}
    for word in words:
        found.update(dict.fromkeys(list_optimizers(word) or [get_spec(word).name]))
    return list(found)


def _values(
    name: str, task: str, recipe: str | None, size: tuple[int, int], given: Sequence[Any]
) -> tuple[Sequence[float], Sequence[float]]:
    """Rates and decays of an optimizer: those that were given, else the catalog's."""
    if all(given):
        return given[0], given[1]
    from bocb_mm.optimizers import get_spec

    spec = get_spec(name)
    rates = given[0] or spec.search_grid(task, recipe, size[0])['lr']
    return rates, given[1] or spec.search_grid(task, recipe, size[1])['weight_decay']


def _processes(gpus_per_trial: float) -> int:
    """Processes of a trial.

    Raises:
        UserError: Neither a whole number nor a part of one GPU.
    """
    if not gpus_per_trial > 0 or (gpus_per_trial > 1 and gpus_per_trial % 1):
        raise UserError(
            f'--gpus-per-trial {gpus_per_trial:g}: a whole number, or a fraction below 1, is '
            'expected'
        )
    return max(1, int(gpus_per_trial))


def parse_size(text: str) -> tuple[int, int]:
    """``'5x5'`` as (5, 5).

    Raises:
        UserError: Not two odd numbers; the default stands in the middle.
    """
    parts = text.lower().split('x')
    if len(parts) != 2 or not all(p.isdecimal() and int(p) % 2 for p in parts):
        raise UserError(f'--grid {text!r}: two odd numbers as in 5x5 are expected')
    return int(parts[0]), int(parts[1])


def positive(name: str, values: Sequence[float], zero: bool = False) -> tuple[float, ...]:
    """Values of an option, ascending and each once.

    Raises:
        UserError: One is negative, not finite, or 0 where that makes no sense.
    """
    for value in values:
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            raise UserError(f'{name} {value}: a number {">=" if zero else ">"} 0 is expected')
    return tuple(sorted(set(values)))


# -- work ---------------------------------------------------------------------------------------


def work(args: argparse.Namespace) -> int:
    """Train what waits."""
    for name in ('threads', 'trials', 'minutes'):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise UserError(f'--{name} {value}: more than 0 is expected')
    shard = parse_shard(args.shard)
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f'--jobs {args.jobs}: at least 1 is expected')
    from bocb_mm.cli.sweep_view import View
    from bocb_mm.search import driver
    from bocb_mm.search.study import Study

    study = Study.open(args.study)
    engine = _engine(args, study.plan.processes)
    if args.again:
        study.try_again()
    with View(study, engine) as view:
        code = driver.work(
            study, engine, trials=args.trials, minutes=args.minutes, shard=shard,
            wait=not args.no_wait, on_progress=view.show,
        )  # fmt: skip
    if code:
        print('interrupted: the trials wait; start work again to go on', flush=True)
    return code


def parse_shard(text: str) -> tuple[int, int]:
    """``'2/4'`` as (2, 4).

    Raises:
        UserError: Not one of so many.
    """
    index, _, of = text.partition('/')
    if not (index.isdecimal() and of.isdecimal() and 1 <= int(index) <= int(of)):
        raise UserError(f'--shard {text!r}: a part as in 1/4, 2/4... is expected')
    return int(index), int(of)


def _engine(args: argparse.Namespace, processes: int) -> Any:
    """Where trials are placed."""
    from bocb_mm.search.engine import Engine, engine_here

    told = {'threads': args.threads, 'dashboard': args.dashboard}
    each = args.gpus_per_trial
    if each is not None and (each or args.address is None) and _processes(each) != processes:
        raise UserError(
            f'--gpus-per-trial {each:g}: the trials of this study are of {processes} processes, '
            'as said to create'
        )
    each = float(processes) if each is None else each
    if args.address is not None:
        for name in ('gpus', 'dashboard'):
            if getattr(args, name):
                raise UserError(f'--{name}: not with --address, whose Ray has its own')
        return Engine(address=args.address, gpus_per_trial=0 if args.jobs else each, **told)
    gpus = None if args.gpus is None else args.gpus.split(',')
    return engine_here(gpus, args.jobs, gpus_per_trial=each, **told)


# -- status, best, import -----------------------------------------------------------------------


def status(args: argparse.Namespace) -> int:
    """Print how far the study is."""
    from rich.console import Console
    from rich.progress_bar import ProgressBar

    from bocb_mm.cli.sweep_view import time_left
    from bocb_mm.search import summary
    from bocb_mm.search.state import COLUMNS
    from bocb_mm.search.study import Study

    rows = Study.open(args.study).rows()
    found = summary.progress(rows)
    totals = {c: sum(counts[c] for counts in found.values()) for c in COLUMNS}
    lines = [[*pair, *(str(n or '') for n in counts.values())] for pair, counts in found.items()]
    lines.append(['all', '', *map(str, totals.values())])
    print_table(['config', 'optimizer', *COLUMNS], lines)
    done = len(rows) - totals['waiting'] - totals['running']
    Console().print(ProgressBar(total=len(rows), completed=done, width=40), end='')
    left = time_left(summary.seconds_left(rows), totals['running'])
    print(f' {done}/{len(rows)} ({100 * done / max(1, len(rows)):.0f} %), {left}')
    failed = [row for row in rows if row.column == 'failed']
    for row in failed[:MOST_FAILURES]:
        print(f'failed: {row.cell}: {row.outcome}: {row.message}')
    if len(failed) > MOST_FAILURES:
        print(f'and {len(failed) - MOST_FAILURES} more')
    return 0


def print_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print columns, the first two to the left; rich takes seconds for 400 rows."""
    widths = [max(map(len, column)) for column in zip(head, *lines)]
    for line in (head, ['-' * width for width in widths], *lines):
        cells = [
            cell.ljust(width) if k < 2 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths))
        ]
        print('  '.join(cells).rstrip())


def best(args: argparse.Namespace) -> int:
    """Print the best setting of each pair, and extend the grid where it lies on the edge."""
    if args.csv:
        check_parent('--csv', args.csv)
    from bocb_mm.search import summary
    from bocb_mm.search.study import Study

    study = Study.open(args.study)
    found = summary.best_settings(study.rows())
    lines = []
    for b in found:
        value = 'diverged' if b.value is None else f'{b.value:.4g}'
        numbers = [value, f'{b.lr:g}', f'{b.weight_decay:g}', str(b.seeds)]
        lines.append([b.config, b.optimizer, *numbers, ' '.join(b.edges), str(b.missing or '')])
    head = ('value', 'lr', 'weight decay', 'seeds', 'on the edge', 'no result')
    print_table(['config', 'optimizer', *head], lines)
    if args.csv:
        _write_csv(Path(args.csv), found)
    print(f'report: bocb report {os.path.relpath(study.runs)} --out DIR')
    if args.extend:
        added = study.add(summary.extensions(study.plan, found))
        nothing = 'no best setting on an edge: nothing added'
        print(f'{counted(added, "trial")} added' if added else nothing)
    return 0


def _write_csv(path: Path, found: Sequence[Any]) -> None:
    names = ('config', 'optimizer', 'value', 'lr', 'weight_decay', 'seeds', 'edges', 'missing')
    with atomic_open(path) as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(_csv_rows(found))


def _csv_rows(found: Sequence[Any]) -> Iterator[dict[str, Any]]:
    for b in found:
        value = 'diverged' if b.value is None else b.value
        yield {**dataclasses.asdict(b), 'value': value, 'edges': ' '.join(b.edges)}


def take_over(args: argparse.Namespace) -> int:
    """Turn a study of an earlier version into a directory."""
    from bocb_mm.cli.sweep_import import import_database

    study = import_database(Path(args.database), args.study)
    print(f'{args.study}: {counted(len(study.plan.cells), "trial")}, their runs in {study.runs}')
    return status(args)


if __name__ == '__main__':
    sys.exit(main())
