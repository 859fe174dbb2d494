"""How long a report takes over many run directories, and how much memory.

    python tools/benchmarks/report.py --dir DIR [--backbones 20]

Writes the runs of a 20 x 20 x 25 search with the real writer into DIR (again only if they are not
there), then times the tool: every table, figure and the page; the same again with nothing changed;
and after one run has changed.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--dir', required=True, help='where the runs and the reports go')
    parser.add_argument('--backbones', type=int, default=20, help='500 runs each; 20 are 10,000')
    args = parser.parse_args()
    runs = Path(args.dir) / f'runs_{args.backbones}'
    out = Path(args.dir) / f'report_{args.backbones}'
    shutil.rmtree(out, ignore_errors=True)
    if not (runs / 'complete').exists():
        generate(runs, args.backbones)
    n = sum('run.json' in files for _, _, files in os.walk(runs))
    print(f'{n} runs of {_mean_size(runs) / 1000:.0f} kB each')
    measure('first report', runs, out)
    measure('nothing changed', runs, out)
    os.utime(next(runs.rglob('run.json')))
    measure('one run changed', runs, out)
    measure('first, tables and page only', runs, out, '--no-cache', '--no-figures')


def generate(runs: Path, backbones: int) -> None:
    """Write the runs; without fsync, which is no part of what is measured."""
    from bocb_mm.report import names
    from tests.report.synthetic_runs import make_grid

    os.fsync = lambda _: None
    make_grid(runs, names.OPTIMIZERS, names.BACKBONES[:backbones], epochs=100)
    (runs / 'complete').touch()


def _mean_size(runs: Path) -> float:
    sizes = [p.stat().st_size for p, _ in zip(runs.rglob('run.json'), range(100))]
    return sum(sizes) / len(sizes)


def measure(what: str, runs: Path, out: Path, *options: str) -> None:
    """Run the tool in a process of its own; print wall time, CPU time and peak memory."""
    tool = [sys.executable, str(ROOT / 'tools' / 'bocb_report.py')]
    start = time.perf_counter()
    process = subprocess.Popen([*tool, str(runs), '--out', str(out), '--quiet', *options])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    print(
        f'{what:<28} {wall:6.1f} s wall, {usage.ru_utime + usage.ru_stime:6.1f} s CPU, '
        f'{usage.ru_maxrss / 1024:6.0f} MiB, exit {process.returncode}',
        flush=True,
    )


if __name__ == '__main__':
    main()
