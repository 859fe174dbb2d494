"""Work-arounds for faults of the packages below us: one function each, with version and symptom.

Nothing here happens on import; tools and hooks call what they need.
"""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def allow_mmengine_checkpoints(types: Sequence[Any]) -> None:
    """Let plain ``torch.load`` read mmengine's own checkpoints, safely.

    mmengine 0.10.7 on torch >= 2.6: ``Runner.resume`` raises ``UnpicklingError: Weights only load
    failed ... Unsupported global: mmengine.logging.history_buffer.HistoryBuffer``, because
    torch.load now reads weights only and mmengine stores a history of logged values beside them.

    Args:
        types: What is allowed, for the whole process: the types that mmengine stores.
    """
    import torch

    torch.serialization.add_safe_globals(list(types))


@contextmanager
def writing_directly() -> Iterator[None]:
    """Within the block, ``Runner.save_checkpoint`` writes its file as it goes along.

    mmengine 0.10.7's ``save_checkpoint`` builds the file in memory, copies it and writes the copy:
    twice the time, and memory for two more checkpoints. There is no argument against it.

    Raises:
        OSError: From within: the file cannot be written whole.
    """
    import torch
    from mmengine.runner import runner

    def save(checkpoint: dict[str, Any], filename: str, **_: Any) -> None:
        with Path(filename).open('wb') as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # the archive's writer, after the disk refused
                raise (error.__context__ or OSError(str(error))) from None

    original = runner.save_checkpoint
    runner.save_checkpoint = save
    try:
        yield
    finally:
        runner.save_checkpoint = original


def average_before_loading() -> None:
    """Let ``EMAHook`` have its copy of the model when a ``FlexibleRunner`` loads a checkpoint.

    mmengine 0.10.7's FlexibleRunner loads before it calls ``before_run``, where EMAHook makes the
    copy: every resume ends in ``'EMAHook' object has no attribute 'ema_model'``.
    """
    from mmengine.hooks import EMAHook
    from mmengine.runner._flexible_runner import FlexibleRunner

    original = FlexibleRunner.load_or_resume
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def load_or_resume(runner: FlexibleRunner) -> None:
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                hook.before_run(runner)
                # The runner's own call, which comes after loading, would copy the model anew.
                hook.before_run = lambda _, hook=hook: hook.__dict__.pop('before_run')
        original(runner)

    FlexibleRunner.load_or_resume = load_or_resume


def quiet_pkg_resources() -> None:
    """Leave out the warning that pkg_resources is deprecated.

    mmengine 0.10.7 loads pkg_resources anew for each ``_base_ = 'mmdet::...'``, and setuptools 80
    warns every time: two lines a base, over a hundred for a study of twenty configs.
    """
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated')


def read_metafiles_once() -> None:
    """Let mmengine read a toolbox's metafiles once a process.

    mmengine 0.10.7 parses all of a package's metafiles, some hundred YAML files, for each
    ``_base_ = 'mmpretrain::...'``: 0.65 s a base, one to three seconds a config of ours.
    """
    from mmengine.config import utils

    if not hasattr(utils.load, 'cache_info'):
        utils.load = functools.cache(utils.load)


def find_our_bases(find: Callable[[str], Path]) -> None:
    """Let a config name one of ours: ``_base_ = 'bocb_mm::pretrain/cifar100/cnx-t.py'``.

    mmengine 0.10.7 knows the packages that configs may come from by a list of its own, and ends in
    ``AssertionError: mmengine does not support to load bocb_mm config`` for any other. On that
    list, it would look up all of a base's classes in our registries instead of the toolbox's: the
    base is therefore handed over as a file.

    Args:
        find: Finds the file of the name behind ``bocb_mm::``.
    """
    from mmengine.config import Config

    original = Config._get_cfg_path
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def path_and_scope(cfg_path: str, filename: str) -> Any:
        package, colons, name = cfg_path.partition('::')
        ours = bool(colons) and package == 'bocb_mm'
        return (str(find(name)), None) if ours else original(cfg_path, filename)

    Config._get_cfg_path = staticmethod(path_and_scope)  # type: ignore[method-assign]


def lay_out_config_once() -> None:
    """Let mmengine lay a config's text out once in a process, not anew for every use.

    mmengine 0.10.7 runs yapf over the whole config whenever its text is wanted: at the start, for
    each logger and for every checkpoint. That is 0.2 s of processor time each, a fifth of a
    one-epoch trial of the search.
    """
    from mmengine.config import config

    if hasattr(config.FormatCode, 'laid_out'):
        return
    original, laid_out = config.FormatCode, {}

    def once(text: str, **style: Any) -> Any:
        if text not in laid_out:
            laid_out[text] = original(text, **style)
        return laid_out[text]

    once.laid_out = laid_out  # type: ignore[attr-defined]
    config.FormatCode = once


def resumed_from(runner: Any) -> str | None:
    """Where a training goes on from; ``None`` for one that starts anew.

    mmengine 0.10.7 calls ``after_load_checkpoint`` alike for weights to start from and for a run
    to go on with, and says in no public attribute which of the two it is.
    """
    if not getattr(runner, '_resume', False):
        return None
    return str(getattr(runner, '_load_from', None) or runner.work_dir)


