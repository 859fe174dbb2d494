"""The main job on data that come with the project: pre-train, fine-tune, measure, report.

    bocb quickstart [--out DIR] [--workers N]

Two small backbones are pre-trained on digits with three optimizers each; RetinaNet and top-down
pose are fine-tuned from one of them with two optimizers, and from random weights to compare.
Every start trains anew in a folder of its own. docs/quickstart.md says what to expect.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bocb_mm import shipped
from bocb_mm.errors import UserError, one_line_errors
from bocb_mm.launch.chain import Job, run_chain, warm_up
from bocb_mm.runs.record import RunRecord

CONFIGS = shipped.root() / 'configs' / 'quickstart'


def digits(backbone: str, optimizer: str, lr: float, weight_decay: float, weight: float) -> Job:
    """A pre-training on the digits."""
    config = str(CONFIGS / f'digits_{backbone}.py')
    return Job(f'digits_{backbone}/{optimizer}', config, optimizer, lr, weight_decay, weight)


def tuned(
    task: str, optimizer: str, lr: float, weight_decay: float, weight: float, start: str = 'AdamW'
) -> Job:
    """A fine-tuning of the ResNet that ``start`` pre-trained; ``'random'``: from random weights."""
    after = '' if start == 'random' else f'digits_r18-xs/{start}'
    name = f'{task}_r18-xs/{optimizer}-from-{start}'
    config = str(CONFIGS / f'{task}_r18-xs.py')
    return Job(name, config, optimizer, lr, weight_decay, weight, after)


# A few rates of each were tried on these sets (docs/quickstart.md): the tables compare the
# optimizers as set here, not after a search. The weight is about the seconds.
# The pre-training that others wait for goes first, long jobs before short ones.
JOBS = (
    digits('r18-xs', 'AdamW', 3e-3, 0.05, 30),
    tuned('retinanet', 'AdamW', 2e-3, 0.05, 80, start='random'),
    tuned('retinanet', 'AdamW', 2e-3, 0.05, 80),
    tuned('retinanet', 'SGD', 0.05, 1e-4, 80),
    tuned('topdown', 'AdamW', 2e-3, 0.05, 45),
    tuned('topdown', 'Adam', 2e-3, 0.0, 45),
    digits('cnx-xs', 'AdamW', 3e-3, 0.05, 40),
    digits('cnx-xs', 'SGD', 0.1, 1e-4, 40),
    digits('cnx-xs', 'LARS', 2.0, 1e-4, 40),
    digits('r18-xs', 'SGD', 0.1, 1e-4, 30),
    digits('r18-xs', 'LARS', 4.0, 1e-4, 30),
)
# --smoke: the same chain in a minute.
SMOKE = (
    ('train_cfg.max_epochs', 1),
    ('train_cfg.val_interval', 1),
    ('train_dataloader.batch_size', 8),
    ('train_dataloader.dataset.indices', 16),
    ('val_dataloader.dataset.indices', 16),
)
# What must come out, in the units of the records: (task, metric, least best value).
TARGETS = (
    ('classification', 'accuracy/top1', 90.0),
    ('detection', 'coco/bbox_mAP_50', 0.40),
    ('pose', 'coco/AP', 0.40),
)


def parse_args(
    argv: Sequence[str] | None, description: str, flags: dict[str, str] | None = None
) -> argparse.Namespace:
    """The arguments; ``flags`` names further switches and says what they do."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        '--out', metavar='DIR', type=Path, help='new folder for the runs (default: below work_dirs)'
    )
    parser.add_argument(
        '--workers', type=int, default=min(2, os.cpu_count() or 1), metavar='N',
        help='trainings at a time (default: 2, or the number of cores if that is less)',
    )  # fmt: skip
    parser.add_argument(
        '--smoke',
        action='store_true',
        help='one epoch on few samples: tries the path, learns nothing',
    )
    for name, text in (flags or {}).items():
        parser.add_argument(name, action='store_true', help=text)
    args = parser.parse_args(argv)
    if args.workers < 1:
        raise UserError(f'--workers {args.workers}: at least 1 is expected')
    return args


def result(record: RunRecord, metric: str) -> float:
    """Last value of a metric; 0 where the evaluator had nothing to say (no box survived)."""
    return float(record.evaluations[-1].get(metric) or 0.0) if record.evaluations else 0.0


def pretraining_table(records: Iterable[RunRecord]) -> Table:
    """Optimizers x backbones."""
    table = Table(title='Pre-training: top-1 accuracy (%)')
    table.add_column('optimizer')
    found = {(r.optimizer, r.backbone): result(r, 'accuracy/top1') for r in records}
    backbones = list(dict.fromkeys(b for _, b in found))
    for backbone in backbones:
        table.add_column(backbone, justify='right')
    for optimizer in dict.fromkeys(o for o, _ in found):
        cells = [found.get((optimizer, b)) for b in backbones]
        table.add_row(optimizer, *('-' if c is None else f'{c:.1f}' for c in cells))
    return table


