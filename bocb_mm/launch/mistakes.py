"""A mistake in a config that shows while its parts are built: one line that names the part."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import build_from_cfg

from bocb_mm.errors import UserError, unknown_name

# What wrong names, arguments and paths are refused with. Not RuntimeError and other OSErrors: those
# are of the machine.
_MISTAKES = (
    KeyError, TypeError, ValueError, AssertionError, IndexError, ImportError, FileNotFoundError,
    NotADirectoryError, IsADirectoryError, PermissionError,
)  # fmt: skip
_TOOLBOXES = {'mmengine', 'bocb_mm', *MODULE2PACKAGE}


@contextmanager
def one_line_mistakes(config: str) -> Iterator[None]:
    """Let an error of a part that is being built name the part, in one line.

    Code of the user's own keeps its traceback, and so does whatever goes wrong after building.

    Args:
        config: What the config is called in messages.

    Raises:
        UserError: In place of the error.
    """
    try:
        yield
    except UserError:
        raise
    except _MISTAKES as error:
        frames = list(traceback.walk_tb(error.__traceback__))
        building = [frame for frame, _ in frames if _builds(frame)]
        last, line = frames[-1]
        if not building or _is_own(last):
            raise
        part = next((f.f_locals for f in reversed(building) if f.f_code is _BUILD), None)
        told = _unknown(error, part) if part else ''
        if not told:
            where = '' if _builds(last) else f' ({last.f_globals.get("__name__")}, line {line})'
            told = f'{_name(part) if part else ""}{_said(error)}{where}'
        raise UserError(f'config {config}: {told}') from error


_BUILD = build_from_cfg.__code__


def _builds(frame: FrameType) -> bool:
    """Whether a function builds a part of a config, or the Runner of it."""
    name = frame.f_code.co_name
    of_runner = frame.f_globals.get('__name__') == 'mmengine.runner.runner'
    return frame.f_code is _BUILD or (
        of_runner and (name.startswith('build_') or name in ('__init__', 'scale_lr'))
    )


def _is_own(frame: FrameType) -> bool:
    """Whether the code is neither a toolbox's nor installed: the user will want to mend it."""
    file = frame.f_code.co_filename
    package = str(frame.f_globals.get('__name__')).partition('.')[0]
    installed = '-packages' in file or file.startswith(sysconfig.get_paths()['stdlib'])
    return package not in _TOOLBOXES and not installed and os.path.isabs(file)


def _name(part: Mapping[str, Any]) -> str:
    """A part in words: what it is, its type, and its data."""
    cfg = part['cfg'] if isinstance(part['cfg'], Mapping) else {}
    kind = cfg.get('type', '')
    words = [part['registry'].name, kind if isinstance(kind, str) else kind.__name__]
    data = [str(cfg[key]) for key in ('data_root', 'ann_file') if cfg.get(key)]
    return ' '.join(words) + (f' of {os.path.join(*data)}' if data else '') + ': '


def _unknown(error: BaseException, part: Mapping[str, Any]) -> str:
    """For a type that no registry has, the nearest it has; ``''`` for any other error."""
    registry, known = part['registry'], []
    if f'is not in the {registry.scope}::{registry.name} registry' not in str(error):
        return ''
    kind = registry.name
    while registry is not None:
        known += list(registry.module_dict)
        registry = registry.parent
    hint = 'modules of your own are named in custom_imports'
    return str(unknown_name(kind, str(part['cfg']['type']), known, hint))


def _said(error: BaseException) -> str:
    """What an error says, not too much of it, with its kind where that says more."""
    said = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    said = ' '.join(said.split())
    said = said if len(said) < 300 else f'{said[:300]} ...'
    spoken = isinstance(error, (ValueError, AssertionError, KeyError)) and ' ' in said
    return said if spoken else f'{type(error).__name__}: {said}'


def check_heads(model: Any, dataset: Any) -> None:
    """Refuse a classifier or detector with fewer classes than its data have.

    A detector would take the objects of the others for background without a word.

    Args:
        model: Of a Runner.
        dataset: That it is trained on.

    Raises:
        UserError: The head, and both numbers.
    """
    meta = getattr(dataset, 'metainfo', None) or {}
    classes = meta.get('thing_classes') or meta.get('classes') or ()  # panoptic: without the stuff
    for name, module in model.named_modules():
        n = getattr(module, 'num_classes', None)
        parts = [part for part in name.split('.') if not part.isdigit()]
        # Others tell objects from background only, or stuff.
        counts = parts[-1:] in (['head'], ['bbox_head']) and 'rpn_head' not in parts
        if isinstance(n, int) and counts and 0 < n < len(classes):
            shown = ', '.join(map(str, classes[:3])) + (', ...' if len(classes) > 3 else '')
            raise UserError(
                f'model.{name}.num_classes is {n}, but the training data have {len(classes)} '
                f'classes ({shown})'
            )
