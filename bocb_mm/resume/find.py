"""Going on with a run: which checkpoint, whether it fits, and what a changed setting means."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bocb_mm.checkpoints.read import is_torch_archive, load_checkpoint
from bocb_mm.config.describe import type_name
from bocb_mm.errors import CheckpointError, UserError

STATE_KEY = 'bocb_mm'  # where a checkpoint of SafeCheckpointHook holds what it adds
_NEEDED = ('meta', 'state_dict', 'optimizer', 'message_hub')
_KINDS: dict[tuple[str, ...], Any] = {
    ('meta', 'epoch'): int,
    ('meta', 'iter'): int,
    ('param_schedulers',): (list, dict),
    (STATE_KEY,): dict,
    (STATE_KEY, 'settings'): dict,
    (STATE_KEY, 'plan'): dict,
    (STATE_KEY, 'processes'): list,
    (STATE_KEY, 'position'): dict,
    (STATE_KEY, 'gradients'): dict,
}
_log = logging.getLogger('bocb_mm')


def find_resumable(
    work_dir: str | os.PathLike[str],
    trust: bool = False,
    out_dir: str | os.PathLike[str] | None = None,
) -> Path | None:
    """The complete training checkpoint of ``work_dir`` that has gone furthest.

    Damaged and foreign files are named in the log and passed over. What has gone furthest is read
    in the files, as their dates mean nothing after a copy or a change of the clock. Names do not
    matter either, only what a file holds.

    Args:
        work_dir: A run's directory; checkpoints that its ``last_checkpoint`` says are elsewhere
            are found too.
        trust: As in :func:`bocb_mm.checkpoints.read.load_checkpoint`.
        out_dir: Another directory with checkpoints of the run.

    Returns:
        The path, or ``None`` when there is nothing to go on from.

    Raises:
        CheckpointError: There are checkpoints, and a run can go on from none of them: a new one
            would overwrite them.

    Example:
        >>> find_resumable('work_dirs/r50')  # doctest: +SKIP
        PosixPath('work_dirs/r50/epoch_7.pth')
    """
    last = _last_checkpoint(Path(work_dir))
    found: list[tuple[tuple[int, int, bool], Path]] = []
    refused: dict[Path, str] = {}
    for path in _candidates(Path(work_dir), last, out_dir):
        try:
            if path.name.startswith('best_') and path != last:  # saved without the optimizer
                refused[path] = f'{path}: is the best one, without the state of the optimizer'
                continue
            meta = load_checkpoint(path, trust=trust, lazy=True)['meta']
            found.append(((int(meta['iter']), int(meta['epoch']), path == last), path))
        except CheckpointError as error:
            refused[path] = str(error)
            _log.warning('%s; not resumed from', error)
        except (KeyError, TypeError, ValueError):
            _log.warning('%s: not a checkpoint of a training; not resumed from', path)
    for _, path in sorted(found, reverse=True):
        try:
            check_content(load_checkpoint(path, trust=trust), path)
            return path
        except CheckpointError as error:
            refused[path] = str(error)
            _log.warning('%s; the one before is taken', error)
    if refused:
        raise CheckpointError(_none_left(Path(work_dir), refused))
    return None


def checkpoint_directory(cfg: Any, work_dir: str | os.PathLike[str]) -> Path | None:
    """Where a config's checkpoint hook saves, if that is not the run's own directory."""
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]
    for hook in hooks:
        if type_name(hook).endswith('CheckpointHook') and hook.get('out_dir'):
            return Path(hook['out_dir'], Path(work_dir).name)  # as mmengine puts them together
    return None


def _none_left(work_dir: Path, refused: dict[Path, str]) -> str:
    names = ', '.join(path.name for path in list(refused)[:5])
    more = f' and {len(refused) - 5} more' if len(refused) > 5 else ''
    return (
        f'{work_dir}: cannot be resumed from any of its checkpoints ({names}{more}), and a new run '
        f'would overwrite them; {next(reversed(refused.values()))}; to start anew, move them away '
        'or choose another --work-dir'
    )


def _last_checkpoint(work_dir: Path) -> Path | None:
    try:
        text = (work_dir / 'last_checkpoint').read_text(encoding='utf-8').strip()
    except (OSError, ValueError):
        return None
    if not text or '\0' in text or len(text) > 4000:
        return None
    beside = work_dir / Path(text).name  # the directory may have been moved
    return beside if beside.is_file() else Path(text)


_ENDINGS = ('.pth', '.pt', '.ckpt')


def _candidates(
    work_dir: Path, last: Path | None, out_dir: str | os.PathLike[str] | None
) -> Iterable[Path]:
    """Every file that is a checkpoint by its name's ending or its first bytes."""
    directories = {work_dir, work_dir if last is None else last.parent}
    if out_dir is not None:
        directories.add(Path(out_dir))
    for directory in sorted(directories):
        if directory.is_dir():
            for path in sorted(directory.iterdir()):
                if path.name.startswith('.') or not path.is_file():
                    continue
                if path == last or path.suffix in _ENDINGS or is_torch_archive(path):
                    yield path


