"""What is probed: a config, or a network and images from which one is written."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bocb_mm.config import classifier as networks
from bocb_mm.config.length import length_of, schedule_options, words_of
from bocb_mm.datasets.class_folders import find_images
from bocb_mm.errors import UserError
from bocb_mm.probe.options import Options
from bocb_mm.probe.plan import Protocol, Trial
from bocb_mm.report import load, names
from bocb_mm.runs.files import atomic_write_text

LEAST_ITERATIONS = 20  # of a run: fewer are no schedule
# Layers are measured at the end of one confirmed run of each optimizer.
_MEASURE = dict(type='bocb_mm.LayerMetricsHook', interval=10**9, at_start=False)


@dataclass(frozen=True)
class Target:
    """What is probed.

    Attributes:
        cfg: The whole config.
        path: The config's file, None for one that :meth:`write` has to write.
        backbone: Name in tables.
        task: Of the config.
        dataset: Name in tables.
        metric: That runs are judged by, ``''`` where only a run can tell.
        starts: Default rate and decay of each optimizer.
        identity: Hash of what is trained.
        data: Hash of data, schedule and batch, without the network.
        margin: The paper's gamma for the data.
        batch: Images a step, None where unknown.
        pretrained: As ``tools/train.py --pretrained``.
        overrides: Of the config, given by the user.
        files: Writes the config and what it needs into a folder, returns the config's path.
    """

    cfg: Mapping[str, Any]
    path: str | None
    backbone: str
    task: str
    dataset: str
    metric: str
    starts: Mapping[str, tuple[float, float]]
    identity: str
    data: str
    margin: float
    batch: int | None
    pretrained: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    files: Any = None

    def write(self, folder: Path) -> str:
        """Write the config into a folder, unless it is the user's; returns its path."""
        return self.path or str(self.files(folder))

    def options(self, length: float) -> dict[str, Any]:
        """Overrides of a run of some length."""
        return {**schedule_options(self.cfg, length), 'default_hooks.layer_metrics': None}

    def cell(self, config: str, protocol: Protocol, trial: Trial) -> dict[str, Any]:
        """The fields of a trial's cell in the search."""
        options = self.options(trial.length)
        if trial.seed == protocol.fresh_seeds[0] and trial.length == protocol.lengths[0]:
            options['default_hooks.layer_metrics'] = dict(_MEASURE)
        return dict(
            config=config, optimizer=trial.optimizer, lr=protocol.rate(trial),
            weight_decay=protocol.starts[trial.optimizer][1], seed=trial.seed,
            options=json.loads(json.dumps(options)),  # as the plan on the disk will have them
            pretrained=self.pretrained,
        )  # fmt: skip

    def budget(self, length: float) -> str:
        """What a run of some length does, in words."""
        return words_of(self.cfg, length, self.batch)

    @property
    def least_length(self) -> float:
        """The shortest length that can be asked for: an epoch, or :data:`LEAST_ITERATIONS`."""
        key, whole = length_of(self.cfg)
        return min(1.0, (1 if key == 'max_epochs' else LEAST_ITERATIONS) / whole)

    def not_tried(self, optimizers: Sequence[str]) -> list[str]:
        """What the answer does not cover, in words."""
        others = [o for o in names.OPTIMIZERS if o not in optimizers]
        decays = ', '.join(f'{o} {self.starts[o][1]:g}' for o in optimizers)
        return [
            f'{len(others)} other optimizers of the paper: {", ".join(others)}',
            f'any weight decay but the default ({decays})',
            'betas, momentum and clipping but those of the config and the catalog',
            'another batch, augmentation or length of the schedule: coupling may differ there, and '
            'short runs showed less of it than the long ones of the paper',
        ]


def find_target(options: Options) -> Target:
    """What the options name, which :func:`bocb_mm.probe.options.check` has seen.

    Raises:
        UserError: A config or a backbone that cannot be probed.
    """
    networks.import_modules(options.imports)
    if options.config is None:
        return _of_images(options)
    return _of_config(options, options.config)


