"""``bocb report``: the command line of the report; needs no torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bocb_mm.errors import UserError, one_line_errors
from bocb_mm.report import build, load, recommend, records, shared, stats
from bocb_mm.report.model import Options
from bocb_mm.runs.files import check_parent
from bocb_mm.words import counted


def parser() -> argparse.ArgumentParser:
    """The arguments of ``bocb report``."""
    found = argparse.ArgumentParser(
        description="The paper's tables, figures and rankings, from runs or from its own numbers.",
        epilog='Exit status: 0 done, 1 done but a run record could not be read, 2 wrong usage.',
    )
    found.add_argument(
        'paths', nargs='*', metavar='RUN_DIR_OR_TABLE_CSV', help='directories with runs, CSV tables'
    )
    found.add_argument(
        '--paper', action='store_true', help="the paper's own numbers beside or alone"
    )
    found.add_argument('--out', metavar='DIR', help='where the files go')
    found.add_argument(
        '--gamma', type=float, help="eq. 1's threshold in points (default 3; ImageNet 1)"
    )
    found.add_argument(
        '--metric',
        default='',
        metavar='NAME',
        help='what runs count by, in place of the metric each was recorded with, e.g. coco/AP50',
    )
    found.add_argument(
        '--value', choices=('best', 'last'), default='best', help='which evaluation of a run counts'
    )
    found.add_argument(
        '--weights',
        type=float,
        nargs=4,
        metavar=('PERFORMANCE', 'HYPERPARAMETER', 'BOCB', 'COMPUTATION'),
        help='of the overall ranking (default 0.4 0.2 0.2 0.2)',
    )
    found.add_argument(
        '--cost',
        choices=('memory', 'time', 'step'),
        default='memory',
        help='what the computation rank goes by: peak memory, time of an iteration, of a step',
    )
    found.add_argument(
        '--tolerance',
        type=float,
        default=1.0,
        metavar='PERCENT',
        help='a setting within this share of the best counts as good (tuning ease; default 1)',
    )
    found.add_argument(
        '--export', metavar='FILE.csv', type=Path,
        help='write the results of the runs to share them, instead of a report (docs/results.md)',
    )  # fmt: skip
    for name, text in (
        ('--hardware', "what it ran on, e.g. '8 x A100 80GB'"),
        ('--log', 'address, or path in the repository, of the run.json files'),
    ):
        found.add_argument(name, help=f'for --export: {text}')
    found.add_argument(
        '--selected-on', choices=tuple(shared.SELECTED_ON),
        help='for --export: what the settings were chosen by',
    )  # fmt: skip
    found.add_argument('--no-figures', action='store_true', help='tables and the page only')
    found.add_argument('--no-cache', action='store_true', help=argparse.SUPPRESS)
    found.add_argument('--quiet', action='store_true', help='no progress bar')
    found.add_argument('--recommend', metavar='BACKBONE', help='three optimizers to try on it')
    found.add_argument('--task', help='for --recommend: the task (default: classification)')
    found.add_argument(
        '--pretraining', metavar='NAME', help='for --recommend: optimizer that made its checkpoint'
    )
    return found


@one_line_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Make a report; returns the exit status (see the epilog of :func:`parser`)."""
    args = parser().parse_args(arguments)
    _check(args)
    if args.no_cache:
        print('--no-cache: there is no cache any more; leave it out', file=sys.stderr)
    options = Options(
        paths=tuple(args.paths),
        paper=args.paper,
        gamma=args.gamma,
        value=args.value,
        metric=args.metric,
        weights=dict(zip(stats.WEIGHTS, args.weights)) if args.weights else None,
        cost=args.cost,
        tolerance=args.tolerance / 100,
        figures=not args.no_figures,
        progress=not args.quiet,
    )
    if args.export:
        return _export(args, options)
    if args.recommend:
        task = args.task or 'classification'
        return _recommend(options, args.recommend, task, args.pretraining or '')
    out = Path(args.out)
    build.check_out(options, out)
    report = build.gather(options)
    files = build.write(report, out)
    _say_skipped(report.scan.broken)
    made = f'{counted(len(report.tables), "table")}, {counted(len(files), "file")}'
    print(f'{made} in {out}; open {out / "report.html"}')
    others = build.not_of_this_report(out, files)
    if others:
        more = f' and {len(others) - 5} more' if len(others) > 5 else ''
        print(f'left as they were, not of this report: {", ".join(others[:5])}{more}')
    return 1 if report.scan.broken else 0


def _check(args: argparse.Namespace) -> None:
    """One thing is made at a time, and every option is of use to it."""
    wanted = [f'--{name}' for name in ('out', 'recommend', 'export') if getattr(args, name)]
    if not wanted:
        parser().error('--out DIR is needed (or --recommend BACKBONE, or --export FILE.csv)')
    if len(wanted) > 1:
        raise UserError(f'{" with ".join(wanted)}: one of them at a time is expected')
    for goal, names in _OPTIONS_OF.items():
        for name in names:
            if getattr(args, name) and f'--{goal}' not in wanted:
                raise UserError(f'--{name.replace("_", "-")}: goes with --{goal}')


_OPTIONS_OF = {'export': ('hardware', 'log', 'selected_on'), 'recommend': ('task', 'pretraining')}


def _say_skipped(broken: list[str]) -> None:
    for line in broken:
        print(f'skipped: {line}', file=sys.stderr)


def _export(args: argparse.Namespace, options: Options) -> int:
    """Write the results of runs as a file to share."""
    said = {'selected_on': args.selected_on, 'log': args.log, 'hardware': args.hardware}
    missing = [f'--{name.replace("_", "-")}' for name, text in said.items() if not text]
    if missing:
        raise UserError(f'--export: {", ".join(missing)} must be said too; no run.json knows it')
    check_parent('--export', args.export)
    directories = records.run_directories(options.roots())
    scan = records.read_runs(directories, options.metric, options.progress)
    rows, left_out = load.tidy_runs(scan.runs, options.value)
    if rows.empty:
        raise UserError(f'--export: no run has a result in {", ".join(options.paths) or "nothing"}')
    n, unshared = shared.export(args.export, rows, scan.runs, {'evaluation': options.value, **said})
    _say_skipped([*scan.broken, *left_out, *unshared])
    check = f'python -m bocb_mm.report.shared_check {args.export}'
    print(f'{counted(n, "setting")} in {args.export}; check it: {check}')
    return 1 if scan.broken else 0


def _recommend(options: Options, backbone: str, task: str, pretraining: str) -> int:
    """Print which optimizers to try on ``backbone``, what was probed of it first."""
    for line in recommend.from_probes(options.paths, backbone, task):
        print(f'{line}\n')
    found = build.gather(options) if options.paths else None
    tables = found.tables if found else []
    advice, basis = recommend.recommend(tables, backbone, task, pretraining=pretraining)
    print(recommend.as_text(advice, basis, backbone, task))
    broken = found.scan.broken if found else []
    _say_skipped(broken)
    return 1 if broken else 0


if __name__ == '__main__':
    sys.exit(main())