def accumulative_counts(wrapper: Any) -> int:
    """Batches whose gradients a step of the optimizer wrapper adds up.

    mmengine 0.10.7 takes ``accumulative_counts`` and shows it in no public attribute.
    """
    return int(getattr(wrapper, '_accumulative_counts', 1))


def batches_seen(wrapper: Any) -> int:
    """Batches an optimizer wrapper has had; mmengine 0.10.7 counts them in private."""
    return int(wrapper._inner_count)


def restart_sampler(sampler: Any) -> None:
    """Let an ``InfiniteSampler`` begin anew with the seed it has now.

    mmengine 0.10.7 draws from an iterator made when the sampler was built, which a worker may have
    read ahead of and which a new seed does not reach. Other samplers begin anew by themselves.
    """
    if hasattr(sampler, '_indices_of_rank'):
        sampler.indices = sampler._indices_of_rank()


def update_val_interval(loop: Any) -> None:
    """Set ``loop.val_interval`` by ``dynamic_intervals`` for where the training stands.

    mmengine 0.10.7 does so in the course of training only, by a private method.
    """
    loop._decide_current_val_interval()


def start_iterator_at(iterator: Any, round_: int) -> None:
    """Let an iteration-based loop's endless iterator count its passes over the data from one on.

    mmengine 0.10.7 starts it at 0, and gives it to the sampler as the epoch of the next pass.
    """
    iterator._epoch = round_


def restart_loaders_at_once() -> None:
    """Let an iteration-based loop go on to the next pass over the data without a pause.

    mmengine 0.10.7 sleeps for 2 s there to "prevent possible deadlock"; its epoch-based loop
    restarts the same loaders without. On 1,437 digits that was half of a run's time.
    """
    from mmengine.runner import loops

    loops.time = SimpleNamespace(sleep=lambda seconds: None)  # all that the module has of time


def keypoint_mask(loss: Any, target: Any, weights: Any, mask: Any) -> Any:
    """The weights by which mmpose's ``KeypointMSELoss`` multiplies its squared differences.

    mmpose 1.3.2 combines target weights, mask and ignored zeros in a private method.
    """
    return loss._get_mask(target, weights, mask)


def count_as_stepped(optimizer: Any, steps: int) -> None:
    """Tell mmengine that an optimizer has stepped before its schedules are built anew.

    mmengine 0.10.7 warns otherwise that a scheduler steps before its optimizer.
    """
    optimizer._global_step = steps


def read_checkpoints_with(load: Any) -> None:
    """Let mmengine's ``CheckpointLoader`` read every kind of address with one function.

    mmengine 0.10.7 keeps the kinds it knows in a private attribute.
    """
    from mmengine.runner.checkpoint import CheckpointLoader

    CheckpointLoader.register_scheme(list(CheckpointLoader._schemes), load, force=True)


def models_of_mmpretrain() -> dict[str, Any]:
    """Entries of mmpretrain's metafiles by model name, in lower case.

    mmpretrain 1.2.0 has a public function for one model only, which downloads or builds it.
    """
    from mmpretrain.apis.model import ModelHub, list_models

    list_models()  # fills the hub
    return ModelHub._models_dict


def read_bfloat16_in_mmpose() -> None:
    """Let mmpose's heads log the accuracy of bfloat16 outputs.

    mmpose 1.3.2 hands tensors to numpy as they are, which has no bfloat16: every loss of a pose
    model in bf16 ends in ``TypeError: Got unsupported ScalarType BFloat16``. Nothing happens where
    mmpose is not imported.
    """
    tensors = sys.modules.get('mmpose.utils.tensor_utils')
    if tensors is None or hasattr(tensors.to_numpy, '__wrapped__'):
        return
    import torch

    original = tensors.to_numpy

    @functools.wraps(original)
    def to_numpy(x: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, torch.Tensor) and x.dtype is torch.bfloat16:
            x = x.float()
        return original(x, *args, **kwargs)

    for name, module in list(sys.modules.items()):
        if name.startswith('mmpose.') and getattr(module, 'to_numpy', None) is original:
            module.to_numpy = to_numpy  # type: ignore[attr-defined]


def stay_on_cpu() -> None:
    """Let this process train on the CPU although the machine has a GPU.

    mmengine 0.10.7 asks once, when it is imported, which device there is: a forked process that
    hides the GPUs from itself would still move its model to one. Where mmengine is not imported
    yet, hiding them is enough, and an import would cost each trial a second.
    """
    import os
    import sys

    os.environ['CUDA_VISIBLE_DEVICES'] = '-1'
    utils: Any = sys.modules.get('mmengine.device.utils')
    if utils is not None:
        utils.DEVICE = 'cpu'


def let_ray_clients_show_their_token() -> None:
    """Make ``ray.init('ray://...')`` send the user's token, as Ray's other ways to connect do.

    Ray 2.60: its first start on a machine writes ``~/.ray/auth_token``, and every ``ray start``
    asks for a token from then on; only the client sends none unless ``RAY_AUTH_MODE`` is set, and
    ends after 30 s with ``ConnectionError: ray client connection timeout``. Ray reads the variable
    when it is imported.
    """
    file = os.environ.get('RAY_AUTH_TOKEN_PATH') or os.path.expanduser('~/.ray/auth_token')
    if os.environ.get('RAY_AUTH_TOKEN') or os.path.exists(file):
        os.environ.setdefault('RAY_AUTH_MODE', 'token')
