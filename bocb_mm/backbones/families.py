"""One adapter a family of networks: what differs from family to family, and nothing else."""

# ruff: noqa: D102  - the methods are described in Adapter

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from bocb_mm.backbones import initialise
from bocb_mm.backbones.adapters import Adapter, Options
from bocb_mm.backbones.hierarchical import DropPath, drop_path_rates
from bocb_mm.backbones.pyramid import SimplePyramid


class _MMPretrain(Adapter):
    """Built from the class of mmpretrain that has the family's name."""

    @classmethod
    def source(cls, options: Options) -> type[nn.Module]:
        return cls.library_class(cls.__name__)

    @staticmethod
    def library_class(name: str) -> type[nn.Module]:
        import mmpretrain.models  # 12 s the first time

        return getattr(mmpretrain.models, name)


class AlexNet(_MMPretrain):
    """mmpretrain's class returns its last map only; the taps are after ReLU 1, 2 and 5."""

    groups = (
        (),
        ('features.0',),
        ('features.3',),
        ('features.6', 'features.8', 'features.10'),
        (),
    )
    smallest_picture = 63
    classifier_size = 224
    taps = (1, 4, 11, 12)

    @classmethod
    def arguments(cls, options: Options) -> dict[str, Any]:
        return dict(num_classes=options.num_classes or -1)

    def maps(self, x: Tensor) -> Any:
        if self.options.classifier:
            return super().maps(x)
        wanted = [self.taps[i] for i in self.options.out_indices]
        out = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in wanted:
                out.append(x)
            if i == wanted[-1]:
                break
        return out

    def start(self) -> None:
        """torchvision's: what PyTorch's constructors draw."""
        initialise.as_constructed(self)


class VGG(_MMPretrain):
    """Map i is after pooling i + 1; a stage is two convolution modules and a pooling."""

    groups = ((), *(tuple(f'features.{3 * i + j}' for j in range(3)) for i in range(5)))
    classifier_size = 224

    @classmethod
    def arguments(cls, options: Options) -> dict[str, Any]:
        if options.num_classes:
            return dict(num_classes=options.num_classes)
        return dict(out_indices=options.out_indices)


class ResNet(_MMPretrain):
    """The CIFAR variant has a 3x3 convolution and no pooling as its stem."""

    groups = (('conv1', 'bn1', 'gn1', 'ln1', 'in1'), *((f'layer{i}',) for i in range(1, 5)))

    @classmethod
    def source(cls, options: Options) -> type[nn.Module]:
        return cls.library_class('ResNet_CIFAR' if options.cifar else 'ResNet')

    def change(self, options: Options) -> None:
        if options.cifar:
            self.conv1.stride = (options.stem_stride, options.stem_stride)


class DenseNet(_MMPretrain):
    """The CIFAR variant's stem is one 3x3 convolution, without norm, activation and pooling."""

    groups = (('stem',), *((f'stages.{i}', f'transitions.{i}') for i in range(4)))

    def change(self, options: Options) -> None:
        if options.cifar:
            self.stem = nn.Conv2d(
                3, self.init_channels, 3, stride=options.stem_stride, padding=1, bias=False
            )

    def start(self) -> None:
        initialise.densenet(self)


class MobileNetV2(_MMPretrain):
    """Stochastic depth, which mmpretrain's class lacks, goes behind each residual branch."""

    groups = (('conv1',), *((f'layer{i}',) for i in range(1, 8)), ('conv2',))

    takes_drop_path = False

    def change(self, options: Options) -> None:
        if not options.drop_path_rate:
            return
        blocks = [b for i in range(1, 8) for b in getattr(self, f'layer{i}')]
        for block, rate in zip(blocks, drop_path_rates(options.drop_path_rate, (len(blocks),))[0]):
            if block.use_res_connect:
                block.conv.append(DropPath(rate))


class EfficientNet(_MMPretrain):
    """Map 0 is the stem's."""

    groups = tuple((f'layers.{i}',) for i in range(7))
    first_map_group = 0

    @classmethod
    def arguments(cls, options: Options) -> dict[str, Any]:
        # block i of 16 drops with i / 16 of the rate (TensorFlow, timm); mmpretrain: i / 15
        rate = options.drop_path_rate * 15 / 16
        return dict(out_indices=options.out_indices, drop_path_rate=rate)

    def start(self) -> None:
        initialise.efficientnet(self)


