"""One training, from config to run record: what ``tools/train.py`` and the search both call."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_dist_info, is_main_process
from mmengine.runner import Runner

from bocb_mm import optimizers
from bocb_mm.checkpoints.read import install_safe_loading
from bocb_mm.compat import restart_loaders_at_once
from bocb_mm.config import edit
from bocb_mm.config.augment import augment_on_device
from bocb_mm.config.describe import backbone_name, task_of
from bocb_mm.config.loaders import set_loaders
from bocb_mm.config.pretraining import set_pretrained
from bocb_mm.config.rates import check_schedule, note_rate
from bocb_mm.errors import UserError
from bocb_mm.hooks.pretrained import PretrainedHook
from bocb_mm.hooks.stopping import StoppedRun, record_failure
from bocb_mm.launch.distributed import lost_peer, number_of_processes, process_group
from bocb_mm.launch.mistakes import check_heads, one_line_mistakes
from bocb_mm.resume.find import check_resume, checkpoint_directory, find_resumable
from bocb_mm.runs import exit_codes
from bocb_mm.runs.lock import RunLock
from bocb_mm.runs.record import FILE_NAME, RunRecord, status_of


@dataclass(frozen=True)
class TrainOptions:
    """What a training takes beside its config; the fields are train.py's arguments.

    Attributes:
        optimizer: Name of a catalog row that replaces the config's optimizer.
        lr: Base learning rate, instead of the config's or the row's.
        weight_decay: Weight decay, likewise.
        pretrained: Checkpoint the backbone starts from; ``'none'`` for random weights.
        seed: Random seed.
        work_dir: Where the run goes; ``None`` derives it from config, optimizer and settings.
        resume: ``''``: start anew, ``'auto'``: go on from the newest complete checkpoint of the
            work directory (start anew when there is none, refuse when none can be read), else a
            checkpoint's path.
        amp: Mixed precision: ``'bfloat16'``, ``'float16'``, or True for bfloat16 where the device
            has it and float16 elsewhere.
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        trust_checkpoint: Load checkpoints that hold more than tensors and plain values; they can
            run any code.
        cfg_options: ``key=value`` overrides, dots in a key go into nested dicts.
        metric: Name of the metric that runs are judged by, as mmengine logs it.
        auto_scale_lr: Scale the rate from the batch it is meant for to the run's.
        searched: The rate is one of a search: it is never scaled, whatever the config says.
    """

    optimizer: str | None = None
    lr: float | None = None
    weight_decay: float | None = None
    pretrained: str | None = None
    seed: int | None = None
    work_dir: str | None = None
    resume: str = ''
    amp: bool | str = False
    launcher: str = 'none'
    trust_checkpoint: bool = False
    cfg_options: Mapping[str, Any] | None = None
    metric: str | None = None
    auto_scale_lr: bool = False
    searched: bool = False


def prepare(config: str, options: TrainOptions) -> Config:
    """The config of one run: every override of ``options`` applied and checked, nothing built.

    Raises:
        UserError: Anything in the config or the options that cannot work.

    Example:
        >>> cfg = prepare('configs/retinanet_r50_lars_pretrain.py',
        ...               TrainOptions(optimizer='AdamW', pretrained='none'))  # doctest: +SKIP
    """
    cfg = edit.load_config(config, options.cfg_options)
    edit.set_optimizer(
        cfg, options.optimizer, options.lr, options.weight_decay, options.cfg_options
    )
    check_schedule(cfg)
    edit.set_seed(cfg, options.seed)
    _set_rate(cfg, options)
    if options.amp:
        edit.set_amp(cfg, options.amp if isinstance(options.amp, str) else best_half())
    if options.metric:
        cfg.headline_metric = options.metric
    work_dir = edit.set_work_dir(cfg, options.work_dir, config)
    _set_resume(cfg, work_dir, options)
    set_pretrained(cfg, options.pretrained, resuming=bool(cfg.get('resume')))
    edit.check_data(cfg)
    augment_on_device(cfg)
    set_loaders(cfg, pin=torch.cuda.is_available())
    edit.set_hooks(cfg)
    cfg.filename_stem = edit.config_stem(config)
    return cfg


def _set_rate(cfg: Config, options: TrainOptions) -> None:
    """Note where the rate comes from, and scale it if asked to."""
    if options.searched:
        cfg.auto_scale_lr = None
        cfg.lr_origin, cfg.lr_source = 'search', 'the rate of a search'
        return
    name = None if options.optimizer is None else optimizers.get_spec(options.optimizer).name
    processes = number_of_processes(options.launcher)
    note_rate(cfg, name, options.lr is not None, processes, options.auto_scale_lr)


def best_half() -> str:
    """The half-precision type for this machine: bfloat16 where its device has it; a CPU does."""
    if not torch.cuda.is_available():
        return 'bfloat16'
    return 'bfloat16' if torch.cuda.is_bf16_supported(including_emulation=False) else 'float16'


def _set_resume(cfg: Config, work_dir: Path, options: TrainOptions) -> None:
    """Decide between a new run, a resumed one and a refusal."""
    before = _status(work_dir)
    # `resume = True` in a config is --resume, from its load_from if it has one.
    resume = options.resume or (str(cfg.get('load_from') or 'auto') if cfg.get('resume') else '')
    cfg.resume = False
    if not resume:
        if before is not None:
            raise UserError(_occupied(work_dir, before))
        return
    if before == 'completed' and resume == 'auto':
        _check_longer(cfg, work_dir)
    trust = options.trust_checkpoint
    if resume == 'auto':
        checkpoint = find_resumable(work_dir, trust, checkpoint_directory(cfg, work_dir))
    elif Path(resume).is_file():
        checkpoint = Path(resume)
    else:
        raise UserError(
            f'--resume {resume}: no such checkpoint; without a path it finds the newest'
        )
    if checkpoint is None:
        return
    check_resume(checkpoint, cfg, trust=trust)
    cfg.load_from = str(checkpoint)
    cfg.resume = True


def _status(work_dir: Path) -> str | None:
    """Status of the run in ``work_dir``; ``'damaged'`` when its record cannot be read."""
    if not (work_dir / FILE_NAME).exists():
        return None
    run = RunRecord.find(work_dir)
    return 'damaged' if run is None else status_of(work_dir, run)


def _occupied(work_dir: Path, status: str) -> str:
    """Why no new run starts in a directory, and what to do."""
    if status == 'completed':
        how = (
            'to train it for longer, give --resume and --cfg-options train_cfg.max_epochs=N (or '
            'max_iters) above what it has done'
        )
    else:
        how = 'go on with --resume'
    return (
        f'{work_dir} already holds a {status} run; {how}; or choose another --seed or --work-dir, '
        'or delete the directory'
    )


def _check_longer(cfg: Config, work_dir: Path) -> None:
    """Refuse to go on with a completed run, unless ``cfg`` trains for longer than it did."""
    run = RunRecord.load(work_dir)
    for length, done in (('max_epochs', run.epochs), ('max_iters', run.iterations)):
        planned = cfg.train_cfg.get(length)
        if planned is not None and planned <= done:
            raise UserError(
                f'{work_dir} holds a completed run of {done} {length.removeprefix("max_")}; raise '
                f'train_cfg.{length} with --cfg-options to go on, or choose another --seed'
            )


def train(cfg: Config, options: TrainOptions) -> int:
    """Run the training that :func:`prepare` described.

    Returns:
        An exit status of :mod:`bocb_mm.runs.exit_codes`: completed, diverged or interrupted.

    Raises:
        UserError: The work directory is in use, cannot be written, or a checkpoint does not fit.
        Exception: Whatever else ends the training; its record says ``failed`` and why.
    """
    if (cfg.get('randomness') or {}).get('deterministic'):
        # cuBLAS reads it once, when CUDA starts.
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    with process_group(cfg, options.launcher):
        return _train(cfg, options)


def build_runner(cfg: Config, trust_checkpoint: bool = False) -> Runner:
    """The Runner of a config that :func:`prepare` made; it starts from what the config says."""
    install_safe_loading(trust=trust_checkpoint)
    restart_loaders_at_once()
    runner = Runner.from_cfg(cfg)
    if not any(isinstance(hook, PretrainedHook) for hook in runner.hooks):
        runner.register_hook(PretrainedHook())
    return runner


def _train(cfg: Config, options: TrainOptions) -> int:
    """What every process does once it has joined the others."""
    if _is_first() and cfg.get('lr_source'):
        print(cfg.lr_source, flush=True)
    with RunLock.in_directory(_made(cfg.work_dir), enabled=_is_first()):
        with one_line_mistakes(cfg.filename_stem):
            runner = build_runner(cfg, options.trust_checkpoint)
            if task_of(cfg) in ('classification', 'detection'):
                check_heads(runner.model, runner.train_loop.dataloader.dataset)
        try:
            with one_line_mistakes(cfg.filename_stem):
                runner.train()
        except StoppedRun as stopped:  # a hook ended it in good order and wrote the record
            return stopped.exit_status
        except BaseException as error:
            lost = lost_peer(error)
            if is_main_process():
                record_failure(runner, error)
            if lost:
                text = 'error: another process of this training is gone; go on with --resume'
                print(text, file=sys.stderr, flush=True)
                return exit_codes.FAILED
            if _NOT_DETERMINISTIC in str(error):
                raise UserError(_name_operator(cfg, str(error))) from error
            raise
    return exit_codes.COMPLETED


_NOT_DETERMINISTIC = 'does not have a deterministic implementation'  # torch's own words


def _name_operator(cfg: Config, message: str) -> str:
    operator = message.partition(_NOT_DETERMINISTIC)[0].split()[-1:] or ['an operator']
    return (
        f'randomness.deterministic: {operator[0]}, which {backbone_name(cfg)} or its model uses, '
        'has no deterministic form on this device; set randomness.deterministic=False, or take '
        'another network'
    )


def _is_first() -> bool:
    return get_dist_info()[0] == 0 and int(os.environ.get('RANK', 0)) == 0


def _made(work_dir: str) -> str:
    try:
        Path(work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'work directory {work_dir}: {error.strerror}; name another one') from None
    return work_dir
