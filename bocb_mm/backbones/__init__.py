"""The 20 backbones of the paper for mmpretrain, mmdet and mmpose.

``type='bocb_mm.R-50'`` in a config, or ``build_backbone('R-50')`` in plain PyTorch. Importing this
package is cheap: torch and the MM packages are imported when the first network is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bocb_mm.backbones.catalog import CATALOG, catalog_table, get_spec, list_backbones
from bocb_mm.backbones.spec import BackboneSpec, Cifar, Parameters

if TYPE_CHECKING:
    import torch

__all__ = [
    'CATALOG',
    'BackboneSpec',
    'Cifar',
    'Parameters',
    'build_backbone',
    'catalog_table',
    'get_spec',
    'list_backbones',
]


def build_backbone(name: str, **kwargs: Any) -> torch.nn.Module:
    """A backbone with its official initialisation (or the weights ``init_cfg`` names).

    Args:
        name: A name of the catalog.
        **kwargs: See :func:`bocb_mm.backbones.build.build`.

    Returns:
        The network; its forward turns images (N, 3, H, W) into a tuple of maps
        (N, C, H/stride, W/stride), described by its ``channels`` and ``strides``.

    Raises:
        UserError: Unknown name or argument, or a value that the network cannot have.

    Example:
        >>> net = build_backbone('R-50', out_indices=(1, 2, 3))  # doctest: +SKIP
        >>> net.channels  # doctest: +SKIP
        (512, 1024, 2048)
    """
    from bocb_mm.backbones.build import build

    network = build(get_spec(name), **kwargs)
    network.init_weights()
    return network
