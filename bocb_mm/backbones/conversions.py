"""Names of weights in other libraries' checkpoints, turned into the names of our networks.

A conversion is a list of regular expressions, tried on a checkpoint that has the telltale name.
``tests/backbones/test_weights.py`` builds the other library's network, converts its weights and
compares the maps.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

Weights = dict[str, Any]


@dataclass(frozen=True)
class Conversion:
    """One foreign naming of a family.

    Attributes:
        origin: Where checkpoints with these names come from.
        telltale: A regular expression that one name matches, and none of our own names.
        rules: Pairs of expression and replacement, applied to each name one after the other; a
            replacement may be a function of the match.
        values: Changes the values too, after renaming.
    """

    origin: str
    telltale: str
    rules: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
    values: Callable[[Weights], Weights] | None = None

    def __call__(self, weights: Mapping[str, Any]) -> Weights:
        """The weights under our names."""
        renamed = {}
        for name, value in weights.items():
            for pattern, replacement in self.rules:
                name = re.sub(pattern, replacement, name)
            renamed[name] = value
        return self.values(renamed) if self.values else renamed


def namings(network: nn.Module, weights: Weights, own_names: Iterable[str]) -> Iterator[Weights]:
    """The weights as they are, and under every naming of the network's family that they may have.

    Args:
        network: A network of the catalog, or of a toolbox: its classes' names are looked up.
        weights: Tensors by name, without prefix.
        own_names: Names of the network, without prefix.
    """
    yield weights
    for kind in type(network).__mro__:
        for conversion in CONVERSIONS.get(kind.__name__, ()):
            if any(re.search(conversion.telltale, name) for name in weights):
                yield conversion(weights)
        convert = getattr(sys.modules.get(kind.__module__), 'pvt_convert', None)
        if convert and 'patch_embed1.proj.weight' in weights:  # mmdet's and mmpose's PVT
            yield convert(weights)
    if '_conv_stem.weight' in weights:
        yield _efficientnet(own_names)(weights)


def _efficientnet(own_names: Iterable[str]) -> Conversion:
    """The names of the package efficientnet_pytorch, whose blocks are counted through, in timm's.

    A block without expansion, as those of the first stage, has one norm less.
    """
    places = sorted({tuple(map(int, p)) for n in own_names for p in re.findall(_BLOCK, n)})
    parts = {
        True: {'_expand_conv': 'conv_pw', '_bn0': 'bn1', '_depthwise_conv': 'conv_dw',
               '_bn1': 'bn2', '_project_conv': 'conv_pwl', '_bn2': 'bn3'},
        False: {'_depthwise_conv': 'conv_dw', '_bn1': 'bn1', '_project_conv': 'conv_pw',
                '_bn2': 'bn2'},
    }  # fmt: skip

    def block(match: re.Match[str]) -> str:
        stage, place = places[int(match[1])] if int(match[1]) < len(places) else (-1, -1)
        part = parts[stage > 0].get(match[2], match[2].replace('_se_', 'se.conv_'))
        return f'blocks.{stage}.{place}.{part}.'

    return Conversion('efficientnet_pytorch', '', (
        (r'^_conv_(stem|head)\.', r'conv_\1.'), (r'^_bn0\.', 'bn1.'), (r'^_bn1\.', 'bn2.'),
        (r'^_fc\.', 'classifier.'), (r'^_blocks\.(\d+)\.(\w+)\.', block),
    ))  # fmt: skip


_BLOCK = r'^blocks\.(\d+)\.(\d+)\.'


def _vgg_module(match: re.Match[str]) -> str:
    """Undo that torchvision counts convolution, norm and ReLU apart: 7 a stage."""
    stage, place = divmod(int(match[1]), 7)
    return f'features.{3 * stage + place // 3}.{("conv", "bn")[place % 3]}.'


# MobileNetV2's blocks by stage; torchvision counts them through from 1.
_MOBILENET_BLOCKS = [(i + 1, j) for i, n in enumerate((1, 2, 3, 4, 3, 3, 1)) for j in range(n)]


def _mobilenet_block(match: re.Match[str]) -> str:
    stage, block = _MOBILENET_BLOCKS[int(match[1]) - 1]
    return f'layer{stage}.{block}.conv.'


def _mobilenet_projection(match: re.Match[str]) -> str:
    """The last convolution of a block and its norm are two places; the others share one."""
    first = match[1] == 'layer1'
    place = int(match[3])
    conv = place == (1 if first else 2)
    return f'{match[1]}.{match[2]}.conv.{1 if first else 2}.{"conv" if conv else "bn"}.'


def _one_down(pattern: str) -> Callable[[re.Match[str]], str]:
    """A replacement that counts from 0 where the source counts from 1."""
    return lambda match: pattern.format(*(int(g) - 1 for g in match.groups()))


def _unfold_order(weights: Weights) -> Weights:
    """Swin's patch merging: torch.nn.Unfold orders a 2x2 patch row by row, the original by column.

    Both the reduction's columns and the norm before it are over (place, channel) in the original,
    over (channel, place) in mmpretrain.
    """
    out = dict(weights)
    for name, value in weights.items():
        if '.downsample.reduction.' in name or '.downsample.norm.' in name:
            places = value.unflatten(-1, (4, -1))[..., [0, 2, 1, 3], :]
            out[name] = places.transpose(-1, -2).flatten(-2)
    return out


def _swin_timm(weights: Weights) -> Weights:
    """Move timm's downsampling from before the stage it feeds to behind the one that feeds it."""
    moved = {}
    for name, value in weights.items():
        name = re.sub(
            r'^stages\.(\d+)\.downsample', lambda m: f'stages.{int(m[1]) - 1}.downsample', name
        )
        moved[name] = value
    return _unfold_order(moved)


