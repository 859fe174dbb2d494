"""Runs a shipped shell script as a sub-command, with the Python that runs now."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

from bocb_mm import shipped


def run_script(name: str, argv: Sequence[str] | None, config_at: int | None = None) -> int:
    """Run ``tools/<name>`` in place of this process, so that signals reach it.

    Args:
        name: The script's file name.
        argv: Its arguments; ``None`` for those of this process.
        config_at: Which of them is the config, found by name as everywhere; ``None``: none is.

    Returns:
        Exit status of the script's help; otherwise it does not return.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    script = shipped.root() / 'tools' / name
    if not words or words[0] in ('-h', '--help'):
        print(usage(script.read_text(encoding='utf-8'), sys.argv[0]))
        return 0 if words else 2
    if config_at is not None and len(words) > config_at:
        words[config_at] = shipped.find_config(words[config_at])
    sys.stdout.flush()
    environment = {**os.environ, 'PYTHON': sys.executable}
    os.execvpe('bash', ['bash', str(script), *words], environment)


def usage(text: str, command: str) -> str:
    r"""The comment at the top of a script, which says how it is called, as ``command`` is called.

    Example:
        >>> usage('#!/bin/sh\n# Usage: bash tools/x.sh N [train.py arguments]\nset -e\n', 'bocb x')
        'Usage: bocb x N [arguments of bocb train]'
    """
    lines = text.splitlines()[1:]
    head = [line[1:].removeprefix(' ') for line in lines[: _first_code(lines)]]
    shown = re.sub(r'bash tools/\w+\.sh', command, '\n'.join(head))
    return re.sub(r'(\w+)\.py( work)? arguments', r'arguments of bocb \1\2', shown)


def _first_code(lines: Sequence[str]) -> int:
    return next((i for i, line in enumerate(lines) if not line.startswith('#')), len(lines))