class RepVGG(_MMPretrain):
    """``switch_to_deploy`` merges the branches of every block for inference."""

    groups = (('stem',), *((f'stage_{i}',) for i in range(1, 5)))

    def start(self) -> None:
        """The authors': what PyTorch's constructors draw."""
        initialise.as_constructed(self)


class VisionTransformer(_MMPretrain):
    """Maps come from the last block through a simple pyramid; frozen stages count blocks."""

    groups = (
        ('patch_embed', 'cls_token', 'pos_embed'),
        *((f'layers.{i}',) for i in range(11)),
        ('layers.11', 'ln1'),
    )
    first_map_group = None
    smallest_picture = 16

    @classmethod
    def arguments(cls, options: Options) -> dict[str, Any]:
        return dict(
            img_size=options.img_size,
            out_type='cls_token' if options.classifier else 'featmap',
            drop_path_rate=options.drop_path_rate,
        )

    def change(self, options: Options) -> None:
        if not options.classifier:
            self.pyramid = SimplePyramid(self.embed_dims, options.out_indices)

    def maps(self, x: Tensor) -> Any:
        (out,) = super().maps(x)
        return out if self.options.classifier else self.pyramid(out)

    def start(self) -> None:
        initialise.vision_transformer(self)


class MlpMixer(_MMPretrain):
    """Images of one size only, since token mixing has a weight for each token."""

    groups = (
        ('patch_embed',),
        *((f'layers.{i}',) for i in range(7)),
        ('layers.7', 'ln1'),
    )
    first_map_group = None

    @classmethod
    def arguments(cls, options: Options) -> dict[str, Any]:
        # linear growth over the blocks, as in the paper; mmpretrain has one rate for all
        rates = torch.linspace(0, options.drop_path_rate, 8, device='cpu').tolist()
        return dict(
            img_size=options.img_size, layer_cfgs=[dict(drop_path_rate=rate) for rate in rates]
        )

    def change(self, options: Options) -> None:
        if not options.classifier:
            self.pyramid = SimplePyramid(self.embed_dims, options.out_indices)

    def maps(self, x: Tensor) -> Any:
        (tokens,) = super().maps(x)
        out = tokens.unflatten(2, self.patch_resolution)
        return out if self.options.classifier else self.pyramid(out)

    def start(self) -> None:
        initialise.mlp_mixer(self)


class SwinTransformer(_MMPretrain):
    """A map has a layer norm of its own, ``norm{i}``."""

    groups = (('patch_embed',), *((f'stages.{i}', f'norm{i}') for i in range(4)))
    norm_per_map = True

    def change(self, options: Options) -> None:
        # the last stage needed must not make the next one's input, which nobody would use
        self.stages[max(options.out_indices)].downsample = None

    def dropped_parts(self) -> list[str]:
        return [*super().dropped_parts(), f'stages.{max(self.options.out_indices)}.downsample']

    def maps(self, x: Tensor) -> Any:
        if self.options.classifier:
            # The official classifier does not shift windows on a map of one window, the official
            # detector does; on a smaller one there is no way but to fill it up.
            for i, stage in enumerate(self.stages):
                side = math.ceil(min(x.shape[-2:]) / (4 * 2**i))
                for block in stage.blocks:
                    block.attn.pad_small_map = side < block.attn.window_size
        return super().maps(x)

    def start(self) -> None:
        initialise.swin(self)


class ConvNeXt(_MMPretrain):
    """A map has a layer norm of its own, ``norm{i}``; the classifier's comes after pooling."""

    groups = (
        ('downsample_layers.0',),
        ('stages.0', 'norm0'),
        *((f'downsample_layers.{i}', f'stages.{i}', f'norm{i}') for i in range(1, 4)),
    )
    norm_per_map = True

    @classmethod
    def arguments(cls, options: Options) -> dict[str, Any]:
        return dict(
            out_indices=options.out_indices,
            gap_before_final_norm=options.classifier,
            drop_path_rate=options.drop_path_rate,
        )

    def change(self, options: Options) -> None:
        if options.cifar:
            stem = self.downsample_layers[0]
            stem[0] = nn.Conv2d(3, stem[0].out_channels, 3, stride=options.stem_stride, padding=1)


