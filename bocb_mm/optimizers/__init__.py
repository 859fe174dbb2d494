"""Optimizers in plain PyTorch: catalog, builder, and the classes by the names of the catalog."""

from typing import Any

from bocb_mm import facts
from bocb_mm.optimizers.build import (
    build_optimizer,
    catalog_table,
    get_spec,
    list_optimizers,
    try_out,
)
from bocb_mm.optimizers.spec import CATEGORIES, RECIPES, Default, OptimizerSpec

__all__ = [
    'CATEGORIES',
    'RECIPES',
    'Default',
    'OptimizerSpec',
    'build_optimizer',
    'catalog_table',
    'get_spec',
    'list_optimizers',
    'try_out',
]


def __getattr__(name: str) -> Any:
    """The class of a row of the catalog, spelled as there."""
    if name in facts.OPTIMIZERS:
        return get_spec(name).cls
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    """What the module has, the classes of the catalog included."""
    return sorted([*globals(), *facts.OPTIMIZERS])
