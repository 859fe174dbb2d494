"""Warnings of a training: in its log, and in ``run.json`` for those who read that later."""

from __future__ import annotations

from typing import Any

KEY = 'bocb_mm/warnings'
"""Where mmengine's message hub keeps them."""


def warn(runner: Any, text: str) -> None:
    """Put a warning into a runner's log and, once, among those that ``run.json`` shows.

    Args:
        runner: An mmengine runner.
        text: One line.
    """
    runner.logger.warning(text)
    known = list(runner.message_hub.runtime_info.get(KEY, []))
    if text not in known:
        runner.message_hub.update_info(KEY, [*known, text])
