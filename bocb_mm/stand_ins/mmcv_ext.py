"""What ``import mmcv._ext`` gives where mmcv is installed without its compiled operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bocb_mm.stand_ins import operators

globals().update(operators.OPERATORS)


def __getattr__(name: str) -> Callable[..., Any]:
    """An operator without a stand-in: mmcv.ops asks for all of them, a call raises."""
    if name.startswith('__'):
        raise AttributeError(name)
    return operators.missing(name)
