#!/usr/bin/env python
"""Cost of a search: trials against calls of train.py, two places against one, Ray, status, memory.

    python tools/benchmarks/search_throughput.py [--trials 16] [--calls 16] [--parts ...]

One-epoch trials of a small ResNet on scikit-learn's digits, one thread each. Two rates are given:
wall time of `work` with all imports, and from the first start to the last end. Wants an idle
machine with two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bocb_mm.errors import one_line_errors

CONFIG = ROOT / 'configs' / 'quickstart' / 'digits_r18-xs.py'
ONE_EPOCH = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
MANY = 20_000
PARTS = ('train.py', 'one place', 'two places', 'engine', 'status', 'memory')
# What issue 20 asks for: name -> (limit, whether more is better).
ASKED = {
    'one place against train.py, x': (3.0, True),
    'two places against one, x': (1.6, True),
    'engine starts, s': (10.0, False),
    f'status of {MANY:,} runs, warm, s': (5.0, False),
    f'driver with {MANY:,} trials, MiB': (1024.0, False),
}


def run(folder: Path, *argv: str) -> subprocess.Popen:
    """Start a tool on one thread, in a folder of its own."""
    environment = {
        **os.environ,
        'OMP_NUM_THREADS': '1',
        'MKL_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '-1',
        'BOCB_DATA_ROOT': str(folder / 'data'),
    }
    return subprocess.Popen(
        [sys.executable, *argv], cwd=folder, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f'{" ".join(map(str, process.args))}\n{errors[-3000:]}')


def sweep(folder: Path, *argv: str) -> subprocess.Popen:
    return run(folder, str(ROOT / 'tools' / 'sweep.py'), *argv)


def time_calls(folder: Path, calls: int) -> float:
    """Mean seconds of one call of tools/train.py."""
    started = time.perf_counter()
    for seed in range(calls):
        finish(
            run(
                folder, str(ROOT / 'tools' / 'train.py'), str(CONFIG), '--seed', str(seed),
                '--work-dir', f'call{seed}', '--cfg-options', *ONE_EPOCH,
            )
        )  # fmt: skip
    return (time.perf_counter() - started) / calls


def time_places(folder: Path, trials: int, places: int) -> tuple[float, float]:
    """Seconds a trial: wall time with imports, and from the first start to the last end."""
    import datetime

    from bocb_mm.runs.record import RunRecord
    from bocb_mm.search.study import Study

    name = f'places{places}'
    finish(
        sweep(
            folder, 'create', name, '--config', str(CONFIG), '--optimizers', 'AdamW', '--grid',
            '1x1', '--seeds', str(trials), '--cfg-options', *ONE_EPOCH,
        )
    )  # fmt: skip
    started = time.perf_counter()
    finish(sweep(folder, 'work', name, '--jobs', str(places), '--threads', '1', '--no-wait'))
    wall = time.perf_counter() - started
    study = Study.open(folder / name)
    rows = study.rows()
    assert all(row.column == 'done' for row in rows), [row.outcome for row in rows]
    runs = [RunRecord.load(study.directory_of(row.cell)) for row in rows]
    begin = min(datetime.datetime.fromisoformat(r.started) for r in runs)
    end = max(datetime.datetime.fromisoformat(r.finished) for r in runs)
    return wall / trials, (end - begin).total_seconds() / trials


ENGINE = """
import json, os, subprocess, time
from pathlib import Path
import ray
from bocb_mm.search.engine import Engine, RunningEngine
started = time.perf_counter()
with RunningEngine(Engine(jobs=2), 1) as running:
    seconds = time.perf_counter() - started
    time.sleep(10)
    def below(pid):
        children = [int(c) for t in Path(f'/proc/{pid}/task').glob('*/children')
                    for c in t.read_text().split()]
        return children + [p for c in children for p in below(c)]
    pss = 0
    for pid in below(os.getpid()):
        for line in Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines():
            if line.startswith('Pss:'):
                pss += int(line.split()[1])
    print(json.dumps([seconds, pss / 1024, len(below(os.getpid()))]))
