"""Runs the stages one after the other and puts their rows into one table and one file."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bocb_mm.errors import UserError, unknown_name
from bocb_mm.gpu_check.report import FAILED, SKIPPED, Row, read_rows
from bocb_mm.gpu_check.stages import STAGES, Stage
from bocb_mm.runs.files import atomic_open

FILE = 'gpu_check.json'
#: A CPU does less, at a tenth of the speed and beside other work.
CPU_FACTOR = 8


def gpu_check(device: str, out: Path, root: Path, names: Sequence[str] = ()) -> list[Row]:
    """Run the stages and write ``gpu_check.json``.

    Args:
        device: ``'cuda'`` or ``'cpu'``.
        out: Folder for the stages' logs and the file.
        root: The checkout.
        names: The stages to run; all where there are none.

    Returns:
        The rows of all stages.

    Raises:
        UserError: No such stage, or no GPU.
    """
    stages = [_stage(name) for name in names] or list(STAGES)
    if device == 'cuda':
        _require_gpu()
    out.mkdir(parents=True, exist_ok=True)
    (out / FILE).unlink(missing_ok=True)
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    for stage in stages:
        start = time.monotonic()
        print(f'{stage.name:<12} {stage.about} ...', end=' ', flush=True)
        found = run_stage(stage, device, out, root)
        seconds[stage.name] = round(time.monotonic() - start, 1)
        counts = Counter(row.status for row in found)
        print(f'{seconds[stage.name]:.0f} s:', ', '.join(f'{n} {s}' for s, n in counts.items()))
        rows += found
    with atomic_open(out / FILE) as file:
        json.dump(_document(device, rows, seconds), file, indent=1)
    return rows


def _stage(name: str) -> Stage:
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise unknown_name('stage', name, [s.name for s in STAGES])


def _require_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            '--device cuda: torch sees no GPU; `bocb doctor` says why, --device cpu runs '
            'every stage on the CPU'
        )


def run_stage(stage: Stage, device: str, out: Path, root: Path) -> list[Row]:
    """The rows of one stage; a process that dies or takes too long gives a failed one."""
    limit = stage.seconds * (CPU_FACTOR if device == 'cpu' else 1)
    command = [
        sys.executable, '-m', 'bocb_mm.gpu_check.stage', stage.name, '--device', device,
        '--folder', str(out), '--root', str(root), '--seconds', str(limit),
    ]  # fmt: skip
    (out / f'{stage.name}.jsonl').unlink(missing_ok=True)
    with (out / f'{stage.name}.log').open('w', encoding='utf-8') as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=_environment(device, root), start_new_session=True
        )
        reason = ''
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            reason = f'stopped after {limit} s'
        finally:
            _end(process)
    rows = read_rows(out / f'{stage.name}.jsonl')
    if not reason and status:
        reason = f'ended with status {status}: {_last_line(out / f"{stage.name}.log")}'
    if not reason and not rows:
        reason = 'checked nothing'
    if reason:
        rows.append(Row(stage.name, 'the stage', None, None, FAILED, reason))
    return rows


def _environment(device: str, root: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(root), os.environ.get('PYTHONPATH'))))
    environment = os.environ | {'PYTHONPATH': path, 'CUBLAS_WORKSPACE_CONFIG': ':4096:8'}
    return environment | ({'CUDA_VISIBLE_DEVICES': ''} if device == 'cpu' else {})


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the stage and what it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding='utf-8', errors='replace').strip().splitlines()
    return lines[-1][:300] if lines else 'it printed nothing'


def _document(device: str, rows: Sequence[Row], seconds: dict[str, float]) -> dict[str, Any]:
    counts = Counter(row.status for row in rows)
    return {
        'device': device,
        'python': platform.python_version(),
        'seconds': seconds,
        'counts': dict(counts),
        'checks': [asdict(row) for row in rows],
    }


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown.

    Example:
        >>> print(table([Row('layers', 'alpha', 1e-4, 2e-5, 'pass')]))
        | stage | check | bound | measured | outcome |
        |---|---|---|---|---|
        | layers | alpha | 0.0001 | 2e-05 | pass |
    """
    lines = ['| stage | check | bound | measured | outcome |', '|---|---|---|---|---|']
    for row in rows:
        outcome = row.status + (f': {row.reason}' if row.reason else '')
        cells = (row.stage, row.check, _cell(row.bound), _cell(row.measured), outcome)
        lines.append('| ' + ' | '.join(cell.replace('|', '/') for cell in cells) + ' |')
    return '\n'.join(lines)


def _cell(value: float | str | None) -> str:
    return '' if value is None else value if isinstance(value, str) else f'{value:.3g}'


def failures(rows: Sequence[Row]) -> list[Row]:
    """The rows that failed."""
    return [row for row in rows if row.status == FAILED]


def skipped(rows: Sequence[Row]) -> list[Row]:
    """The rows that did not run."""
    return [row for row in rows if row.status == SKIPPED]
