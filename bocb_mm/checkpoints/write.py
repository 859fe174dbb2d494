"""Writing a checkpoint so that a file under its name is always a complete one that can be read."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.runner import Runner

from bocb_mm.checkpoints.read import (
    UnsafeCheckpointError,
    check_archive,
    is_trusting,
    load_checkpoint,
)
from bocb_mm.checkpoints.rotation import TEMPORARY
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
        CheckpointError: It holds what :func:`bocb_mm.checkpoints.read.load_checkpoint` would
            refuse: saving again would be of no use.
    """
    temporary = path.with_name(TEMPORARY.format(path.name))
    try:
        with writing_directly():
            runner.save_checkpoint(str(path.parent), temporary.name, **options)
        if is_main_process():
            with temporary.open('rb') as file:
                os.fsync(file.fileno())
            _read_back(temporary)
            temporary.replace(path)
            sync_directory(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _read_back(path: Path) -> None:
    """Compare all checksums, and let the reader go through everything but the tensors' numbers."""
    try:
        check_archive(path)
        load_checkpoint(path, trust=is_trusting(), lazy=True)
    except UnsafeCheckpointError as error:
        raise CheckpointError(f'not saved, it could not be read back: {error}') from None
    except CheckpointError as error:
        raise OSError(f'what was read back differs: {error}') from None
