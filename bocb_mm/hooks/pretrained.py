"""PretrainedHook: loads the weights a config starts from by one loader, and counts them."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from bocb_mm.backbones.pretrained import Wanted, rename_for, take_wanted
from bocb_mm.backbones.weights import LEAST_SHARE, Loaded
from bocb_mm.registry import HOOKS

PRETRAINED_KEY = 'bocb_mm/pretrained'  # RunRecordHook copies this list into run.json


@HOOKS.register_module()
class PretrainedHook(Hook):
    """Load ``init_cfg=dict(type='Pretrained')`` of any part and ``load_from`` of any config.

    Containers, prefixes and names of other libraries are understood
    (:func:`bocb_mm.backbones.weights.load_pretrained`), where mmengine loads what has the very same
    name and goes on with random weights for the rest. The log says how much came from the file;
    where it was little, in a warning. A config's ``pretrained``, which ``tools/train.py`` sets for
    ``--pretrained``, must fit or the training stops. A resumed run loads nothing but its own
    checkpoint. ``tools/train.py`` has this hook in every run.

    Example:
        >>> custom_hooks = [dict(type='bocb_mm.PretrainedHook')]
    """

    priority = 'VERY_HIGH'  # before the hooks that measure, average or record the weights

    def __init__(self) -> None:
        self._wanted: list[Wanted] = []
        self._loaded: list[tuple[str, Loaded]] = []

    def before_run(self, runner: Runner) -> None:
        """Take the weights out of the parts' ``init_cfg``: they come once all parts are drawn."""
        self._wanted = take_wanted(_model(runner))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Give the tensors of ``load_from`` the model's names."""
        if runner.cfg.get('resume'):
            return
        self._load_wanted(runner)
        source = str(runner.cfg.get('load_from'))
        self._loaded.append(('', rename_for(_model(runner), checkpoint, source)))

    def before_train(self, runner: Runner) -> None:
        """Load what is wanted, and publish what was loaded."""
        if runner.iter > 0:  # resumed
            return
        self._load_wanted(runner)
        told = [
            {
                'part': part or 'model',
                'source': loaded.source,
                'tensors': loaded.n_loaded,
                'of': loaded.n_tensors,
                'share': loaded.share,
            }
            for part, loaded in self._loaded
        ]
        runner.message_hub.update_info(PRETRAINED_KEY, told)

    def _load_wanted(self, runner: Runner) -> None:
        for wanted in self._wanted:
            must_fit = wanted.checkpoint == runner.cfg.get('pretrained')
            loaded = wanted.load(LEAST_SHARE if must_fit else 0.0)
            self._loaded.append((wanted.part, loaded))
        self._wanted = []


def _model(runner: Runner) -> Any:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
