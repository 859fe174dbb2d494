"""Writing a checkpoint so that a file under its name is always a complete one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.runner import Runner

from bocb_mm.checkpoints.read import check_archive
from bocb_mm.compat import writing_directly
from bocb_mm.errors import CheckpointError
from bocb_mm.runs.files import sync_directory


def save_atomically(runner: Runner, path: Path, **options: Any) -> None:
    """``runner.save_checkpoint`` to a temporary file, flushed, read back and renamed.

    Args:
        runner: The runner; all its ``before_save_checkpoint`` hooks are called.
        path: Where the checkpoint belongs.
        **options: As ``runner.save_checkpoint`` takes them.

    Raises:
        OSError: The disk is full or read-only, or did not keep what was written; a file that was
            at ``path`` is as it was.
    """
    temporary = path.with_name(f'.{path.name}.tmp')
    try:
        with writing_directly():
            runner.save_checkpoint(str(path.parent), temporary.name, **options)
        if is_main_process():
            with temporary.open('rb') as file:
                os.fsync(file.fileno())
            check_archive(temporary)
            temporary.replace(path)
            sync_directory(path.parent)
    except CheckpointError as error:
        _remove(temporary)
        raise OSError(f'what was read back differs: {error}') from None
    except BaseException:
        _remove(temporary)
        raise


def _remove(temporary: Path) -> None:
    with suppress(OSError):
        temporary.unlink()