def tuning_table(records: Iterable[RunRecord]) -> Table:
    """One line a fine-tuning."""
    table = Table(title='Fine-tuning')
    for name in ('task', 'backbone', 'optimizer', 'start'):
        table.add_column(name)
    for name in ('AP', 'AP50'):
        table.add_column(name, justify='right')
    for r in records:
        keys = (
            ('coco/AP', 'coco/AP .5') if r.task == 'pose' else ('coco/bbox_mAP', 'coco/bbox_mAP_50')
        )
        start = f'pre-trained ({r.pretraining})' if r.pretraining else 'random weights'
        table.add_row(
            r.task, r.backbone, r.optimizer, start, *(f'{result(r, k):.3f}' for k in keys)
        )
    return table


def layer_table(folder: Path, names: Iterable[str]) -> Table:
    """Medians over the layers at the end of each pre-training."""
    import pandas as pd

    metrics = ('alpha', 'entropy', 'l2_norm', 'pca_energy')
    table = Table(title='Layers at the end of pre-training (medians)')
    table.add_column('run')
    for metric in metrics:
        table.add_column(metric, justify='right')
    for name in names:
        file = folder / name / 'layer_metrics.csv'
        if file.exists():
            rows = pd.read_csv(file)
            medians = rows[rows['iteration'] == rows['iteration'].max()][list(metrics)].median()
            table.add_row(name, *(f'{medians[m]:.3g}' for m in metrics))
    return table


def tables(records: Mapping[str, RunRecord], folder: Path) -> list[Table]:
    """Those of the tables that have something in them, of the runs in a folder by name."""
    classifiers = [name for name, record in records.items() if record.task == 'classification']
    found = [
        pretraining_table(records[n] for n in classifiers),
        tuning_table(r for n, r in records.items() if n not in classifiers),
        layer_table(folder, classifiers),
    ]
    return [table for table in found if table.row_count]


def missed_targets(
    records: Iterable[RunRecord], targets: Iterable[tuple[str, str, float]]
) -> list[str]:
    """A line for each target that the best run of its task did not reach."""
    records = list(records)
    missed = []
    for task, metric, least in targets:
        best = max((result(r, metric) for r in records if r.task == task), default=0.0)
        if best < least:
            missed.append(f'{task}: {metric} {best:.3g}, at least {least:.3g} was expected')
    return missed


def write_report(folder: Path) -> Path:
    """Let the report read the runs, in its own process; its words go to report.log."""
    out = folder / 'report'
    command = [sys.executable, '-m', 'bocb_mm.report.cli', str(folder), '--out', str(out)]
    code = str(Path(shipped.__file__).resolve().parents[1])  # where this code is not installed
    path = os.pathsep.join(filter(None, (code, os.environ.get('PYTHONPATH'))))
    with (folder / 'report.log').open('w', encoding='utf-8') as log:
        done = subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, 'PYTHONPATH': path}
        )
    status = done.returncode
    if status:
        raise UserError(f'the report failed (exit status {status}), see {folder / "report.log"}')
    return out / 'report.html'


def prepare_data() -> Path:
    """Write the data sets that are not there yet; returns the folder that holds them."""
    from bocb_mm.datasets import prepare_quickstart

    return prepare_quickstart()['digits'].parent


def import_toolboxes() -> None:
    """Pay for the heavy imports, saying so."""
    with Console().status('importing mmpretrain, mmdet and mmpose'):
        warm_up()


def new_folder(name: str) -> Path:
    """A folder for the runs that nobody has used."""
    return Path('work_dirs') / name / datetime.datetime.now().strftime('%Y%m%d_%H%M%S')


def run(
    jobs: Iterable[Job],
    args: argparse.Namespace,
    folder: Path,
    targets: Iterable[tuple[str, str, float]] = (),
) -> int:
    """Train a chain, print its tables, write its report.

    Args:
        jobs: The chain.
        args: What :func:`parse_args` read.
        folder: Where the runs go unless ``args.out`` says.
        targets: What must come out: task, metric and its least best value.

    Returns:
        Exit status: 1 if a job did not complete or a target was missed, 130 on an interrupt.
    """
    folder = args.out or folder
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f'--out {folder}: not empty; name another folder')
    import_toolboxes()
    console = Console()
    jobs = [replace(job, options=SMOKE) if args.smoke else job for job in jobs]
    try:
        records = run_chain(jobs, folder, args.workers, console)
    except KeyboardInterrupt:
        console.print(f'interrupted; what was done is in {folder}', highlight=False)
        return 130
    problems = [f'{job.name} did not complete' for job in jobs if job.name not in records]
    if not args.smoke:
        problems += missed_targets(records.values(), targets)
    for table in tables(records, folder):
        console.print(table)
    report = write_report(folder)
    for problem in problems:
        console.print(f'NOT AS EXPECTED: {problem}', highlight=False)
    console.print(f'report: {report}', highlight=False, soft_wrap=True)
    return 1 if problems else 0


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Draw the data, train the chain, show what came out."""
    args = parse_args(argv, (__doc__ or '').partition('\n')[0])
    # The data are drawn by a process of its own while this one imports the toolboxes.
    with ProcessPoolExecutor(1, get_context('fork')) as pool:
        data = pool.submit(prepare_data)
        import_toolboxes()
        print(f'data: {data.result()}', flush=True)
    return run(JOBS, args, new_folder('quickstart'), TARGETS)


if __name__ == '__main__':
    sys.exit(main())
