"""The command line of ``tools/sweep.py``."""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress_bar import ProgressBar

from bocb_mm.errors import UserError, one_line_errors
from bocb_mm.runs.files import atomic_open, check_parent

MOST_FAILURES = 20  # shown by status
STUDY = 'file NAME.db, or postgresql://USER@HOST/DATABASE#NAME for many machines'
HALVING = (
    'stop a trial after 1, N, N*N... evaluations unless it is among the best 1/N of its pair so '
    'far (asynchronous successive halving). Off by default: optimizers that start slowly are '
    'stopped more often, which biases the comparison'
)


def parser() -> argparse.ArgumentParser:
    """The arguments of ``tools/sweep.py``."""
    found = argparse.ArgumentParser(
        prog='sweep.py',
        description='Search learning rate x weight decay for pairs of config and optimizer.',
        epilog='Exit status: 0 done, 2 a mistake in what was given, 75 interrupted (work again).',
    )
    commands = found.add_subparsers(dest='command', required=True)
    create = commands.add_parser('create', help='write down what is to be trained')
    create.add_argument('study', metavar='STUDY', help=STUDY)
    create.add_argument('--config', nargs='+', required=True, metavar='FILE')
    create.add_argument(
        '--optimizers', nargs='+', default=['*'], metavar='NAME',
        help="names of the catalog or patterns such as 'Ada*' (default: all 20)",
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
    create.add_argument('--work-dir', metavar='DIR', help='default: work_dirs/NAME')
    create.add_argument('--pretrained', metavar='PATH', help="backbone's checkpoint, or none")
    create.add_argument('--amp', action='store_true', help='mixed precision')
    create.add_argument('--retries', type=int, default=3, metavar='N',
        help='further attempts after failures of the machine (default 3)')  # fmt: skip
    create.add_argument('--heartbeat', type=float, default=15.0, metavar='SECONDS',
        help='between two signs of life; a worker silent for four is given up')  # fmt: skip
    create.add_argument('--halving', type=int, default=0, metavar='N', help=HALVING)
    create.add_argument('--cfg-options', nargs='+', default=[], metavar='K=V')

    work = commands.add_parser('work', help='train what waits; any number of these at a time')
    work.add_argument('study', metavar='STUDY', help=STUDY)
    where = work.add_mutually_exclusive_group()
    where.add_argument('--gpus', metavar='0,1', help='one training at a time on each of these')
    where.add_argument('--jobs', type=int, metavar='N', help='trainings at a time on the CPU')
    work.add_argument('--threads', type=int, metavar='N', help='threads of each training')
    work.add_argument('--trials', type=int, metavar='N', help='end after so many')
    work.add_argument('--minutes', type=float, metavar='M', help='end after so long, saving')
    work.add_argument(
        '--no-wait', action='store_true',
        help='end when nothing waits, rather than stay for what other workers may lose',
    )  # fmt: skip

    status = commands.add_parser('status', help='how far it is')
    status.add_argument('study', metavar='STUDY', help=STUDY)
    best = commands.add_parser('best', help='the best setting of each pair')
    best.add_argument('study', metavar='STUDY', help=STUDY)
    best.add_argument('--csv', metavar='FILE', help='write the table there too')
    best.add_argument(
        '--extend', action='store_true',
        help='where the best lies on the edge of its grid, add the next value to it',
    )  # fmt: skip
    return found


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (see the epilog of :func:`parser`)."""
    args = parser().parse_args(argv)
    from bocb_mm.search.place import parse

    args.place = parse(args.study)
    commands = {'create': create, 'work': work, 'status': status, 'best': best}
    return commands[args.command](args)


def create(args: argparse.Namespace) -> int:
    """Put the trials in."""
    from bocb_mm.search.create import make_plan
    from bocb_mm.search.storage import Store

    plan = make_plan(args)
    cells = list(plan.cells())
    store = Store(args.place, create=True)
    store.add(cells, plan)
    store.save_plan(plan)
    pairs, seeds = len(plan.grids), len(plan.seeds)
    print(f'{args.place}: {len(cells)} trials ({pairs} pairs, {seeds} seeds), in {plan.work_dir}')
    print(f'now: python tools/sweep.py work {args.place}')
    return 0


def work(args: argparse.Namespace) -> int:
    """Train what waits."""
    slots, gpus = _slots(args)
    for name in ('threads', 'trials', 'minutes'):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise UserError(f'--{name} {value}: more than 0 is expected')
    from bocb_mm.search.queue import Queue

    store = Queue(args.place)
    plan = store.plan
    console = Console()
    from bocb_mm.launch import chain

    tasks = sorted({grid.task for grid in plan.grids})
    with console.status(f'importing {", ".join(chain.TOOLBOXES[task] for task in tasks)}'):
        chain.warm_up(tasks)
    from bocb_mm.search.worker import Worker

    cores = (os.cpu_count() or 1) // len(slots)
    threads = args.threads or min(max(1, cores), chain.MOST_THREADS)
    counts = store.counts()
    console.print(
        f'{sum(counts.values())} trials in {plan.work_dir}; here {len(slots)} at a time on '
        f'{"GPUs " + ",".join(slots) if gpus else "the CPU"}, {threads} threads each',
        highlight=False,
    )
    worker = Worker(
        store,
        slots,
        gpus,
        threads,
        most=args.trials,
        seconds=None if args.minutes is None else 60 * args.minutes,
        linger=not args.no_wait,
        say=lambda line: print(line, flush=True),
    )
    status = worker.run()
    if status:
        print('interrupted: the trials wait for the next worker', flush=True)
    return status


def _slots(args: argparse.Namespace) -> tuple[list[str], bool]:
    """A name for each training at a time, and whether they are GPUs."""
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if args.gpus is not None:
        numbers = args.gpus.split(',')
        if not all(n.isdigit() for n in numbers) or len(set(numbers)) < len(numbers):
            raise UserError(f'--gpus {args.gpus!r}: numbers as in 0,1 are expected')
        found = _number_of_gpus()
        if max(map(int, numbers)) >= found:
            raise UserError(
                f'--gpus {args.gpus}: torch sees {found} GPUs here; count from 0, or '
                'give --jobs N to train on the CPU'
            )
        return _of_visible(numbers, visible), True
    if args.jobs is not None:
        if args.jobs < 1:
            raise UserError(f'--jobs {args.jobs}: at least 1 is expected')
        return [f'cpu{k}' for k in range(args.jobs)], False
    if visible and visible not in ('-1', 'NoDevFiles'):
        return visible.split(','), True
    n = 0 if visible == '-1' else _number_of_gpus()
    return ([str(k) for k in range(n)], True) if n else (['cpu'], False)


def _number_of_gpus() -> int:
    """GPUs that torch sees, by NVML: asking CUDA would make it unusable in forked trainings."""
    import torch

    os.environ.setdefault('PYTORCH_NVML_BASED_CUDA_CHECK', '1')
    return torch.cuda.device_count()


def _of_visible(numbers: list[str], visible: str | None) -> list[str]:
    """GPUs by the numbers that torch gives them among those that are visible."""
    if visible is None:
        return numbers
    names = [name for name in visible.split(',') if name]
    if max(map(int, numbers)) >= len(names):
        raise UserError(
            f'--gpus {",".join(numbers)}: {len(names)} GPUs are visible '
            f'(CUDA_VISIBLE_DEVICES={visible}); count from 0'
        )
    return [names[int(n)] for n in numbers]


def status(args: argparse.Namespace) -> int:
    """Print how far the study is."""
    from bocb_mm.search import summary
    from bocb_mm.search.storage import Store

    rows = Store(args.place).rows()
    found = summary.progress(rows)
    totals = {c: sum(counts[c] for counts in found.values()) for c in summary.COLUMNS}
    lines = [[*pair, *(str(n or '') for n in counts.values())] for pair, counts in found.items()]
    lines.append(['all', '', *map(str, totals.values())])
    print_table(['config', 'optimizer', *summary.COLUMNS], lines)
    done = len(rows) - totals['waiting'] - totals['running']
    Console().print(ProgressBar(total=len(rows), completed=done, width=40), end='')
    print(f' {done}/{len(rows)} ({100 * done / max(1, len(rows)):.0f} %), {_left(rows)}')
    failed = [row for row in rows if summary.column_of(row) == 'failed']
    for row in failed[:MOST_FAILURES]:
        print(f'failed: {row["cell"]}: {row["outcome"]}: {row["message"]}')
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


def _left(rows: Sequence[dict]) -> str:
    from bocb_mm.search.summary import column_of, seconds_left

    left = seconds_left(rows)
    if left is not None:
        hours, minutes = divmod(math.ceil(left / 60), 60)
        return f'{hours}:{minutes:02d} h left' if left else 'finished'
    if any(column_of(row) == 'running' for row in rows):
        return 'time left is known when a trial is done'
    return 'nothing runs: start tools/sweep.py work'


def best(args: argparse.Namespace) -> int:
    """Print the best setting of each pair, and extend the grid where it lies on the edge."""
    if args.csv:
        check_parent('--csv', args.csv)
    from bocb_mm.search import summary
    from bocb_mm.search.storage import Store

    store = Store(args.place)
    plan = store.plan
    found = summary.best_settings(store.rows(), plan.grids)
    lines = []
    for b in found:
        value = f'{b.value:.4g}' if math.isfinite(b.value) else 'diverged'
        numbers = [value, f'{b.lr:g}', f'{b.weight_decay:g}', str(b.seeds)]
        lines.append([b.config, b.optimizer, *numbers, ' '.join(b.edges), str(b.missing or '')])
    head = ('value', 'lr', 'weight decay', 'seeds', 'on the edge', 'no result')
    print_table(['config', 'optimizer', *head], lines)
    if args.csv:
        _write_csv(Path(args.csv), found)
    print(f'report: python tools/bocb_report.py {plan.work_dir} --out DIR')
    if args.extend:
        new = summary.extended(plan, found)
        added = store.add(list(new.cells()), new)
        if added:
            store.save_plan(new)
        print(f'{added} trials added' if added else 'no best setting on an edge: nothing added')
    return 0


def _write_csv(path: Path, found: Sequence) -> None:
    import dataclasses

    names = ('config', 'optimizer', 'value', 'lr', 'weight_decay', 'seeds', 'edges', 'missing')
    with atomic_open(path) as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows({**dataclasses.asdict(b), 'edges': ' '.join(b.edges)} for b in found)


if __name__ == '__main__':
    sys.exit(main())
