"""Networks by name, on images of a folder."""

import sys

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS

from bocb_mm.config.classifier import Network, import_modules, model_of, parse
from bocb_mm.errors import UserError


@MODELS.register_module(name='ProbeTokens', force=True)
class Tokens(BaseModule):
    def forward(self, x):
        return (torch.zeros(len(x), 16, 8),)


@MODELS.register_module(name='ProbeOneMap', force=True)
class OneMap(BaseModule):
    def forward(self, x):
        return x


def test_a_name_with_arguments():
    assert parse('mmpretrain.ResNet(depth=18, stem="a")') == Network(
        'mmpretrain.ResNet', {'depth': 18, 'stem': 'a'}
    )
    assert parse(' timm.resnet18.a1_in1k ').name == 'timm.resnet18.a1_in1k'
    assert parse('R-50(cifar=True)').label == 'R-50(cifar=True)'


@pytest.mark.parametrize('text', ['ResNet(depth=', 'ResNet(18)', 'ResNet(depth=f(1))', '', '(a=1)'])
def test_what_is_no_name_is_refused(text):
    with pytest.raises(UserError, match='--backbone'):
        parse(text)


def test_ours_timm_and_registered_classes_become_classifiers():
    ours = model_of(parse('r-18-xs'), 5, 32)
    assert ours['backbone']['type'] == 'bocb_mm.R-18-XS' and ours['head']['num_classes'] == 5
    timm = model_of(parse('timm.vit_tiny_patch16_224(depth=1)'), 5, 48)
    assert timm['img_size'] == 48 and timm['num_classes'] == 5
    assert 'img_size' not in model_of(parse('timm.resnet10t'), 5, 32)
    theirs = model_of(
        parse('mmpretrain.ResNet_CIFAR(depth=18, base_channels=8, stem_channels=8)'), 5, 32
    )
    assert theirs['head']['in_channels'] == 64


@pytest.mark.parametrize(
    ('text', 'side', 'message'),
    [
        ('timm.resnet81', 32, "unknown timm network 'resnet81'; did you mean"),
        ('R-51', 32, "unknown backbone 'R-51'; did you mean"),
        ('AlexNet', 32, 'its classifier takes 224x224 only'),
        ('mmpretrain.ResNet(depth=17)', 32, 'cannot be built or run .KeyError'),
        ('R-18-XS(depth=50)', 32, 'R-18-XS has depth=18'),
        ('ProbeOneMap', 32, r'returns a Tensor; .* return \(x,\)'),
        ('ProbeTokens', 32, 'its last output has shape .2, 16, 8.'),
        ('timm.vit_tiny_patch16_224(img_size=224)', 32, 'cannot be built or run on images of 32x32'),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_said_before(text, side, message):
    with pytest.raises(UserError, match=message):
        model_of(parse(text), 5, side)


def test_a_module_in_the_working_directory_is_found(tmp_path, monkeypatch):
    (tmp_path / 'a_module_of_ones_own.py').write_text('here = True\n')
    (tmp_path / 'a_broken_module.py').write_text('1 / 0\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [p for p in sys.path if p])
    import_modules(['a_module_of_ones_own'])
    assert sys.modules.pop('a_module_of_ones_own').here
    for name, why in (('a_module_of_ones_own.py', 'without .py'), ('a_broken_module', 'ZeroDiv')):
        with pytest.raises(UserError, match=f'--import {name}: .*{why}'):
            import_modules([name])
