"""Evaluation of a checkpoint: what ``tools/test.py`` calls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.runner import Runner

from bocb_mm.checkpoints.read import install_safe_loading, load_checkpoint
from bocb_mm.config import edit
from bocb_mm.config.describe import type_name
from bocb_mm.config.pretraining import drop_init
from bocb_mm.errors import UserError
from bocb_mm.launch.distributed import setup_distributed


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
    cfg.work_dir = work_dir or str(_beside(checkpoint, config))
    cfg.filename_stem = edit.config_stem(config)
    # A test writes no record, saves nothing and starts no watch over a training.
    cfg.custom_hooks = [h for h in cfg.get('custom_hooks') or [] if not _is_ours(h)]
    cfg.default_hooks = {
        k: v
        for k, v in (cfg.get('default_hooks') or {}).items()
        if k == 'checkpoint' or not _is_ours(v)
    }
    cfg.default_hooks['checkpoint'] = None
    install_safe_loading(trust=trust)
    setup_distributed(cfg, launcher)
    state = load_checkpoint(checkpoint, trust=trust)
    runner = Runner.from_cfg(cfg)
    _refuse_other_model(runner.model, state.get('state_dict', state), checkpoint)
    runner.load_checkpoint(checkpoint)
    metrics = runner.test()
    return {name: v.tolist() if hasattr(v, 'tolist') else v for name, v in metrics.items()}


def _beside(checkpoint: str, config: str) -> Path:
    """Where the logs of a test go by default."""
    if '://' in checkpoint:
        return Path('work_dirs', edit.config_stem(config), 'test')
    return Path(checkpoint).parent / 'test'


def _is_ours(hook: Any) -> bool:
    return type_name(hook).startswith('bocb_mm.')


def _refuse_other_model(model: Any, state: Mapping[str, Any], checkpoint: str) -> None:
    """A test of weights that were never loaded would print numbers of a random model."""
    model = getattr(model, 'module', model)
    wanted = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    given = {k.removeprefix('module.'): tuple(getattr(v, 'shape', ())) for k, v in state.items()}
    missing = [k for k in wanted if k not in given]
    wrong = [k for k in wanted if k in given and given[k] != wanted[k]]
    if missing or wrong:
        named = ', '.join((missing + wrong)[:3])
        raise UserError(
            f'{checkpoint}: not of this model: {len(missing)} of {len(wanted)} keys are missing, '
            f'{len(wrong)} have another shape (first: {named}); give the config it was trained with'
        )
