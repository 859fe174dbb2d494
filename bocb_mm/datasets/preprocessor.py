"""mmpretrain's data preprocessor with augmentations of the batch before the normalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmpretrain.models import ClsDataPreprocessor

from bocb_mm.registry import TRANSFORMS


class AugmentingDataPreprocessor(ClsDataPreprocessor):
    """Augment the batch on its device, then normalise it and mix it up as mmpretrain does.

    One number of NumPy's global generator is taken a batch, so that the run's seed decides and a
    resumed run goes on bit-equal; processes, which share that seed, draw different augmentations.

    Args:
        batch_transforms: What to do with a training batch, in this order, e.g.
            ``[dict(type='bocb_mm.BatchRandomErasing', erase_prob=0.25)]``.
        **kwargs: ClsDataPreprocessor's.

    Example:
        >>> crop = dict(type='bocb_mm.BatchRandomResizedCrop', scale=64)
        >>> pre = AugmentingDataPreprocessor([crop])
        >>> batch = {'inputs': torch.zeros(2, 3, 32, 32, dtype=torch.uint8)}
        >>> tuple(pre(batch, training=True)['inputs'].shape)
        (2, 3, 64, 64)
    """

    def __init__(self, batch_transforms: Sequence[Mapping[str, Any]] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch_transforms = [TRANSFORMS.build(dict(t)) for t in batch_transforms]

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """As ClsDataPreprocessor's; a list of images (``pseudo_collate``) is stacked."""
        if not training or not self.batch_transforms:
            return super().forward(data, training)
        inputs = self.cast_data(data['inputs'])
        if not isinstance(inputs, torch.Tensor):
            inputs = torch.stack(inputs)
        rng = np.random.default_rng([np.random.randint(2**31), get_rank()])
        for transform in self.batch_transforms:
            inputs = transform(inputs, rng)
        return super().forward({**data, 'inputs': inputs}, training)
