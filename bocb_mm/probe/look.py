"""A first look at what is to be probed: how long a run takes, and the gradients at the start.

It trains a few iterations in a process of its own (``python -m bocb_mm.probe.look``), so that
whatever the network does there (threads, memory, a crash) is over when the probe begins.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bocb_mm.errors import UserError, one_line_errors
from bocb_mm.launch.process import search_path

WARM_UP, MEASURED = 3, 20  # iterations
MOST_SECONDS = 20.0
BATCHES = 4  # that gradients are taken of


@dataclass(frozen=True)
class Look:
    """What a look found.

    Attributes:
        seconds_per_iteration: Median of the measured iterations, data included.
        iterations: Of a whole run of length 1.
        validation_seconds: Of one validation, estimated from its first batches.
        start_seconds: To build the data and the model.
        covariates: :func:`bocb_mm.metrics.gradients.covariates`.
        n_parameters: Of the model.
    """

    seconds_per_iteration: float
    iterations: int
    validation_seconds: float
    start_seconds: float
    covariates: dict[str, float] = field(default_factory=dict)
    n_parameters: int = 0

    def seconds(self, length: float = 1.0) -> float:
        """Seconds of one run."""
        training = self.seconds_per_iteration * self.iterations * length
        return self.start_seconds + training + self.validation_seconds


def look(
    config: str, options: Mapping[str, Any], optimizer: str, pretrained: str | None, threads: int,
    device: str | None = None,
) -> Look:  # fmt: skip
    """Look at a config, in a process of its own.

    Args:
        config: Path or name.
        options: Overrides of it.
        optimizer: Name of the one that trains.
        pretrained: As ``tools/train.py --pretrained``.
        threads: To compute with.
        device: ``CUDA_VISIBLE_DEVICES`` of the trainings to come, ``'-1'`` for the CPU; ``None``:
            whatever is visible.

    Raises:
        UserError: It cannot be trained: the reason in a line.
    """
    task = dict(config=config, options=dict(options), optimizer=optimizer, pretrained=pretrained)
    with tempfile.TemporaryDirectory(prefix='bocb_probe_') as folder:
        place = Path(folder)
        told = {'OMP_NUM_THREADS': str(threads), 'PYTHONPATH': search_path()}
        told |= {} if device is None else {'CUDA_VISIBLE_DEVICES': device}
        (place / 'task.json').write_text(json.dumps({**task, 'threads': threads}))
        done = subprocess.run(
            [sys.executable, '-m', 'bocb_mm.probe.look', folder],
            env={**os.environ, **told},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode == 0:
            return Look(**json.loads((place / 'look.json').read_text()))
    if done.returncode in (-2, 130):
        raise KeyboardInterrupt
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    why = lines[-1].removeprefix('error: ') if lines else f'exit status {done.returncode}'
    raise UserError(f'{config} cannot be trained for one iteration: {why[:500]}')


def _measure(task: Mapping[str, Any], folder: Path) -> Look:
    from mmengine.hooks import Hook
    from mmengine.runner import Runner

    from bocb_mm.launch.train import TrainOptions, build_runner, prepare
    from bocb_mm.metrics.gradients import covariates, gradient_norms

    options = TrainOptions(
        optimizer=task['optimizer'], pretrained=task['pretrained'], seed=0, searched=True,
        work_dir=str(folder / 'run'), cfg_options=task['options'],
    )  # fmt: skip
    cfg = prepare(task['config'], options)
    # Nothing is to be left behind: no record, no checkpoint, no stop.
    cfg.default_hooks = dict(logger=None, checkpoint=None)
    cfg.custom_hooks, cfg.visualizer, cfg.log_level = [], None, 'ERROR'
    _import_toolbox(str(cfg.get('default_scope') or ''))  # once a worker, not once a run
    began = time.perf_counter()

    class Watch(Hook):
        """Takes gradients before training, times iterations, and ends it."""

        found: Look
        times: list[float]

        def before_train(self, runner: Runner) -> None:
            self.start = time.perf_counter() - began
            model = runner.model
            model.train()
            batches = [b for b, _ in zip(runner.train_dataloader, range(BATCHES))]

            def loss(batch: Any) -> Any:
                data = model.data_preprocessor(batch, True)
                arguments = data if isinstance(data, dict) else {}
                losses = model(**arguments, mode='loss') if arguments else model(*data, mode='loss')
                return model.parse_losses(losses)[0]

            self.covariates = covariates(gradient_norms(model, batches, loss))
            self.times = [time.perf_counter()]

        def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
            self.times.append(time.perf_counter())
            n = len(self.times) - 1
            spent = self.times[-1] - self.times[0]
            enough = n >= WARM_UP + MEASURED or (n >= WARM_UP + 2 and spent > MOST_SECONDS)
            if not enough and runner.iter + 1 < runner.max_iters:
                return
            steps = [b - a for a, b in zip(self.times, self.times[1:])]
            steps = sorted(steps[WARM_UP:] or steps)
            self.found = Look(
                steps[len(steps) // 2], runner.max_iters, _validation_seconds(runner), self.start,
                self.covariates, sum(p.numel() for p in runner.model.parameters()),
            )  # fmt: skip
            raise _Enough

    watch = Watch()
    runner = build_runner(cfg)
    runner.register_hook(watch)
    try:
        runner.train()
    except _Enough:
        return watch.found
    raise UserError('the training ended before an iteration: is there any data?')


def _import_toolbox(scope: str) -> None:
    """Import the classes of a toolbox, as its first training would."""
    with suppress(ImportError, AttributeError):
        importlib.import_module(f'{scope}.utils').register_all_modules(init_default_scope=False)


class _Enough(Exception):
    """Ends the look."""


def _validation_seconds(runner: Any) -> float:
    """Time of a validation, from as many of its batches as take some seconds."""
    import torch

    loader = runner.val_loop.dataloader
    runner.model.eval()
    began, done = time.perf_counter(), 0
    with torch.no_grad():
        for batch in loader:
            runner.model.val_step(batch)
            done += 1
            if time.perf_counter() - began > MOST_SECONDS / 4:
                break
    return (time.perf_counter() - began) * len(loader) / max(1, done)


@one_line_errors
def main() -> int:
    """Look at the task in the folder that is named; writes ``look.json`` beside it."""
    folder = Path(sys.argv[1])
    task = json.loads((folder / 'task.json').read_text())
    import torch

    torch.set_num_threads(task['threads'])
    found = _measure(task, folder)
    (folder / 'look.json').write_text(json.dumps(asdict(found)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
