"""RunRecord: what one training leaves behind in ``run.json``, and how it is found again.

No torch and no mmengine here: the report reads records on machines that have neither.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bocb_mm.errors import UserError
from bocb_mm.facts import scales
from bocb_mm.runs.files import atomic_write_text
from bocb_mm.runs.lock import is_held

SCHEMA_VERSION = 1
FILE_NAME = 'run.json'
STATUSES = ('running', 'completed', 'diverged', 'failed', 'interrupted')
TASKS = ('classification', 'detection', 'pose')


# What a run is; fixed at its first start.
_IDENTITY = (
    'task', 'dataset', 'backbone', 'optimizer', 'lr', 'weight_decay', 'pretraining', 'pretrained',
    'recipe', 'seed', 'metric', 'evaluator', 'metric_rule', 'gamma', 'config', 'config_hash',
    'started', 'architecture', 'ann_file', 'n_classes', 'n_train', 'batch_size', 'image_size',
    'lr_origin', 'lr_source',
)  # fmt: skip
_MAX_LOSSES = 400  # enough for a curve; a record stays small


class RunRecordError(UserError):
    """A ``run.json`` that cannot be read: the path and the reason are in the message."""


@dataclass
class RunRecord:
    """One training run.

    Attributes:
        task: ``'classification'``, ``'detection'``, ``'pose'``, or the task of another toolbox.
        dataset: Name of the data set, e.g. ``'cifar100'``, ``'imagenet'``, ``'coco'``.
        backbone: The paper's short name (``'R-50'``) or, outside the catalog, the registry type.
        optimizer: The paper's name (``'SGD'``) or, outside the catalog, the registry type.
        lr: Base learning rate as configured, before schedule and multipliers.
        weight_decay: Weight decay as configured.
        pretraining: Name of the pre-training the run started from, ``''`` for random weights.
        pretrained: What was loaded at the start, a dict a file: ``part`` of the model, ``source``,
            how many ``tensors`` ``of`` how many, and the ``share`` of the parameters, 0 to 1.
        recipe: Name of the training recipe, e.g. ``'rsb-a2'``.
        seed: Random seed.
        status: One of :data:`STATUSES`.
        optimizer_settings: Every argument the optimizer was built with.
        metric: Name of the headline metric, e.g. ``'accuracy/top1'``.
        gamma: Threshold of eq. 1 for this table; ``None`` leaves it to the report.
        evaluations: One dict an evaluation: ``epoch``, ``iteration`` and the metrics by name.
        best: Best value of ``metric``; ``None`` before the first evaluation.
        last: Latest value of ``metric``.
        epochs: Epochs done.
        max_epochs: Epochs planned.
        iterations: Iterations done.
        losses: ``[iteration, loss]`` pairs, thinned.
        seconds_per_iteration: Median over the last nine tenths of the run, in s.
        optimizer_step_ms: Median time of ``optimizer.step()``, in ms.
        peak_memory_mb: Peak memory, in MiB: of the CUDA allocator, or of the process on a CPU.
        n_parameters: Number of parameters of the model.
        n_trainable: Number of those that are trained.
        versions: Package name to version.
        config: Name of the config file's stem.
        config_hash: SHA-256 (first 16 hex digits) of the resolved config without paths and seed.
        started: Start, ISO 8601 with time zone.
        finished: End, ISO 8601 with time zone, ``''`` while running.
        message: Why it failed, diverged or was interrupted, ``''`` otherwise.
        warnings: Problems that did not end the run, e.g. a layer-metrics snapshot that failed.
        architecture: Arguments of the backbone that make it this network; ``{}`` where its name
            says it all.
        ann_file: Training annotations, with their folder, ``''`` without.
        n_classes: Number of classes, of key points in pose.
        n_train: Number of training samples.
        batch_size: Samples an optimizer step sees, over all processes.
        image_size: Height and width the network is trained on, ``[]`` where unknown.
        lr_origin: Where rate and decay come from: ``'given'``, ``'search'``, ``'sourced'``,
            ``'extrapolated'``; ``''`` where unknown.
        lr_source: For which data, batch and schedule a default rate is meant, in words.
        evaluator: Class of the evaluator that gives ``metric``.
        metric_rule: ``'greater'`` or ``'less'`` where the config says which is better.
        schema_version: Version of this list of fields.
    """

    task: str
    dataset: str
    backbone: str
    optimizer: str
    lr: float | None = None
    weight_decay: float | None = None
    pretraining: str = ''
    pretrained: list[dict[str, Any]] = field(default_factory=list)
    recipe: str = ''
    seed: int | None = None
    status: str = 'running'
    optimizer_settings: dict[str, Any] = field(default_factory=dict)
    metric: str = ''
    gamma: float | None = None
    evaluations: list[dict[str, float | None]] = field(default_factory=list)
    best: float | None = None
    last: float | None = None
    epochs: int = 0
    max_epochs: int | None = None
    iterations: int = 0
    losses: list[list[float]] = field(default_factory=list)
    seconds_per_iteration: float | None = None
    optimizer_step_ms: float | None = None
    peak_memory_mb: float | None = None
    n_parameters: int | None = None
    n_trainable: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    config: str = ''
    config_hash: str = ''
    started: str = ''
    finished: str = ''
    message: str = ''
    warnings: list[str] = field(default_factory=list)
    architecture: dict[str, Any] = field(default_factory=dict)
    ann_file: str = ''
    n_classes: int | None = None
    n_train: int | None = None
    batch_size: int | None = None
    image_size: list[int] = field(default_factory=list)
    lr_origin: str = ''
    lr_source: str = ''
    evaluator: str = ''
    metric_rule: str = ''
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise RunRecordError(f'status {self.status!r}: expected one of {", ".join(STATUSES)}')

    def add_evaluation(
        self, epoch: int, iteration: int, metrics: Mapping[str, float | None]
    ) -> None:
        """Append one evaluation and bring ``best`` and ``last`` up to date.

        An earlier one of the same iteration gives way: a resumed run may evaluate it again.
        An evaluation without any metric counts as 0 where more is better: mmdet's CocoMetric
        returns nothing when no box survives (mmdet 3.3.0). One that has others but not the
        headline metric has no result, nor has COCO's -1.
        """
        entry: dict[str, float | None] = {'epoch': epoch, 'iteration': iteration, **metrics}
        if self.metric:
            nothing = 0.0 if not metrics and self.larger_is_better else None
            entry.setdefault(self.metric, nothing)
        self.evaluations = [e for e in self.evaluations if e.get('iteration') != iteration]
        self.evaluations.append(entry)
        self._find_best()

    @property
    def larger_is_better(self) -> bool:
        """Whether more of the headline metric is better; the config's word comes first."""
        if self.metric_rule:
            return self.metric_rule == 'greater'
        return scales.scale(self.metric, self.evaluator).larger_is_better

    def judge_by(self, metric: str) -> None:
        """Take another metric as the headline, of the evaluations so far too."""
        self.metric = metric
        self._find_best()

    def _find_best(self) -> None:
        results = [scales.result(self.metric, e.get(self.metric)) for e in self.evaluations]
        finite = [value for value in results if value is not None]
        self.best = (max if self.larger_is_better else min)(finite, default=None)
        self.last = results[-1] if results else None

    def add_losses(self, values: Sequence[float], iteration: int) -> None:
        """Extend the loss curve; it is thinned to some 400 points.

        Args:
            values: The latest losses, the last one of ``iteration``; those known already count
                once.
            iteration: Iterations done.
        """
        known = int(self.losses[-1][0]) if self.losses else 0
        new = max(0, min(iteration - known, len(values)))
        stride = max(1, -(-iteration // _MAX_LOSSES))
        first = iteration - new + 1
        fresh = [
            [float(first + k), float(value)]
            for k, value in enumerate(values[len(values) - new :])
            if (first + k) % stride == 0 or first + k == iteration
        ]
        self.losses = [pair for pair in self.losses if pair[0] % stride == 0] + fresh

    def go_on_from(self, before: RunRecord, iteration: int) -> None:
        """Be the same run as an earlier part of it, which got as far as ``iteration``.

        What the run is was settled when it started, whatever the command that resumes it says;
        what the earlier part has measured is kept.
        """
        for name in _IDENTITY:
            earlier = getattr(before, name)
            if earlier not in ('', None, {}, []):
                setattr(self, name, earlier)
        self.losses = [pair for pair in before.losses if pair[0] <= iteration]
        self.warnings = list(dict.fromkeys([*before.warnings, *self.warnings]))
        self.evaluations = [e for e in before.evaluations if (e.get('iteration') or 0) <= iteration]
        self._find_best()

    def warn(self, text: str) -> None:
        """Note a problem that does not end the run; the same one only once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write ``run.json`` into ``directory`` atomically and return its path.

        Values that JSON does not have (NaN, infinities) become ``null``.
        """
        path = Path(directory) / FILE_NAME
        text = json.dumps(_plain(dataclasses.asdict(self)), indent=1, allow_nan=False)
        atomic_write_text(path, text + '\n')
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RunRecord:
        """Read a record from a ``run.json`` or from the directory that holds one.

        Fields this version does not know are ignored, so that newer records stay readable.

        Raises:
            RunRecordError: Missing, not JSON, not a record, or of a newer incompatible schema.
        """
        path = Path(path)
        if path.is_dir():
            path = path / FILE_NAME
        try:
            data = json.loads(path.read_bytes().decode('utf-8'))
        except (OSError, ValueError, RecursionError) as error:
            raise RunRecordError(f'{path}: not a readable run record ({error})') from None
        try:
            return cls(**_checked(data))
        except (RunRecordError, TypeError) as error:
            raise RunRecordError(f'{path}: not a run record ({error})') from None

    @classmethod
    def find(cls, directory: str | os.PathLike[str]) -> RunRecord | None:
        """The record in a directory; ``None`` where there is none, or none that can be read."""
        try:
            return cls.load(directory)
        except RunRecordError:
            return None


def status_of(directory: str | os.PathLike[str], record: RunRecord | None = None) -> str:
    """Status of the run in a directory, the death of its process included.

    A process that was killed leaves ``running`` behind; the lock tells that it is gone.

    Args:
        directory: A run's directory.
        record: What its ``run.json`` holds, if it has been read already.

    Returns:
        One of :data:`STATUSES`, or ``'killed'``.

    Raises:
        RunRecordError: There is no record that can be read.
    """
    record = RunRecord.load(directory) if record is None else record
    return 'killed' if record.status == 'running' and is_held(directory) is False else record.status


def _checked(data: Any) -> dict[str, Any]:
    """The known fields of ``data``, each of the type a record promises."""
    if not isinstance(data, dict):
        raise RunRecordError(f'a JSON object was expected, not {type(data).__name__}')
    version = data.get('schema_version')
    if version != SCHEMA_VERSION:
        raise RunRecordError(f'schema_version {version!r}: this release reads {SCHEMA_VERSION}')
    fields = _fields()
    known = {k: v for k, v in data.items() if k in fields}
    for name, value in known.items():
        declared, allowed = fields[name]
        if isinstance(value, bool) or not isinstance(value, allowed):
            found = type(value).__name__
            raise RunRecordError(f'field {name!r} holds {found}, expected {declared}')
        if isinstance(value, int) and abs(value) > 1e300:  # no float holds it
            raise RunRecordError(f'field {name!r} holds a number beyond all bounds')
    return known


_JSON_TYPES: dict[str, tuple[type, ...]] = {
    'str': (str,),
    'int': (int,),
    'float': (int, float),
    'dict': (dict,),
    'list': (list,),
}


@functools.cache
def _fields() -> dict[str, tuple[str, tuple[type, ...]]]:
    """The annotation of each field of a record, and the JSON types that it allows."""
    found = {}
    for field_ in dataclasses.fields(RunRecord):
        declared = str(field_.type)
        allowed = _JSON_TYPES[declared.split(' ')[0].split('[')[0]]
        nothing = (type(None),) if declared.endswith('| None') else ()
        found[field_.name] = declared, allowed + nothing
    return found


def _plain(value: Any) -> Any:
    """``value`` as JSON can hold it: tuples as lists, numbers that are not finite as None."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if getattr(value, 'size', None) == 1 or getattr(value, 'ndim', None) == 0:
        return _plain(value.item())  # numpy and torch scalars
    return str(value)


def find_runs(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """Every directory at or below ``paths`` that holds a ``run.json``, sorted, each once.

    Raises:
        UserError: A path does not exist.

    Example:
        >>> [p.name for p in find_runs(['work_dirs'])]  # doctest: +SKIP
        ['lr0.1_wd0.0001_seed0']
    """
    seen: set[tuple[int, int]] = set()
    for path in paths:
        if not os.path.exists(path):
            raise UserError(f'{os.fspath(path)}: no such file or directory')
        for directory, names, files in os.walk(path):
            names.sort()
            if FILE_NAME in files:
                stat = os.stat(directory)  # the same under every name, and cheap to ask for
                if (stat.st_dev, stat.st_ino) not in seen:
                    seen.add((stat.st_dev, stat.st_ino))
                    yield Path(directory)


def run_directory(
    root: str | os.PathLike[str],
    config: str,
    optimizer: str,
    lr: float | None,
    weight_decay: float | None,
    seed: int | None,
) -> Path:
    """Where a run lives: ``root/<config>/<optimizer>/lr<..>_wd<..>_seed<..>``.

    Example:
        >>> str(run_directory('work_dirs', 'retinanet_r50', 'LARS', 0.1, 1e-4, 0))
        'work_dirs/retinanet_r50/LARS/lr0.1_wd0.0001_seed0'
    """
    leaf = f'lr{_short(lr)}_wd{_short(weight_decay)}_seed{"none" if seed is None else seed}'
    return Path(root) / config / optimizer / leaf


def _short(value: float | None) -> str:
    return 'none' if value is None else f'{value:.10g}'


def config_hash(config: dict[str, Any]) -> str:
    """SHA-256 (first 16 hex digits) of a JSON-able dict, whatever the order of its keys."""
    text = json.dumps(_plain(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