_SWIN_RULES = (
    (r'^layers\.', 'stages.'),
    (r'patch_embed\.proj\.', 'patch_embed.projection.'),
    (r'\.attn\.', '.attn.w_msa.'),
    (r'\.mlp\.fc1\.', '.ffn.layers.0.0.'),
    (r'\.mlp\.fc2\.', '.ffn.layers.1.'),
    (r'^norm\.', 'norm3.'),
)
_MLP_RULES = ((r'\.fc1\.', '.layers.0.0.'), (r'\.fc2\.', '.layers.1.'))
_TRANSFORMER_RULES = (
    (r'^(?:patch_embed|stem)\.proj\.', 'patch_embed.projection.'),
    (r'^blocks\.', 'layers.'),
    (r'\.norm([12])\.', r'.ln\1.'),
    (r'^norm\.', 'ln1.'),
)

CONVERSIONS: dict[str, tuple[Conversion, ...]] = {
    'VGG': (
        Conversion('torchvision, timm', r'^features\.1\.running_mean',
                   ((r'^features\.(\d+)\.', _vgg_module),)),
    ),
    'DenseNet': (
        Conversion('torchvision, timm', r'^features\.conv0', (
            (r'^features\.conv0\.', 'stem.0.'),
            (r'^features\.norm0\.', 'stem.1.'),
            (r'^features\.norm5\.', 'transitions.3.0.'),
            (r'^features\.denseblock(\d+)\.denselayer(\d+)\.', _one_down('stages.{}.block.{}.')),
            (r'^features\.transition(\d+)\.', _one_down('transitions.{}.')),
            (r'\.(norm|conv)\.([12])\.', r'.\1\2.'),  # names of torchvision's published file
        )),
    ),
    'MobileNetV2': (
        Conversion('torchvision', r'^features\.18\.', (
            (r'^features\.0\.0\.', 'conv1.conv.'), (r'^features\.0\.1\.', 'conv1.bn.'),
            (r'^features\.18\.0\.', 'conv2.conv.'), (r'^features\.18\.1\.', 'conv2.bn.'),
            (r'^features\.(\d+)\.conv\.', _mobilenet_block),
            (r'^(layer\d)\.(\d)\.conv\.(\d)\.(?!\d\.)', _mobilenet_projection),
            (r'\.conv\.(\d)\.0\.', r'.conv.\1.conv.'), (r'\.conv\.(\d)\.1\.', r'.conv.\1.bn.'),
        )),
    ),
    'RepVGG': (
        Conversion('the authors', r'\.rbr_', (
            (r'^stage0\.', 'stem.'), (r'^stage(\d)\.', r'stage_\1.'),
            (r'\.rbr_dense\.', '.branch_3x3.'), (r'\.rbr_1x1\.', '.branch_1x1.'),
            (r'\.rbr_identity\.', '.branch_norm.'), (r'\.bn\.', '.norm.'),
        )),
        Conversion('timm', r'\.conv_kxk\.', (
            (r'^stages\.(\d)\.', lambda m: f'stage_{int(m[1]) + 1}.'),
            (r'\.conv_kxk\.', '.branch_3x3.'), (r'\.conv_1x1\.', '.branch_1x1.'),
            (r'\.identity\.', '.branch_norm.'), (r'\.bn\.', '.norm.'),
        )),
    ),
    'VisionTransformer': (
        Conversion('timm, DeiT, MAE', r'^blocks\.', (
            *_TRANSFORMER_RULES, (r'\.mlp\.', '.ffn.'), *_MLP_RULES,
        )),
    ),
    'MlpMixer': (
        Conversion('timm', r'^blocks\.', (
            *_TRANSFORMER_RULES, (r'\.mlp_tokens\.', '.token_mix.'),
            (r'\.mlp_channels\.', '.channel_mix.'), *_MLP_RULES,
        )),
    ),
    'SwinTransformer': (
        Conversion('the authors', r'^layers\.0\.downsample\.', _SWIN_RULES, _unfold_order),
        Conversion('timm', r'^layers\.3\.downsample\.', _SWIN_RULES, _swin_timm),
    ),
    'ConvNeXt': (
        Conversion('the authors', r'\.dwconv\.', (
            (r'\.dwconv\.', '.depthwise_conv.'), (r'\.pwconv(\d)\.', r'.pointwise_conv\1.'),
            (r'^norm\.', 'norm3.'),
        )),
        Conversion('timm', r'\.conv_dw\.', (
            (r'^stem\.', 'downsample_layers.0.'),
            (r'^stages\.(\d)\.downsample\.', r'downsample_layers.\1.'),
            (r'\.blocks\.', '.'), (r'\.conv_dw\.', '.depthwise_conv.'),
            (r'\.mlp\.fc(\d)\.', r'.pointwise_conv\1.'),
            (r'\.mlp\.grn\.weight', '.grn.gamma'), (r'\.mlp\.grn\.bias', '.grn.beta'),
            (r'^head\.norm\.', 'norm3.'),
        )),
    ),
    'TIMMBackbone': (  # features_only: timm joins the names of the first two levels
        Conversion('timm', r'^\w+\.\d+\.', ((r'^(\w+)\.(\d+)\.', r'\1_\2.'),)),
    ),
    'MetaFormer': (
        Conversion('sail-sg', r'^downsample_layers\.', (
            (r'^downsample_layers\.0\.', 'stem.'),
            (r'^downsample_layers\.(\d)\.', r'stages.\1.downsample.'),
            (r'(pre|post)_norm', 'norm'),
            (r'^stages\.(\d)\.(\d+)\.', r'stages.\1.blocks.\2.'),
            (r'^head\.(?!fc\.fc)', 'head.fc.'), (r'^norm\.', 'head.norm.'),
        )),
    ),
}  # fmt: skip
