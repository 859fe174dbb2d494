"""A search's trials on their devices, one of them killed."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from bocb_mm.gpu_check import short
from bocb_mm.gpu_check.report import Report, Settings
from bocb_mm.runs.record import RunRecord, find_runs

OPTIMIZERS = ('SGD', 'AdamW')


def run(report: Report, settings: Settings) -> None:
    """Trials on the device, one of which dies; on a machine with a GPU, trials on its CPU too."""
    if importlib.util.find_spec('ray') is None:
        report.skip('all', 'Ray is not installed: pip install "ray>=2.60,<3"')
        return
    config = short.write_config(settings.folder, settings.root)
    with report.guard('a trial killed'):
        _search(report, settings, config, settings.device, kill=True)
    if settings.device == 'cuda':
        with report.guard('trials on the CPU of a machine with a GPU'):
            _search(report, settings, config, 'cpu', kill=False)


def _search(report: Report, settings: Settings, config: Path, device: str, kill: bool) -> None:
    study = settings.folder / f'study-{device}'
    where = ['--gpus', '0'] if device == 'cuda' else ['--jobs', '2', '--threads', '1']
    label = f'trials on {"a GPU" if device == "cuda" else "the CPU"}'
    sweep = [sys.executable, str(settings.root / 'tools' / 'sweep.py')]
    create = [*sweep, 'create', str(study), '--config', str(config), '--optimizers', *OPTIMIZERS]
    subprocess.run([*create, '--lr', '0.01', '--weight-decay', '0'], check=True)
    work = subprocess.Popen([*sweep, 'work', str(study), *where, '--no-wait'])
    if kill:
        pid = _first_trial(study, work, settings)
        report.holds('a trial was found and killed', pid > 0, 'none started in time')
        if pid > 0:
            os.kill(pid, signal.SIGKILL)
    status = work.wait(max(settings.seconds_left(), 1))
    report.holds(f'{label}, end', status == 0, f'exit status {status}')
    runs = [RunRecord.load(directory) for directory in find_runs([study])]
    done = sum(run.status == 'completed' for run in runs)
    report.holds(
        f'{label}, completed', done == len(OPTIMIZERS), f'{done} of {len(OPTIMIZERS)} completed'
    )
    used = {path.read_text() for path in study.rglob(short.DEVICE_FILE)}
    report.holds(f'{label}, devices used', used == {device}, f'{sorted(used)}')


def _first_trial(study: Path, work: subprocess.Popen[bytes], settings: Settings) -> int:
    """Process id of a trial that trains, by the lock of its directory; 0 where there is none."""
    while work.poll() is None and settings.seconds_left() > 0:
        for lock in study.rglob('.run.lock'):
            trains = (lock.parent / short.DEVICE_FILE).exists()
            owner = re.match(r'process (\d+) on ', lock.read_text())
            if trains and owner:
                return int(owner[1])
        time.sleep(0.1)
    return 0