"""


def time_engine(folder: Path) -> tuple[float, float]:
    """Seconds until Ray takes trials, and MiB (PSS) of its processes when idle."""
    done = subprocess.run(
        [sys.executable, '-c', ENGINE], cwd=folder, capture_output=True, text=True, check=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )  # fmt: skip
    seconds, memory, _ = json.loads(done.stdout.splitlines()[-1])
    return seconds, memory


def many(folder: Path) -> Any:
    """A study of 20,000 trials, all with the record of a real run."""
    from bocb_mm.runs.record import RunRecord
    from bocb_mm.search.plan import Cell, Plan
    from bocb_mm.search.study import Study

    names = [f'optimizer{k}' for k in range(20)]
    rates = tuple(0.1 * 2.0**k for k in range(5))
    cells = [
        Cell(f'config{c}.py', name, lr, wd, seed)
        for seed in range(2) for c in range(20) for name in names for lr in rates for wd in rates
    ]  # fmt: skip
    assert len(cells) == MANY
    real = next(folder.glob('call*/run.json'), None) or next(folder.glob('places*/*/*/*/run.json'))
    record = RunRecord.load(real)
    text = real.read_text(encoding='utf-8')
    notes = {cell.config: {'toolbox': 'mmpretrain', 'trains': {}} for cell in cells}
    plan = Plan(tuple(cells), notes, folder=str(folder))
    place = folder / 'many'
    place.mkdir()
    plan.save(place)
    study = Study(place, plan)
    for cell in cells:
        directory = study.directory_of(cell)
        directory.mkdir(parents=True)
        (directory / 'run.json').write_text(text, encoding='utf-8')
    assert record.status == 'completed'
    return study


def time_status(folder: Path) -> tuple[float, float]:
    """Seconds of the status command on 20,000 runs: the first call, and the best of two more."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        finish(sweep(folder, 'status', 'many'))
        times.append(time.perf_counter() - started)
    return times[0], min(times[1:])


DRIVER = """
import resource, sys
sys.path.insert(0, {tests!r})
import plain
from bocb_mm.search.driver import work
from bocb_mm.search.engine import Engine
from bocb_mm.search.study import Study
import mmengine, torch  # as a real driver, which checks the configs
study = Study.open('many')
for cell in study.plan.cells[:200]:
    (study.directory_of(cell) / 'run.json').unlink()
work(study, Engine(jobs=2, threads=1), train=plain.quick)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def driver_memory(folder: Path) -> float:
    """Peak MiB of a driver that has a study of 20,000 trials and trains 200 of them."""
    code = DRIVER.format(tests=str(ROOT / 'tests' / 'search'))
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=folder, capture_output=True, text=True, check=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )  # fmt: skip
    return float(done.stdout.split()[-1])


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--trials', type=int, default=16, help='of the search')
    parser.add_argument('--calls', type=int, default=16, help='of tools/train.py')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS)
    parser.add_argument('--out', type=Path, help='write the figures there as JSON')
    args = parser.parse_args(argv)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        from bocb_mm.datasets import prepare_quickstart

        prepare_quickstart(folder / 'data' / 'quickstart')
        measure(args, folder, found)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
    return judge(found)


def measure(args: argparse.Namespace, folder: Path, found: dict[str, float]) -> None:
    """Fill ``found`` with the parts asked for, saying what is found."""

    def tell(**news: float) -> None:
        found.update(news)
        for key, value in news.items():
            print(f'{key}: {value:.3g} (load {os.getloadavg()[0]:.1f})', flush=True)

    if 'train.py' in args.parts:
        tell(**{'train.py, s a call': time_calls(folder, args.calls)})
    for places, part in ((1, 'one place'), (2, 'two places')):
        if part in args.parts:
            wall, rate = time_places(folder, args.trials, places)
            tell(**{f'{part}, s a trial with imports': wall, f'{part}, s a trial': rate})
    if 'engine' in args.parts:
        seconds, memory = time_engine(folder)
        tell(**{'engine starts, s': seconds, 'engine idle, MiB': memory})
    if 'status' in args.parts or 'memory' in args.parts:
        many(folder)
    if 'status' in args.parts:
        first, warm = time_status(folder)
        tell(**{'first status, s': first, f'status of {MANY:,} runs, warm, s': warm})
    if 'memory' in args.parts:
        tell(**{f'driver with {MANY:,} trials, MiB': driver_memory(folder)})
    tell(**ratios(found))


def ratios(found: dict[str, float]) -> dict[str, float]:
    """How many times faster one thing is than another, where both were measured."""
    pairs = {
        'one place against train.py, x': (
            'train.py, s a call', 'one place, s a trial with imports'
        ),
        'two places against one, x': ('one place, s a trial', 'two places, s a trial'),
    }  # fmt: skip
    return {
        name: found[slow] / found[fast]
        for name, (slow, fast) in pairs.items()
        if slow in found and fast in found
    }


def judge(found: dict[str, float]) -> int:
    """Print what is not as asked; 1 if anything is."""
    missed = 0
    for name, (limit, more) in ASKED.items():
        value = found.get(name)
        if value is not None and (value < limit if more else value > limit):
            print(
                f'NOT AS ASKED: {name}: {value:.3g}, {"at least" if more else "at most"} {limit:g}'
            )
            missed = 1
    return missed


if __name__ == '__main__':
    sys.exit(main())
