"""Evaluation of a checkpoint: what ``tools/test.py`` calls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.runner import Runner
from torch import nn

from bocb_mm.backbones.matching import best_match, some
from bocb_mm.backbones.pretrained import loaded_by_itself
from bocb_mm.backbones.weights import report
from bocb_mm.checkpoints.contents import parameters_of
from bocb_mm.checkpoints.read import install_safe_loading, load_checkpoint
from bocb_mm.config import edit
from bocb_mm.config.describe import type_name
from bocb_mm.config.pretraining import drop_init
from bocb_mm.errors import UserError
from bocb_mm.launch.distributed import process_group
from bocb_mm.launch.mistakes import one_line_mistakes


def evaluate(
    config: str,
    checkpoint: str,
    *,
    work_dir: str | None = None,
    launcher: str = 'none',
    trust: bool = False,
    cfg_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Metrics of ``checkpoint`` on the test set of ``config``.

    Args:
        config: Config file, or ``mmdet::...`` and the like.
        checkpoint: File or address; all weights of the model must be in it.
        work_dir: Where logs go; default: ``test`` beside the checkpoint, for an address
            ``work_dirs/<config>/test``.
        launcher: As in :class:`bocb_mm.launch.train.TrainOptions`.
        trust: Load a checkpoint that can run any code.
        cfg_options: Overrides of the config.

    Returns:
        Metric name to value, as mmengine's evaluator gives them; arrays as lists.

    Raises:
        UserError: The config has no test set, its data are not there, or the checkpoint is of
            another model.
    """
    cfg = edit.load_config(config, cfg_options)
    if not cfg.get('test_dataloader'):
        raise UserError(
            f'config {config}: has no test_dataloader, so there is nothing to test on; add '
            'one, e.g. test_dataloader = val_dataloader'
        )
    edit.check_data(cfg, ('test_dataloader',))
    drop_init(cfg)
    cfg.resume = False
    cfg.work_dir = work_dir or str(_beside(checkpoint, config))
    cfg.filename_stem = edit.config_stem(config)
    cfg.custom_hooks = [h for h in cfg.get('custom_hooks') or [] if not _for_training(h)]
    cfg.default_hooks = {
        k: v
        for k, v in (cfg.get('default_hooks') or {}).items()
        if k == 'checkpoint' or not _for_training(v)
    }
    cfg.default_hooks['checkpoint'] = None
    install_safe_loading(trust=trust)
    with process_group(cfg, launcher):
        content = load_checkpoint(checkpoint)
        with one_line_mistakes(cfg.filename_stem):
            runner = Runner.from_cfg(cfg)
        _load_all(getattr(runner.model, 'module', runner.model), content, checkpoint)
        if is_main_process():
            print(f'weights: {weights_in(content)}')
        with one_line_mistakes(cfg.filename_stem):
            metrics = runner.test()
    return {name: v.tolist() if hasattr(v, 'tolist') else v for name, v in metrics.items()}


def _beside(checkpoint: str, config: str) -> Path:
    """Where the logs of a test go by default."""
    if '://' in checkpoint:
        return Path('work_dirs', edit.config_stem(config), 'test')
    return Path(checkpoint).parent / 'test'


def _for_training(hook: Any) -> bool:
    """Whether a hook has nothing to do in a test.

    Ours write a record, save, and watch over a training. EMAHook averages; the average is already
    what a checkpoint has in its ``state_dict``.
    """
    name = type_name(hook)
    return name.startswith('bocb_mm.') or name.endswith('EMAHook')


def _load_all(model: nn.Module, content: dict[str, Any], checkpoint: str) -> None:
    """Load every tensor, or refuse: a test of weights never loaded would be of a random model."""
    weights = parameters_of(content, checkpoint)
    match = best_match(model, weights, checkpoint)
    missing = report(model, match, checkpoint).fresh
    if missing:
        own = loaded_by_itself(model, weights, checkpoint)
        if own is not None and not own.fresh:
            return  # loaded: the toolbox knows its own older names
        wrong = [name for name in missing if name in match.weights]
        raise UserError(
            f'{checkpoint}: not of this model: {len(missing) - len(wrong)} of '
            f'{len(model.state_dict())} keys are missing, {len(wrong)} have another shape (first: '
            f'{some(missing)}); give the config it was trained with'
        )
    model.load_state_dict(match.weights, strict=False)


def weights_in(content: Mapping[str, Any]) -> str:
    """Which weights a checkpoint holds, in words.

    Example:
        >>> weights_in({'state_dict': {}, 'ema_state_dict': {}, 'meta': {'epoch': 3, 'iter': 90}})
        'the exponential moving average (EMAHook) at epoch 3, iteration 90'
    """
    meta = content.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    named = [
        f'{word} {meta[key]}'
        for word, key in (('epoch', 'epoch'), ('iteration', 'iter'))
        if key in meta
    ]
    averaged = 'ema_state_dict' in content
    what = 'the exponential moving average (EMAHook)' if averaged else 'the trained ones'
    return f'{what} at {", ".join(named)}' if named else what
