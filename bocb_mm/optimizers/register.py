"""Registers the catalog with mmengine, scope ``bocb_mm``. The only module here that imports it."""

from __future__ import annotations

from bocb_mm.optimizers.catalog import specs
from bocb_mm.optimizers.libraries import LIBRARIES
from bocb_mm.registry import OPTIMIZERS

for _spec in specs():
    OPTIMIZERS.register_module(name=_spec.name, module=_spec.cls)

OPTIMIZERS.libraries.update(LIBRARIES)
