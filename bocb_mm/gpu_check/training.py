"""A training that a signal ends in mid-epoch goes on to the same bits, in float32 and mixed."""

from __future__ import annotations

from pathlib import Path

from bocb_mm.gpu_check import short
from bocb_mm.gpu_check.report import Report, Settings


def run(report: Report, settings: Settings) -> None:
    """Uninterrupted, and interrupted in the second epoch and resumed."""
    config = short.write_config(settings.folder, settings.root)
    for amp in (False, True):
        label = 'mixed precision' if amp else 'float32'
        with report.guard(label):
            straight = settings.folder / f'straight-{amp}'
            status = train(config, straight, amp)
            report.holds(f'{label}, uninterrupted', status == 0, f'exit status {status}')
            stopped = settings.folder / f'stopped-{amp}'
            status = train(config, stopped, amp, stop_at=short.STEPS_AN_EPOCH + 3)
            report.holds(f'{label}, SIGTERM in mid-epoch', status == 75, f'exit status {status}')
            status = train(config, stopped, amp, resume=True)
            report.holds(f'{label}, resumed', status == 0, f'exit status {status}')
            gap = short.difference(straight, stopped)
            report.check(f'{label}, difference from the uninterrupted run', gap, 0.0)


def train(config: Path, work_dir: Path, amp: bool, stop_at: int = 0, resume: bool = False) -> int:
    """One training in this process; its exit status."""
    from bocb_mm.launch.train import TrainOptions, prepare
    from bocb_mm.launch.train import train as train_

    options = TrainOptions(
        work_dir=str(work_dir),
        amp=amp,
        resume='auto' if resume else '',
        cfg_options={'custom_hooks.0.iteration': stop_at},
    )
    return train_(prepare(str(config), options), options)
