"""Registers the catalog with mmengine, scope ``bocb_mm``. The only module here that imports it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bocb_mm.optimizers.catalog import specs
from bocb_mm.optimizers.halves import by_roles_only
from bocb_mm.optimizers.libraries import LIBRARIES
from bocb_mm.registry import OPTIMIZERS

for _spec in specs():
    OPTIMIZERS.register_module(name=_spec.name, module=by_roles_only(_spec.cls))


def _library(find: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda name: by_roles_only(find(name))


OPTIMIZERS.libraries.update({name: _library(find) for name, find in LIBRARIES.items()})
