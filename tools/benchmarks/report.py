"""How long a report takes over many run directories, and how much memory.

    python tools/benchmarks/report.py --dir DIR [--runs 1250 2500 5000 10000]

Writes the runs of whole searches, 25 LR x WD settings of every pair, with the real writer into DIR
(again only if they are not there), then times the tool on each: every table, figure and the page,
and the same without figures. Prints one Markdown table.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
# Number of runs: optimizers and backbones of the search; each pair has 25.
SIZES = {1250: (5, 10), 2500: (10, 10), 5000: (20, 10), 10000: (20, 20)}
CASES = {'all': (), 'without figures': ('--no-figures',)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--dir', required=True, help='where the runs and the reports go')
    parser.add_argument('--runs', type=int, nargs='+', choices=SIZES, default=list(SIZES))
    args = parser.parse_args()
    _warm_up(Path(args.dir))
    print('| runs | kB each | report | wall s | CPU s | peak MiB |')
    print('|---:|---:|---|---:|---:|---:|', flush=True)
    for size in args.runs:
        runs = Path(args.dir) / f'runs_{size}'
        out = Path(args.dir) / f'report_{size}'
        shutil.rmtree(out, ignore_errors=True)
        if not (runs / 'complete').exists():
            generate(runs, *SIZES[size])
        records = list(runs.rglob('run.json'))
        assert len(records) == size
        kilobytes = sum(p.stat().st_size for p in records) / size / 1000
        for case, options in CASES.items():
            wall, cpu, peak = measure(runs, out, *options)
            print(
                f'| {size:,} | {kilobytes:.0f} | {case} | {wall:.1f} | {cpu:.1f} | {peak:.0f} |',
                flush=True,
            )


def _warm_up(place: Path) -> None:
    """A small report, so that no measurement compiles modules or builds a font cache."""
    generate(place / 'runs_warm_up', 3, 3)
    measure(place / 'runs_warm_up', place / 'report_warm_up')


def generate(runs: Path, optimizers: int, backbones: int) -> None:
    """Write the runs; without fsync, which is no part of what is measured."""
    from bocb_mm.report import names

    # By its own name: some package installs a top-level `tests`.
    sys.path.insert(0, str(ROOT / 'tests' / 'report'))
    from synthetic_runs import make_grid

    os.fsync = lambda fd: None
    make_grid(runs, names.OPTIMIZERS[:optimizers], names.BACKBONES[:backbones], epochs=100)
    (runs / 'complete').touch()


def measure(runs: Path, out: Path, *options: str) -> tuple[float, float, float]:
    """Run the tool in a process of its own: wall time and CPU time in s, peak memory in MiB."""
    tool = [sys.executable, str(ROOT / 'tools' / 'bocb_report.py')]
    # Compiled modules are kept, as Python does by itself, below the reports.
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONDONTWRITEBYTECODE'}
    environment['PYTHONPYCACHEPREFIX'] = str(out.parent / 'pycache')
    start = time.perf_counter()
    process = subprocess.Popen(
        [*tool, str(runs), '--out', str(out), '--quiet', *options],
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f'{runs}: the report failed')
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == '__main__':
    main()
