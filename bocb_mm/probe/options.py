"""What a probe takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bocb_mm.errors import UserError
from bocb_mm.probe import plan


@dataclass(frozen=True)
class Options:
    """What a probe takes; the fields are the arguments of ``tools/probe.py``.

    Attributes:
        out: Folder of the probe; the same command goes on with what is there.
        config: Config of one training, of any MM toolbox.
        backbone: In place of a config: a network of the catalog, ``timm.<name>``, or a registered
            class, with arguments in brackets.
        data: Folder of class folders for ``backbone``; the embedded digits by default.
        optimizers: Names, or ``NAME:LR`` or ``NAME:LR:WD`` where the default is another.
        seeds: Fresh seeds that confirm each best rate.
        first_seed: The seed that tunes.
        lengths: Factors of the schedule's length; the first tunes.
        minutes: Shorten the schedule so that the probe fits.
        margin: Of the verdict, in points; by default the paper's gamma: 3, or 1 on ImageNet.
        iterations: Length of a run on a folder of images, 400 by default, of the digits 200.
        batch: Images a batch, likewise.
        size: Side of the images, likewise.
        imports: Modules that register the user's classes.
        pretrained: What the backbone starts from, as ``tools/train.py --pretrained``.
        references: Folders of probes of other networks, to be shown beside this one.
        cfg_options: Overrides of the config.
        jobs: Trainings at a time on the CPU; by default one on each core. With ``address``: on the
            CPU, as many as Ray places.
        threads: Threads of each.
        gpus: Numbers of GPUs, one training at a time on each; by default all that are visible.
        address: Of a running Ray cluster.
        dry_run: Say what would be done and what it would take, and leave nothing behind.
    """

    out: str
    config: str | None = None
    backbone: str | None = None
    data: str | None = None
    optimizers: Sequence[str] = plan.DEFAULT_OPTIMIZERS
    seeds: int = plan.SEEDS
    first_seed: int = 0
    lengths: Sequence[float] = (1.0,)
    minutes: float | None = None
    margin: float | None = None
    iterations: int | None = None
    batch: int = 64
    size: int | None = None
    imports: Sequence[str] = ()
    pretrained: str | None = None
    references: Sequence[str] = ()
    cfg_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    jobs: int | None = None
    threads: int = 1
    gpus: Sequence[str] | None = None
    address: str | None = None
    dry_run: bool = False


def check(options: Options) -> None:
    """Refuse numbers out of their range, and options that do not go together.

    Raises:
        UserError: The option, and what is expected.
    """
    for name, least in (('seeds', 1), ('iterations', 20), ('batch', 1), ('threads', 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f'--{name} {value}: at least {least} is expected')
    for name in ('minutes', 'margin', 'jobs', 'size'):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise UserError(f'--{name} {value}: more than 0 is expected')
    if not options.lengths or any(not 0 < length < math.inf for length in options.lengths):
        raise UserError(f'--lengths {options.lengths}: numbers above 0 are expected')
    if len(set(options.lengths)) < len(options.lengths):
        raise UserError(f'--lengths {options.lengths}: a length is there twice')
    if options.address and options.gpus:
        raise UserError('--gpus: not with --address, whose Ray knows its GPUs')
    if options.address and options.minutes:
        raise UserError(
            '--minutes: not with --address, since how many trainings find a place there at a time '
            'is not known before; give --lengths'
        )
    if options.gpus and options.jobs:
        raise UserError('--jobs: trainings on the CPU, and --gpus on GPUs; give one of them')
    _check_subject(options)


def _check_subject(options: Options) -> None:
    if (options.config is None) == (options.backbone is None):
        raise UserError('a CONFIG, or --backbone NAME with or without --data FOLDER, is expected')
    if options.config:
        for name, flag in _FOR_IMAGES.items():
            if getattr(options, name) != getattr(Options, name):
                raise UserError(f'{flag}: goes with --backbone; a config has its own')
    elif options.pretrained not in (None, 'none'):
        raise UserError('--pretrained: goes with a CONFIG; a network by its name starts anew')


_FOR_IMAGES = {
    'data': '--data', 'iterations': '--iterations', 'batch': '--batch', 'size': '--size',
    'imports': '--import',
}  # fmt: skip