class MetaFormer(Adapter):
    """timm's class, whose S12 depths have no registered name."""

    groups = (('stem',), *((f'stages.{i}',) for i in range(4)))

    @classmethod
    def source(cls, options: Options) -> type[nn.Module]:
        from timm.models import metaformer

        return metaformer.MetaFormer

    @classmethod
    def arguments(cls, options: Options) -> dict[str, Any]:
        from timm.models import metaformer as m

        mixers, norms = {
            'identity': (nn.Identity, m.GroupNorm1NoBias),
            'pooling': (m.Pooling, m.GroupNorm1NoBias),
            'sepconv': (m.SepConv, m.LayerNorm2dNoBias),
            'attention': (m.Attention, m.LayerNormNoBias),
            'sepconv+attention': (
                [m.SepConv] * 2 + [m.Attention] * 2,
                [m.LayerNorm2dNoBias] * 2 + [m.LayerNormNoBias] * 2,
            ),
        }[options.spec.kwargs['token_mixers']]
        return dict(
            token_mixers=mixers,
            norm_layers=norms,
            num_classes=options.num_classes or 0,
            drop_path_rate=options.drop_path_rate,
        )

    def change(self, options: Options) -> None:
        if not options.classifier:
            self.head = nn.Identity()  # its norm would get no gradient
        elif options.spec.kwargs['use_mlp_head']:
            self.head.fc.norm.eps = 1e-5  # sail-sg's; timm has 1e-6

    def maps(self, x: Tensor) -> Any:
        if self.options.classifier:
            return super().maps(x)
        out = []
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.options.out_indices:
                out.append(x)
        return out

    def start(self) -> None:
        self.apply(self._init_weights)  # timm's and sail-sg's


class _Own(Adapter):
    """Our own networks build only the stages they need and recompute blocks by themselves."""

    native_checkpointing = True
    first_map_group = None

    @classmethod
    def arguments(cls, options: Options) -> dict[str, Any]:
        return dict(
            num_classes=options.num_classes,
            out_indices=options.out_indices,
            drop_path_rate=options.drop_path_rate,
            with_cp=options.with_cp,
        )

    def _check_size(self, x: Tensor) -> None:
        """Leave it to the adapter, whose ``strides`` are those of the returned maps."""


class MogaNet(_Own):
    """The CIFAR variant's stem has strides (1, 1), or (2, 1) for ``stem_stride=2``."""

    groups = (
        ('patch_embed1',),
        ('blocks1', 'norm1'),
        *((f'patch_embed{i}', f'blocks{i}', f'norm{i}') for i in range(2, 5)),
    )

    @classmethod
    def source(cls, options: Options) -> type[nn.Module]:
        from bocb_mm.backbones.moganet import MogaNet as Network

        return Network

    @classmethod
    def arguments(cls, options: Options) -> dict[str, Any]:
        stride = options.stem_stride if options.cifar else 4
        return dict(super().arguments(options), stem_stride=stride)


class UniRepLKNet(_Own):
    """``switch_to_deploy`` merges the dilated branches of every block for inference."""

    groups = (
        ('downsample_layers.0',),
        ('stages.0', 'norm0'),
        *((f'downsample_layers.{i}', f'stages.{i}', f'norm{i}') for i in range(1, 4)),
    )
    norm_per_map = True

    @classmethod
    def source(cls, options: Options) -> type[nn.Module]:
        from bocb_mm.backbones.unireplknet import UniRepLKNet as Network

        return Network


class TransNeXt(_Own):
    """The form for images of any size."""

    groups = (
        ('patch_embed1',),
        ('block1', 'norm1'),
        *((f'patch_embed{i}', f'block{i}', f'norm{i}') for i in range(2, 5)),
    )

    @classmethod
    def source(cls, options: Options) -> type[nn.Module]:
        from bocb_mm.backbones.transnext import TransNeXt as Network

        return Network
