"""Processes that start in milliseconds, because a server that has imported everything forks them."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def fork_server(script: Path, warm: str) -> Iterator[tuple[Any, Any]]:
    """A multiprocessing context whose processes have a script loaded, and that script as a module.

    Args:
        script: What its processes run functions of.
        warm: Environment variable that makes the script do its heavy imports at once.
    """
    here = [str(script.parent), str(script.parents[1])]
    environment = {
        'PYTHONPATH': os.pathsep.join([*here, str(script.parents[2])]),
        warm: '1',
        'OMP_NUM_THREADS': '1',
    }
    before = {k: os.environ.get(k) for k in environment}
    os.environ.update(environment)
    sys.path[:0] = here
    try:
        context = multiprocessing.get_context('forkserver')
        context.set_forkserver_preload([script.stem])
        yield context, importlib.import_module(script.stem)
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})
