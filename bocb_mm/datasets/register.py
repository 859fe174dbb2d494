"""What this room adds to :data:`bocb_mm.registry.MODELS`; imports mmpretrain once it is built."""

from __future__ import annotations

from typing import Any

from bocb_mm.registry import MODELS


@MODELS.register_module()
def AugmentingDataPreprocessor(**kwargs: Any) -> Any:
    """Build :class:`bocb_mm.datasets.preprocessor.AugmentingDataPreprocessor`."""
    from bocb_mm.datasets.preprocessor import AugmentingDataPreprocessor as Preprocessor

    return Preprocessor(**kwargs)
