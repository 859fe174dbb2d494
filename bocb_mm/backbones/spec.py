"""BackboneSpec: everything the catalog knows about one backbone. No torch in here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bocb_mm import facts

CATEGORIES = tuple(facts.BACKBONE_CATEGORIES)

# How a classification head sits on the network; see `BackboneSpec.classifier`.
HEADS = ('linear', 'pooled', 'token', 'inside')


@dataclass(frozen=True)
class Parameters:
    """How many weights a network has, counted on built models.

    Attributes:
        backbone: All but the classifier.
        total_1000: With the classifier for 1000 classes.
        total_100: With the classifier for 100 classes.
        cifar_100: The CIFAR variant with the classifier for 100 classes.
    """

    backbone: int
    total_1000: int
    total_100: int
    cifar_100: int | None = None


@dataclass(frozen=True)
class Cifar:
    """The variant for 32x32 images: only the stem differs.

    Attributes:
        strides: Strides of the four maps with ``stem_stride=1``.
    """

    strides: tuple[int, ...] = (1, 2, 4, 8)


@dataclass(frozen=True, eq=False)
class BackboneSpec(facts.Backbone):
    """One row of the catalog: the facts of ``facts/backbones.csv`` and what builds the network.

    Attributes:
        name: The paper's short name; ``type='bocb_mm.<name>'`` in an MM config. The further facts
            are those of :class:`bocb_mm.facts.Backbone`.
        family: Name of the adapter in :mod:`bocb_mm.backbones.families`.
        source: Library and class that the network is built from.
        kwargs: Arguments of that class that make it this network.
        maps: All feature maps as ``'channels@stride'``, in the order of ``out_indices``.
        out_indices: The maps a pyramid takes, strides 4 to 32 where the network has them.
        pose_index: The map that a pose head takes.
        head: One of :data:`HEADS`.
        parameters: Counts of weights.
        cifar: The variant for 32x32 images, where the paper has one.
        tunable: Further arguments of the source class that may be given.
        checkpoints: Published weights by name; see :mod:`bocb_mm.backbones.weights`.
        fixed_size: Whether it takes images of one size only.
        droppable: Whether it has residual branches that stochastic depth can drop.
    """

    family: str
    source: str
    maps: str
    parameters: Parameters
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    out_indices: tuple[int, ...] = (0, 1, 2, 3)
    pose_index: int = 3
    head: str = 'linear'
    cifar: Cifar | None = None
    tunable: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    fixed_size: bool = False
    droppable: bool = True

    @property
    def type(self) -> str:
        """What ``type=`` says in a config."""
        return f'bocb_mm.{self.name}'

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of every map the network can return."""
        return tuple(int(m.split('@')[0]) for m in self.maps.split())

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of every map the network can return, on images of the full size."""
        return tuple(int(m.split('@')[1]) for m in self.maps.split())

    @property
    def fpn_out_indices(self) -> tuple[int, ...]:
        """The maps of strides 8, 16 and 32, which RetinaNet's FPN takes."""
        return tuple(i for i in self.out_indices if self.strides[i] >= 8)

    @property
    def fpn_in_channels(self) -> list[int]:
        """``in_channels`` of an FPN on :attr:`fpn_out_indices`."""
        return [self.channels[i] for i in self.fpn_out_indices]

    @property
    def pose_out_indices(self) -> tuple[int]:
        """The one map a top-down pose head takes."""
        return (self.pose_index,)

    @property
    def pose_in_channels(self) -> int:
        """``in_channels`` of a top-down pose head."""
        return self.channels[self.pose_index]

    @property
    def pose_stride(self) -> int:
        """Stride of that map; heat maps of stride 4 need log2(stride / 4) deconvolutions."""
        return self.strides[self.pose_index]

    def classifier(
        self,
        num_classes: int,
        *,
        head: Mapping[str, Any] | None = None,
        **backbone: Any,
    ) -> dict[str, Any]:
        """The ``model`` of an mmpretrain config: backbone, neck and head.

        The number of weights is that of the catalog, and the head starts as in the official code.

        Args:
            num_classes: Number of classes.
            head: Arguments to add to the head's, e.g. ``dict(loss=...)``.
            **backbone: Arguments to add to the backbone's, e.g. ``cifar=True``.

        Returns:
            A dict of plain values: ``type``, ``backbone``, ``neck``, ``head``.

        Example:
            >>> from bocb_mm.backbones import get_spec
            >>> model = get_spec('R-50').classifier(100, cifar=True)
            >>> model['backbone']
            {'type': 'bocb_mm.R-50', 'classifier': True, 'cifar': True}
            >>> model['head']['in_channels']
            2048
        """
        body = dict(type=self.type, classifier=True, **backbone)
        neck = None
        top: dict[str, Any] = dict(num_classes=num_classes, in_channels=self.channels[-1])
        if self.head == 'inside':
            body['num_classes'] = num_classes
            top = dict(type='mmpretrain.ClsHead')
        elif self.head == 'token':
            top['type'] = 'mmpretrain.VisionTransformerClsHead'
        else:
            top['type'] = 'mmpretrain.LinearClsHead'
        if self.head == 'linear':
            neck = dict(type='mmpretrain.GlobalAveragePooling')
        if self.family == 'RepVGG':  # as constructed
            top['init_cfg'] = None
        start = _HEAD_START.get(self.family)
        if start is not None:
            top['init_cfg'] = dict(start)
            if start['type'] == 'Uniform':  # TensorFlow EfficientNet: 1 / sqrt(number of classes)
                top['init_cfg'].update(a=-(num_classes**-0.5), b=num_classes**-0.5)
        top.update(head or {})
        return dict(type='mmpretrain.ImageClassifier', backbone=body, neck=neck, head=top)


# How the official code starts its classifier, where mmpretrain's head (normal, std 0.01) differs.
_TRUNC_NORMAL = dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0)
_HEAD_START: dict[str, dict[str, Any]] = {
    # torchvision: the constructor's weights, bias 0
    'DenseNet': dict(
        type='Kaiming', layer='Linear', a=5**0.5, mode='fan_in', distribution='uniform',
        nonlinearity='leaky_relu', bias=0.0,
    ),
    'EfficientNet': dict(type='Uniform', layer='Linear', bias=0.0),
    'VisionTransformer': _TRUNC_NORMAL,
    'MlpMixer': dict(type='Constant', layer='Linear', val=0.0, bias=0.0),
    'SwinTransformer': _TRUNC_NORMAL,
    'ConvNeXt': _TRUNC_NORMAL,
}  # fmt: skip
