"""A classifier of some hundred weights as an mmengine model, with the parts that have a role."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn


class CrossEntropyLoss(nn.Module):
    """The interface of mmpretrain's loss, without the 12 s that importing it takes."""

    def __init__(self, use_sigmoid: bool = False) -> None:
        super().__init__()
        self.use_sigmoid = use_sigmoid
        self.class_weight = self.pos_weight = None
        self.reduction, self.loss_weight = 'mean', 1.0

    def forward(
        self, cls_score: Tensor, label: Tensor, weight: Any = None, avg_factor: Any = None
    ) -> Tensor:
        return F.cross_entropy(cls_score, label)


class ToyNet(BaseModel):
    """Convolution, batch norm, LayerScale-like gamma, dropout if asked, linear head."""

    def __init__(self, dropout: float = 0.0, loss: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.gamma = nn.Parameter(torch.ones(4, 1, 1))
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(4, 3)
        self.loss = CrossEntropyLoss() if loss is None else loss

    def forward(self, inputs: Tensor, data_samples: Tensor | None = None, mode: str = 'tensor'):
        x = self.drop((self.backbone(inputs) * self.gamma).mean((2, 3)))
        logits = self.head(x)
        if mode == 'loss':
            return {'loss': self.loss(logits, data_samples)}
        return logits


def toy_batch(n: int = 6, seed: int = 0) -> dict[str, Tensor]:
    """``n`` images of 6 x 6 in three classes that differ in brightness."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = torch.randn(n, 1, 6, 6, generator=generator) + labels.view(-1, 1, 1, 1)
    return {'inputs': images, 'data_samples': labels}
