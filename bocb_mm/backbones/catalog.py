"""The backbones: one row each. Importing this module imports neither torch nor mmengine.

What is known of a network stands in ``facts/backbones.csv``, what builds it here; the counts are
of built models. A new backbone is a row in each, and a class in ``families.py`` for a new family.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from typing import Any

from bocb_mm import facts
from bocb_mm.backbones.spec import CATEGORIES, BackboneSpec, Cifar, Parameters
from bocb_mm.errors import UserError, unknown_name
from bocb_mm.facts.tables import markdown

_RESNET: dict[str, Any] = dict(
    family='ResNet', source='mmpretrain.ResNet', cifar=Cifar(),
    tunable=('norm_cfg', 'conv_cfg', 'style', 'zero_init_residual'),
)  # fmt: skip
_CONVNEXT: dict[str, Any] = dict(
    family='ConvNeXt', source='mmpretrain.ConvNeXt', cifar=Cifar(), head='pooled',
    tunable=('norm_cfg', 'act_cfg', 'linear_pw_conv'),
)  # fmt: skip
_METAFORMER: dict[str, Any] = dict(
    family='MetaFormer', source='timm.MetaFormer', head='inside',
    maps='64@4 128@8 320@16 512@32',
)  # fmt: skip


def _row(name: str, **build: Any) -> BackboneSpec:
    """The facts of a backbone (``facts/backbones.csv``) and what builds it."""
    return BackboneSpec(**vars(facts.BACKBONES[name]), **build)


_ROWS: tuple[BackboneSpec, ...] = (
    # (a) primary CNNs
    _row(
        'AlexNet', family='AlexNet', source='mmpretrain.AlexNet',
        maps='64@4 192@8 256@16 256@32', parameters=Parameters(2469696, 61100840, 57413540),
        head='inside', droppable=False, checkpoints=('torchvision://alexnet',),
    ),
    _row(
        'VGG-13', family='VGG', source='mmpretrain.VGG',
        kwargs=dict(depth=13, norm_cfg=dict(type='BN')), maps='64@2 128@4 256@8 512@16 512@32',
        out_indices=(1, 2, 3, 4), pose_index=4,
        parameters=Parameters(9410880, 133053736, 129366436), head='inside', droppable=False,
        tunable=('norm_cfg', 'conv_cfg', 'ceil_mode'),
        checkpoints=('torchvision://vgg13_bn', 'mmpretrain://vgg13bn_8xb32_in1k'),
    ),
    # (b) classical CNNs
    _row(
        'R-50', **_RESNET, kwargs=dict(depth=50, num_stages=4),
        maps='256@4 512@8 1024@16 2048@32',
        parameters=Parameters(23508032, 25557032, 23712932, 23705252),
        checkpoints=(
            'torchvision://resnet50', 'timm://resnet50.a1_in1k',
            'mmpretrain://resnet50_8xb32_in1k', 'mmpretrain://resnet50_8xb256-rsb-a1-600e_in1k',
            'mmpretrain://resnet50_8xb256-rsb-a2-300e_in1k',
            'mmpretrain://resnet50_8xb256-rsb-a3-100e_in1k',
        ),
    ),
    _row(
        'DN-121', family='DenseNet', source='mmpretrain.DenseNet',
        kwargs=dict(arch='121'), maps='128@8 256@16 512@32 1024@32', out_indices=(0, 1, 3),
        parameters=Parameters(6953856, 7978856, 7056356, 7048548), cifar=Cifar((2, 4, 8, 8)),
        tunable=('norm_cfg', 'act_cfg', 'drop_rate'), droppable=False,
        checkpoints=('torchvision://densenet121', 'mmpretrain://densenet121_3rdparty_in1k'),
    ),
    _row(
        'MobV2', family='MobileNetV2', source='mmpretrain.MobileNetV2',
        kwargs=dict(widen_factor=1.0), maps='16@2 24@4 32@8 64@16 96@16 160@32 320@32 1280@32',
        out_indices=(1, 2, 4, 6), pose_index=7, parameters=Parameters(2223872, 3504872, 2351972),
        tunable=('norm_cfg', 'conv_cfg', 'act_cfg'),
        checkpoints=('torchvision://mobilenet_v2', 'mmpretrain://mobilenet-v2_8xb32_in1k'),
    ),
    _row(
        'Eff-B0', family='EfficientNet', source='mmpretrain.EfficientNet',
        kwargs=dict(arch='b0'), maps='32@2 16@2 24@4 40@8 112@16 320@32 1280@32',
        out_indices=(2, 3, 4, 5), pose_index=6, parameters=Parameters(4007548, 5288548, 4135648),
        tunable=('norm_cfg', 'conv_cfg', 'act_cfg'),
        checkpoints=('mmpretrain://efficientnet-b0_3rdparty_8xb32_in1k',),
    ),
    _row(
        'RVGG-A1', family='RepVGG', source='mmpretrain.RepVGG',
        kwargs=dict(arch='A1'), maps='64@4 128@8 256@16 1280@32', droppable=False,
        parameters=Parameters(12811264, 14092264, 12939364),
        tunable=('norm_cfg', 'conv_cfg', 'deploy'),
        checkpoints=('mmpretrain://repvgg-A1_8xb32_in1k', 'timm://repvgg_a1.rvgg_in1k'),
    ),
    # (c) modern DNNs
    _row(
        'DeiT-S', pose_index=2, family='VisionTransformer',
        source='mmpretrain.VisionTransformer', kwargs=dict(arch='deit-small', patch_size=16),
        maps='96@4 192@8 384@16 384@32', head='token', tunable=('img_size', 'drop_rate'),
        parameters=Parameters(21665664, 22050664, 21704164),
        checkpoints=(
            'timm://deit_small_patch16_224.fb_in1k', 'mmpretrain://deit-small_4xb256_in1k',
        ),
    ),
    _row(
        'MLP-S', pose_index=2, family='MlpMixer', source='mmpretrain.MlpMixer',
        fixed_size=True,
        # eps 1e-6 as in the original; mmpretrain's default is 1e-5
        kwargs=dict(arch='s', patch_size=16, norm_cfg=dict(type='LN', eps=1e-6)),
        maps='128@4 256@8 512@16 512@32', tunable=('img_size', 'drop_rate'),
        parameters=Parameters(18015264, 18528264, 18066564),
    ),
    _row(
        'Swin-T', family='SwinTransformer', source='mmpretrain.SwinTransformer',
        maps='96@4 192@8 384@16 768@32', kwargs=dict(arch='tiny', pad_small_map=True),
        tunable=('img_size', 'drop_rate', 'window_size'),
        parameters=Parameters(27519354, 28288354, 27596254),
        checkpoints=(
            'timm://swin_tiny_patch4_window7_224.ms_in1k',
            'mmpretrain://swin-tiny_16xb64_in1k',
        ),
    ),
    _row(
        'CNX-T', **_CONVNEXT, kwargs=dict(arch='tiny'),
        maps='96@4 192@8 384@16 768@32',
        parameters=Parameters(27820128, 28589128, 27897028, 27895012),
        checkpoints=('timm://convnext_tiny.fb_in1k', 'mmpretrain://convnext-tiny_32xb128_in1k'),
    ),
    _row(
        'CNXV2-T', **_CONVNEXT, maps='96@4 192@8 384@16 768@32',
        kwargs=dict(arch='tiny', use_grn=True, layer_scale_init_value=0.0),
        parameters=Parameters(27866496, 28635496, 27943396, 27941380),
        checkpoints=(
            'timm://convnextv2_tiny.fcmae_ft_in1k',
            'mmpretrain://convnext-v2-tiny_fcmae-pre_3rdparty_in1k',
        ),
    ),
    _row(
        'Moga-S', family='MogaNet', source='bocb_mm.backbones.moganet.MogaNet',
        maps='64@4 128@8 320@16 512@32', head='inside', cifar=Cifar(),
        parameters=Parameters(24822675, 25335675, 24873975, 24873975),
    ),
    _row(
        'URLK-T', family='UniRepLKNet',
        source='bocb_mm.backbones.unireplknet.UniRepLKNet', maps='80@4 160@8 320@16 640@32',
        head='inside', parameters=Parameters(31052420, 31693420, 31116520),
    ),
    _row(
        'TNX-T', family='TransNeXt', source='bocb_mm.backbones.transnext.TransNeXt',
        maps='72@4 144@8 288@16 576@32', head='inside',
        parameters=Parameters(27681960, 28258960, 27739660),
    ),
    # MetaFormer baselines: the token mixer is all that differs
    _row(
        'IF-12', **_METAFORMER, kwargs=dict(token_mixers='identity', use_mlp_head=False),
        parameters=Parameters(11378712, 11891712, 11430012),
    ),
    _row(
        'PFV2-12', **_METAFORMER, kwargs=dict(token_mixers='pooling', use_mlp_head=False),
        parameters=Parameters(11378712, 11891712, 11430012),
        checkpoints=('timm://poolformerv2_s12.sail_in1k',),
    ),
    _row(
        'CF-12', **_METAFORMER, kwargs=dict(token_mixers='sepconv', use_mlp_head=True),
        parameters=Parameters(16423472, 19527192, 17683092),
    ),
    _row(
        'AF-12', **_METAFORMER, kwargs=dict(token_mixers='attention', use_mlp_head=True),
        parameters=Parameters(16097304, 19201024, 17356924),
    ),
    _row(
        'CAF-12', **_METAFORMER,
        kwargs=dict(token_mixers='sepconv+attention', use_mlp_head=True),
        parameters=Parameters(16134944, 19238664, 17394564),
    ),
    # Not in the paper: small networks for quick runs and tests
    _row(
        'R-18', **_RESNET, kwargs=dict(depth=18), maps='64@4 128@8 256@16 512@32',
        parameters=Parameters(11176512, 11689512, 11227812, 11220132),
        checkpoints=('torchvision://resnet18', 'mmpretrain://resnet18_8xb32_in1k'),
    ),
    _row(
        'R-18-XS', **_RESNET, kwargs=dict(depth=18, stem_channels=16, base_channels=16),
        maps='16@4 32@8 64@16 128@32', parameters=Parameters(702096, 831096, 714996, 713076),
    ),
    _row(
        'CNX-A', **_CONVNEXT, kwargs=dict(arch='atto'),
        maps='40@4 80@8 160@16 320@32',
        parameters=Parameters(3374520, 3695520, 3406620, 3405780),
    ),
    _row(
        'CNX-XS', **_CONVNEXT,
        kwargs=dict(arch=dict(depths=[2, 2, 4, 2], channels=[24, 48, 96, 192])),
        maps='24@4 48@8 96@16 192@32', parameters=Parameters(1082760, 1275760, 1102060, 1101556),
    ),
)  # fmt: skip


CATALOG: dict[str, BackboneSpec] = {row.name: row for row in _ROWS}


def list_backbones(
    filter: str = '*', category: str | None = None, *, extras: bool = False
) -> list[str]:
    """Short names of the backbones, in the order of the paper's Table 1.

    Args:
        filter: Shell pattern that the short or the long name must match; case does not matter.
        category: ``'primary'``, ``'classical'`` or ``'modern'``; None means all.
        extras: Also list the networks outside the paper.

    Returns:
        The names; without arguments, the paper's 20.

    Raises:
        UserError: There is no such category.

    Example:
        >>> list_backbones('*former*')
        ['IF-12', 'PFV2-12', 'CF-12', 'AF-12', 'CAF-12']
    """
    if category is not None and category not in CATEGORIES:
        raise UserError(f'category {category!r}: expected one of {", ".join(CATEGORIES)}')
    pattern = filter.lower()
    return [
        row.name
        for row in _ROWS
        if (row.in_paper or extras)
        and category in (None, row.category)
        and any(fnmatch.fnmatchcase(n.lower(), pattern) for n in (row.name, row.paper_name))
    ]


def get_spec(name: str) -> BackboneSpec:
    """The row of a backbone, by short name, long name or alias; case and punctuation are ignored.

    Raises:
        UnknownNameError: No backbone has the name; the nearest ones are in the message.

    Example:
        >>> get_spec('resnet50').name
        'R-50'
    """
    row = facts.find_backbone(name)
    spec = CATALOG.get(row.name) if row else None
    if spec is None:
        raise unknown_name('backbone', name, _all_names(), 'python -m bocb_mm.backbones lists them')
    return spec


def _all_names() -> list[str]:
    return [n for row in _ROWS for n in (row.name, row.paper_name, *row.aliases)]


_COLUMNS: tuple[tuple[str, Any], ...] = (
    ('name', lambda s: s.name),
    ('network', lambda s: s.paper_name),
    ('category', lambda s: s.category),
    ('stages', lambda s: s.stage_wise),
    ('blocks', lambda s: s.block_wise),
    ('operator', lambda s: s.operator),
    ('recipe', lambda s: s.recipe),
    ('input', lambda s: str(s.input_size)),
    ('from', lambda s: s.source if not s.source.startswith('bocb_mm') else 'bocb_mm'),
    ('maps (channels@stride)', lambda s: ' '.join(s.maps.split()[i] for i in s.out_indices)),
    ('M weights, 1000 classes', lambda s: f'{s.parameters.total_1000 / 1e6:.2f}'),
)


def catalog_table(*, extras: bool = False) -> str:
    """The catalog as a Markdown table, one row a backbone.

    Args:
        extras: Also show the networks outside the paper.

    Example:
        >>> catalog_table().splitlines()[4].split('|')[1:3]
        [' R-50 ', ' ResNet-50 ']
    """
    return markdown(catalog_rows(list_backbones(extras=extras)))


def catalog_rows(names: Iterable[str]) -> list[list[str]]:
    """Head and one row for each of ``names``."""
    head = [title for title, _ in _COLUMNS]
    return [head, *([cell(CATALOG[name]) for _, cell in _COLUMNS] for name in names)]
