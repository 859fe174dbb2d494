"""The catalog: ``facts/optimizers.csv`` with the classes. A new optimizer is a row there."""

from __future__ import annotations

import importlib

from bocb_mm import facts
from bocb_mm.optimizers.spec import OptimizerSpec


def spec_of(row: facts.Optimizer) -> OptimizerSpec:
    """The catalog row of an optimizer: its facts, its class and its sourced defaults."""
    module, _, name = row.class_path.rpartition('.')
    sourced = {r: default for (o, r), default in facts.DEFAULTS.items() if o == row.name}
    cls = getattr(importlib.import_module(module), name)
    return OptimizerSpec(**vars(row), cls=cls, sourced=sourced)


def specs() -> list[OptimizerSpec]:
    """All rows, the paper's first; a row added to the facts is there at once."""
    return [spec_of(row) for row in facts.OPTIMIZERS.values()]