def _of_config(options: Options, path: str) -> Target:
    from bocb_mm.config import edit, rates
    from bocb_mm.config.describe import describe, task_of_rates
    from bocb_mm.config.identity import hash_of

    cfg = edit.load_config(path, options.cfg_options)
    if not cfg.get('val_dataloader') or not cfg.get('val_evaluator'):
        missing = 'val_evaluator' if cfg.get('val_dataloader') else 'val_dataloader'
        raise UserError(
            f'config {path}: has no {missing}; a probe compares validation results, so it needs '
            'val_dataloader, val_evaluator and val_cfg'
        )
    found = describe(cfg)
    table = names.table_name(found.task, found.dataset)
    data = {k: cfg.get(k) for k in _DATA}
    named = (cfg.get('default_hooks') or {}).get('run_record') or {}  # as the records have it
    return Target(
        cfg, path, named.get('backbone') or found.backbone, found.task, found.dataset, found.metric,
        starts_of(options.optimizers, task_of_rates(cfg), edit.recipe_of(cfg)),
        _identity(cfg), hash_of(data), cfg.get('gamma') or load.default_gamma(table),
        rates.batch_of(cfg), options.pretrained, dict(options.cfg_options),
    )  # fmt: skip


def _identity(cfg: Mapping[str, Any]) -> str:
    """Hash of what is trained, from which weights, and judged by what."""
    from bocb_mm.config.identity import COMPARED, hash_of

    more = [cfg.get(name) for name in COMPARED]
    return _hash((hash_of(cfg), more)) if any(more) else hash_of(cfg)


_DATA = (
    'train_dataloader', 'val_dataloader', 'val_evaluator', 'train_cfg', 'param_scheduler',
    'data_preprocessor',
)  # fmt: skip


def _of_images(options: Options) -> Target:
    from mmengine.config import Config

    assert options.backbone is not None
    network = networks.parse(options.backbone)
    embedded = options.data is None
    if embedded:
        from bocb_mm.datasets import prepare_quickstart

        folder, name = str(prepare_quickstart()['digits']), 'digits'
    else:
        folder, name = str(options.data), Path(str(options.data)).resolve().name
    iterations = options.iterations or (200 if embedded else 400)
    images = find_images(folder, options.size)
    model = networks.model_of(network, len(images.classes), images.side)
    data = (images.identity, iterations, options.batch, embedded)
    arrange = functools.partial(
        networks.config_text, network, model, images, iterations=iterations,
        batch=options.batch, digits=embedded, name=name, imports=options.imports,
    )  # fmt: skip

    def files(folder: Path) -> Path:
        path = folder.resolve() / f'{names.slug(network.label)}.py'
        atomic_write_text(path, arrange(images.write_lists(folder / 'data')))
        return path

    cfg = Config.fromstring(arrange(('', '')), '.py')
    if options.cfg_options:
        cfg.merge_from_dict(dict(options.cfg_options))
    return Target(
        cfg, None, network.label, 'classification', name, 'accuracy/top1',
        starts_of(options.optimizers, 'classification', None),
        _hash((network, model, data, dict(options.cfg_options))), _hash(data), 3.0, options.batch,
        'none', dict(options.cfg_options), files,
    )  # fmt: skip


def _hash(what: Any) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def starts_of(
    texts: Sequence[str], task: str, recipe: str | None
) -> dict[str, tuple[float, float]]:
    """Rate and decay to start from, of optimizers given as ``NAME``, ``NAME:LR``, ``NAME:LR:WD``.

    Args:
        texts: The optimizers.
        task: Whose defaults count.
        recipe: For classification, of the config.

    Raises:
        UserError: An unknown optimizer, or one twice.

    Example:
        >>> starts_of(['sgd', 'AdamW:0.002'], 'classification', None)
        {'SGD': (0.1, 0.0001), 'AdamW': (0.002, 0.05)}
    """
    from bocb_mm.optimizers import get_spec

    found: dict[str, tuple[float, float]] = {}
    for text in texts:
        name, *numbers = text.split(':')
        try:
            given = [float(n) for n in numbers]
        except ValueError:
            given = [-1.0]
        if len(given) > 2 or any(not 0 <= n < float('inf') for n in given) or 0 in given[:1]:
            raise UserError(f'--optimizers {text!r}: NAME, NAME:LR or NAME:LR:WD is expected')
        spec = get_spec(name)
        name, default = spec.name, spec.default(task, recipe)
        if name in found:
            raise UserError(f'--optimizers: {name} is there twice; two rates of one are no probe')
        decay = given[1] if len(given) > 1 else default.weight_decay
        rate = given[0] if given else default.lr
        found[name] = (float(f'{rate:.6g}'), decay)  # as the rates that are trained
    if not found:
        raise UserError('--optimizers: at least one name is expected')
    return found
