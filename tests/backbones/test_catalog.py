"""The catalog as data: no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bocb_mm.backbones import catalog_table, get_spec, list_backbones
from bocb_mm.backbones.catalog import CATALOG
from bocb_mm.errors import UnknownNameError, UserError

# Columns of Table 1 of the paper, in its order.
TABLE_1 = [
    'AlexNet',
    'VGG-13',
    'R-50',
    'DN-121',
    'MobV2',
    'Eff-B0',
    'RVGG-A1',
    'DeiT-S',
    'MLP-S',
    'Swin-T',
    'CNX-T',
    'CNXV2-T',
    'Moga-S',
    'URLK-T',
    'TNX-T',
    'IF-12',
    'PFV2-12',
    'CF-12',
    'AF-12',
    'CAF-12',
]

# Table A1: stage-wise design, block-wise design, operator, residual, input size, training setting.
P, H, ISO = 'patchify & hierarchical', 'hierarchical', 'patchify & isotropic'
M, N = 'metaformer', 'metanext'
TABLE_A1 = {
    'AlexNet': ('-', 'plain', 'Conv', '-', 224, 'PyTorch'),
    'VGG-13': ('-', 'plain', 'Conv', '-', 224, 'PyTorch'),
    'R-50': (H, 'bottleneck', 'Conv', 'addition', 32, 'PyTorch'),
    'DN-121': (H, 'bottleneck', 'Conv', 'concatenation', 32, 'PyTorch'),
    'MobV2': (H, 'inverted bottleneck', 'SepConv', 'addition', 224, 'PyTorch'),
    'Eff-B0': (H, 'inverted bottleneck', 'Conv & SE', 'addition', 224, 'RSB A2'),
    'RVGG-A1': (H, 'inverted bottleneck', 'Conv', 'addition', 224, 'PyTorch'),
    'DeiT-S': (ISO, M, 'Attention', 'prenorm', 224, 'DeiT'),
    'MLP-S': (ISO, M, 'MLP', 'prenorm', 224, 'DeiT'),
    'Swin-T': (P, M, 'Local Attention', 'prenorm', 224, 'ConvNeXt'),
    'CNX-T': (P, N, 'DWConv', 'prenorm & layer scale', 32, 'ConvNeXt'),
    'CNXV2-T': (P, N, 'DWConv', 'prenorm & layer scale', 32, 'ConvNeXt'),
    'Moga-S': (P, M, 'DWConv & Gating', 'prenorm & layer scale', 32, 'ConvNeXt'),
    'URLK-T': (P, M, 'DWConv & SE', 'prenorm & layer scale', 224, 'ConvNeXt'),
    'TNX-T': (P, M, 'Attention & Gating', 'prenorm & layer scale', 224, 'DeiT'),
    'IF-12': (P, M, 'Identity', 'prenorm & res scale', 224, 'RSB A2'),
    'PFV2-12': (P, M, 'Pooling', 'prenorm & res scale', 224, 'RSB A2'),
    'CF-12': (P, M, 'SepConv', 'prenorm & res scale', 224, 'RSB A2'),
    'AF-12': (P, M, 'Attention', 'prenorm & res scale', 224, 'RSB A2'),
    'CAF-12': (P, M, 'SepConv & Attention', 'prenorm & res scale', 224, 'RSB A2'),
}  # fmt: skip


def test_the_twenty_in_the_order_of_table_1():
    assert list_backbones() == TABLE_1


def test_facts_of_table_a1():
    for name, facts in TABLE_A1.items():
        s = get_spec(name)
        found = (s.stage_wise, s.block_wise, s.operator, s.residual, s.input_size, s.recipe)
        assert found == facts, name


def test_categories_of_section_3_2():
    assert list_backbones(category='primary') == TABLE_1[:2]
    assert list_backbones(category='classical') == TABLE_1[2:7]
    assert list_backbones(category='modern') == TABLE_1[7:]


def test_filters_look_at_short_and_long_names():
    assert list_backbones('*former*') == TABLE_1[15:]
    assert list_backbones('cnx*') == ['CNX-T', 'CNXV2-T']
    assert list_backbones('R-*', extras=True) == ['R-50', 'R-18', 'R-18-XS']
    assert list_backbones('no such thing') == []


@pytest.mark.parametrize(
    ('given', 'name'),
    [
        ('r-50', 'R-50'),
        ('bocb_mm.R-50', 'R-50'),
        ('ResNet50', 'R-50'),
        ('resnet_50', 'R-50'),
        ('VGG', 'VGG-13'),
        ('vgg13_bn', 'VGG-13'),
        ('convnext-tiny', 'CNX-T'),
        ('deit', 'DeiT-S'),
        ('AttentionFormer-S12', 'AF-12'),
        ('TransNeXt-Tiny', 'TNX-T'),
    ],
)
def test_other_names(given, name):
    assert get_spec(given).name == name


def test_no_two_rows_share_a_name():
    seen = {}
    for spec in CATALOG.values():
        for name in {n.lower() for n in (spec.name, spec.paper_name, *spec.aliases)}:
            assert seen.setdefault(name, spec.name) == spec.name


def test_unknown_names_and_categories_show_the_way():
    with pytest.raises(UnknownNameError, match=r"'ResNet-51'; did you mean ResNet-50"):
        get_spec('ResNet-51')
    with pytest.raises(UserError, match="'modren': expected one of primary, classical, modern"):
        list_backbones(category='modren')


@pytest.mark.parametrize('name', TABLE_1)
def test_what_necks_and_heads_are_told(name):
    spec = get_spec(name)
    assert len(spec.channels) == len(spec.strides)
    assert [spec.strides[i] for i in spec.fpn_out_indices] == [8, 16, 32]
    assert spec.fpn_in_channels == [spec.channels[i] for i in spec.fpn_out_indices]
    assert spec.pose_in_channels == spec.channels[spec.pose_out_indices[0]]
    # DenseNet's first map, behind a transition, has stride 8
    first = 8 if name == 'DN-121' else 4
    assert spec.strides[spec.out_indices[0]] == first
    assert spec.parameters.total_1000 > spec.parameters.total_100 > spec.parameters.backbone


def test_classifier_config_is_plain_data():
    import json

    for name in list_backbones(extras=True):
        model = get_spec(name).classifier(10, head=dict(topk=(1, 5)), drop_path_rate=0.0)
        assert json.loads(json.dumps(model))['backbone']['type'] == f'bocb_mm.{name}'
        assert model['head']['topk'] == (1, 5)


def test_the_table_has_a_row_a_backbone():
    lines = catalog_table().splitlines()
    assert len(lines) == 22
    assert len({line.count('|') for line in lines}) == 1
    assert '| 25.56 |' in lines[4]


def test_reading_the_catalog_needs_no_torch_and_printing_it_no_toolbox():
    code = (
        'import runpy, sys; runpy.run_module("bocb_mm.backbones", run_name="__main__");'
        'bad = {"torch", "mmengine", "mmpretrain", "timm"} & set(sys.modules); assert not bad, bad'
    )
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    assert all(f'| {name} |' in out.stdout for name in TABLE_1)
