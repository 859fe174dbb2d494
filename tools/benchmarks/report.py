"""How long a report takes over many run directories, and how much memory.

    python tools/benchmarks/report.py --dir DIR [--runs 1250 2500 5000 10000]

Writes the runs of whole searches, 25 LR x WD settings of every pair, with the real writer into DIR
(again only if they are not there), then times the tool on each: every table, figure and the page;
the same without figures; again with nothing changed; after one run has changed. Prints one
Markdown table. Peak memory is the largest sum over the tool's processes, shared pages counted once
(PSS, sampled), where the system tells it (Linux).
"""

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
# Number of runs: optimizers and backbones of the search; each pair has 25.
SIZES = {1250: (5, 10), 2500: (10, 10), 5000: (20, 10), 10000: (20, 20)}
CASES = {
    'all, from nothing': ('--no-cache',),
    'without figures': ('--no-cache', '--no-figures'),
    'first, fills the cache': (),
    'nothing changed': (),
    'one run changed': (),
}


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
            if case == 'one run changed':
                os.utime(records[0])
            wall, cpu, peak = measure(runs, out, *options)
            print(
                f'| {size:,} | {kilobytes:.0f} | {case} | {wall:.1f} | {cpu:.1f} | {peak:.0f} |',
                flush=True,
            )


def _warm_up(place: Path) -> None:
    """A small report, so that no measurement compiles modules or builds a font cache."""
    generate(place / 'runs_warm_up', 3, 3)
    measure(place / 'runs_warm_up', place / 'report_warm_up', '--no-cache')


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
    start = time.perf_counter()
    process = subprocess.Popen(
        [*tool, str(runs), '--out', str(out), '--quiet', *options],
        stdout=subprocess.DEVNULL,
        env=_environment(out.parent),
    )
    peak, done = [0.0], threading.Event()
    watch = threading.Thread(target=_watch, args=(process.pid, peak, done))
    watch.start()
    _, status, usage = os.wait4(process.pid, 0)  # CPU time with that of the children
    wall = time.perf_counter() - start
    done.set()
    watch.join()
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f'{runs}: the report failed')
    return wall, usage.ru_utime + usage.ru_stime, max(peak[0], usage.ru_maxrss / 1024)


def _environment(place: Path) -> dict[str, str]:
    """Compiled modules are kept, as Python does by itself, below ``place``."""
    kept = {k: v for k, v in os.environ.items() if k != 'PYTHONDONTWRITEBYTECODE'}
    return kept | {'PYTHONPYCACHEPREFIX': str(place / 'pycache')}


def _watch(pid: int, peak: list[float], done: threading.Event) -> None:
    """Keep the largest memory of a process and its children in ``peak``, in MiB."""
    while not done.wait(0.3):
        peak[0] = max(peak[0], sum(_memory(p) for p in [pid, *_children(pid)]))


def _memory(pid: int) -> float:
    try:
        lines = Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()
    except OSError:  # it has ended, or no Linux
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith('Pss:')) / 1024


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]
    except OSError:
        return []


if __name__ == '__main__':
    main()
