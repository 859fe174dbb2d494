"""Every name of the catalog as a ``type`` in :data:`bocb_mm.registry.MODELS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bocb_mm.backbones.catalog import CATALOG
from bocb_mm.backbones.spec import BackboneSpec
from bocb_mm.registry import MODELS


def _builder(spec: BackboneSpec) -> Callable[..., Any]:
    def build(**kwargs: Any) -> Any:
        from bocb_mm.backbones.build import build as build_row

        return build_row(spec, **kwargs)

    build.__name__ = spec.name
    build.__doc__ = f'{spec.paper_name}, built from {spec.source}.'
    return build


def register_all() -> None:
    """Register each backbone under its short name, its long name and its aliases."""
    for spec in CATALOG.values():
        names = {n.lower(): n for n in (*spec.aliases, spec.paper_name, spec.name)}
        MODELS.register_module(name=list(names.values()), module=_builder(spec), force=True)


register_all()
