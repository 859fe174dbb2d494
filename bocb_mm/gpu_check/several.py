"""Two processes train what one does, go on after a signal to one of them, by dist_train.sh."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bocb_mm.gpu_check import short
from bocb_mm.gpu_check.report import Report, Settings
from bocb_mm.gpu_check.training import train

#: Of the weights, absolute: the sums of two halves round otherwise.
BOUND = 1e-4


def run(report: Report, settings: Settings) -> None:
    """Interrupted and resumed by two processes against one process with twice the batch."""
    import torch

    if settings.device == 'cuda' and torch.cuda.device_count() < 2:
        report.skip('two processes', f'{torch.cuda.device_count()} GPU; two are needed')
        return
    # The statistics of batch norm are those of each process's images.
    frozen = {'model.backbone.norm_eval': True, 'train_dataloader.sampler.shuffle': False}
    config = short.write_config(settings.folder, settings.root, frozen)
    two = settings.folder / 'two'
    half = f'train_dataloader.batch_size={short.BATCH // 2}'
    stop = f'custom_hooks.0.iteration={short.STEPS_AN_EPOCH + 3}'
    status = _dist_train(settings, config, two, half, stop, 'custom_hooks.0.rank=1')
    report.holds('SIGTERM to one of two processes', status == 75, f'exit status {status}')
    status = _dist_train(settings, config, two, half, resume=True)
    report.holds('two processes, resumed', status == 0, f'exit status {status}')
    one = settings.folder / 'one'
    status = train(config, one, amp=False)
    report.holds('one process', status == 0, f'exit status {status}')
    report.check('difference of their weights', short.difference(one, two), BOUND)


def _dist_train(
    settings: Settings, config: Path, work_dir: Path, *options: str, resume: bool = False
) -> int:
    """The user's line, with two processes; its exit status."""
    command = ['bash', str(settings.root / 'tools' / 'dist_train.sh'), str(config), '2']
    command += ['--work-dir', str(work_dir), *(['--resume'] if resume else [])]
    return subprocess.run([*command, '--cfg-options', *options], env=os.environ).returncode