def check_content(checkpoint: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Refuse a checkpoint that a training cannot go on from.

    Raises:
        CheckpointError: Parts are missing; it names them.
    """
    missing = [key for key in _NEEDED if not isinstance(checkpoint.get(key), dict)]
    if missing:
        raise CheckpointError(
            f'{os.fspath(path)}: cannot be resumed, it has no {", ".join(missing)}; to start from '
            'its weights alone, give --pretrained'
        )
    wrong = [name for name in ('epoch', 'iter') if name not in checkpoint['meta']]
    for place, kind in _KINDS.items():
        part: Any = checkpoint
        for key in place:
            part = part.get(key) if isinstance(part, dict) else None
        if part is not None and not isinstance(part, kind):
            wrong.append('.'.join(place))
    if wrong:
        raise CheckpointError(
            f'{os.fspath(path)}: cannot be resumed, its {", ".join(wrong)} makes no sense; take '
            'another, or start from its weights alone with --pretrained'
        )


def check_resume(
    checkpoint: str | os.PathLike[str], cfg: Any, trust: bool = False
) -> dict[str, Any]:
    """Refuse early, before anything is built, what :class:`SafeCheckpointHook` would refuse later.

    Args:
        checkpoint: The file a run is to go on from.
        cfg: The config it is to go on with.
        trust: As in :func:`bocb_mm.checkpoints.read.load_checkpoint`.

    Returns:
        The checkpoint's meta.

    Raises:
        UserError: Not a training checkpoint, or of another optimizer or batch size.
    """
    content = load_checkpoint(checkpoint, trust=trust, lazy=True)
    check_content(content, checkpoint)
    saved = (content.get(STATE_KEY) or {}).get('settings') or {}
    compare(saved, settings_of_config(cfg), os.fspath(checkpoint))
    meta, planned = content['meta'], cfg.get('train_cfg') or {}
    for done, length in (('epoch', 'max_epochs'), ('iter', 'max_iters')):
        if meta[done] > (planned.get(length) or math.inf):
            raise UserError(
                f'{checkpoint}: is of {done} {meta[done]}, and train_cfg.{length} is '
                f'{planned[length]}; raise that with --cfg-options, or take an earlier checkpoint'
            )
    return meta


def settings_of_config(cfg: Any) -> dict[str, Any]:
    """What of a config must stay the same, as far as it tells: optimizer and batch size."""
    wrapper = cfg.get('optim_wrapper') or {}
    name = type_name(wrapper.get('optimizer')) if hasattr(wrapper, 'get') else ''
    loader = cfg.get('train_dataloader')
    batch = None
    if hasattr(loader, 'get'):
        batch = loader.get('batch_size') or (loader.get('batch_sampler') or {}).get('batch_size')
    return {
        'optimizer': name.rpartition('.')[2].lower() if name else None,
        'batch_size': batch,
    }


_REASONS = {
    'optimizer': 'its state means nothing to another optimizer',
    'origins': 'the other has no use for its state',
    'parameters': 'its parameters are grouped or frozen in another way',
    'batch_size': 'epochs would have another length and the schedule another meaning',
    'batches': 'the data set has another length',
    'world_size': 'the total batch size and the random numbers of the processes would differ',
}


def compare(saved: dict[str, Any], now: dict[str, Any], where: str) -> None:
    """Refuse to go on with settings that cannot be changed in the middle of a run.

    Args:
        saved: Settings in the checkpoint; what is missing or ``None`` is not compared.
        now: Settings of the run.
        where: The checkpoint's path.

    Raises:
        UserError: One differs; both values and the reason are in the message.
    """
    saved = {'origins': _origin_of_old(saved), **saved}
    for name, reason in _REASONS.items():
        was, is_now = saved.get(name), now.get(name)
        if was is None or is_now is None or was == is_now:
            continue
        if name == 'origins':
            if {*was} & {*is_now}:
                continue
            name, was, is_now = 'optimizer', was[0], is_now[0]
        raise UserError(
            f'{where}: cannot be resumed, {name} was {_short(was)} and is now '
            f'{_short(is_now)} ({reason}); keep it, or start a new run from its weights'
        )


def _origin_of_old(saved: dict[str, Any]) -> list[str] | None:
    """The origin by the class's name alone, which earlier releases saved."""
    if 'algorithm' not in saved:
        return None
    package, _, name = saved['algorithm'].lower().partition('.')
    return [f'{package}.{name.rpartition(".")[2]}']


def origins_of(optimizer: type) -> list[str]:
    """Which libraries' optimizers a class is: one's state means nothing to its namesake elsewhere.

    Ours that are PyTorch's own with other arguments are both.

    Example:
        >>> import torch
        >>> origins_of(torch.optim.AdamW)
        ['torch.adamw']
    """
    name = optimizer.__qualname__.lower()
    return [
        f'{kind.__module__.partition(".")[0]}.{name}'
        for kind in optimizer.__mro__
        if kind.__qualname__.lower() == name
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
