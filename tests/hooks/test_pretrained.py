"""What a training starts from: loaded by one loader, counted, and recorded as it was."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from tests.tools.tiny_config import write_tiny_config


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    return write_tiny_config(tmp_path_factory.mktemp('tiny'))


@pytest.fixture(scope='module')
def file(tiny, tmp_path_factory):
    """Weights of the tiny classifier, all of them drawn."""
    from mmengine.config import Config
    from mmpretrain.registry import MODELS
    from mmpretrain.utils import register_all_modules

    register_all_modules()
    model = MODELS.build(Config.fromfile(tiny).model)
    generator = torch.Generator().manual_seed(0)
    state = {
        k: torch.randn(v.shape, generator=generator).abs() if v.is_floating_point() else v
        for k, v in model.state_dict().items()
    }
    path = tmp_path_factory.mktemp('weights') / 'lightning.pth'
    named = {
        k.replace('backbone.', 'model.').replace('head.', 'model.'): v for k, v in state.items()
    }
    torch.save({'state_dict': named, 'hyper_parameters': {}}, path)
    return path


@pytest.fixture
def start(run_tool, capsys, caplog, tmp_path, monkeypatch):
    """Train with lr 0, so that the checkpoint holds what the network started from."""
    monkeypatch.chdir(tmp_path)

    def call(config, *argv, text='', work_dir='w', more=()):
        if text:
            config = tmp_path / 'mine.py'
            config.write_text(f'_base_ = {str(argv[0])!r}\n{text}')
            argv = argv[1:]
        options = ['train_dataloader.dataset.data_prefix=val', *more]
        status, _, err = run_tool(
            'train', config, *argv, '--lr', '0', '--weight-decay', '0', '--work-dir', work_dir,
            '--cfg-options', *options, capsys=capsys,
        )  # fmt: skip
        log = '\n'.join(p.read_text() for p in sorted((tmp_path / work_dir).glob('*/*.log')))
        return status, err, log

    return call


def record(work_dir='w'):
    return json.loads(Path(work_dir, 'run.json').read_text())


def first_convolution(work_dir='w'):
    state = torch.load(f'{work_dir}/epoch_1.pth', weights_only=False)['state_dict']
    return state['backbone.conv1.weight']


def of_file(path):
    return torch.load(path)['state_dict']['model.conv1.weight']


def same(a, b):
    return torch.equal(a, b)


def test_pretrained_reaches_a_backbone_of_the_toolbox_and_is_counted(start, tiny, file):
    status, err, _ = start(tiny, '--pretrained', str(file))
    assert status == 0, err
    assert same(first_convolution(), of_file(file))
    found = record()
    assert found['pretraining'] == 'lightning'
    assert found['pretrained'] == [
        {'part': 'backbone', 'source': str(file), 'tensors': 100, 'of': 100, 'share': 1.0}
    ]


def test_pretrained_that_does_not_fit_is_refused(start, tiny, tmp_path):
    torch.save({'model': {'blocks.0.weight': torch.zeros(3, 3)}}, tmp_path / 'other.pth')
    status, err, _ = start(tiny, '--pretrained', 'other.pth')
    assert status == 2 and 'Traceback' not in err
    line = err.strip().splitlines()[-1]
    assert 'other.pth: has 0 % of the parameters of this ResNet_CIFAR (0 of 100 tensors)' in line
    assert 'conv1.weight' in line and 'blocks.0.weight' in line


def warnings_of(log):
    return [line for line in log.splitlines() if 'WARNING' in line]


def test_init_cfg_of_a_config_that_does_not_fit_is_a_warning_and_no_pretraining(
    start, tiny, tmp_path
):
    torch.save({'model': {'blocks.0.weight': torch.zeros(3, 3)}}, tmp_path / 'other.pth')
    text = "model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='other.pth')))\n"
    status, err, log = start(None, tiny, text=text)
    assert status == 0, err
    assert record()['pretraining'] == '' and record()['pretrained'][0]['tensors'] == 0
    assert any('nothing in other.pth fits' in line for line in warnings_of(log))


@pytest.mark.parametrize('text', [
    'load_from = {file!r}\n',
    "model = dict(init_cfg=dict(type='Pretrained', checkpoint={file!r}))\n",
    'model = dict(pretrained={file!r})\n',
    "model = dict(backbone=dict(init_cfg=[dict(type='Pretrained', checkpoint={file!r})]))\n",
])  # fmt: skip
def test_whatever_a_config_loads_is_counted_and_gives_way_to_the_command_line(
    start, tiny, file, tmp_path, text
):
    # under the names that the whole model has, and what DataParallel puts before them
    state = torch.load(file)['state_dict']
    whole = {f'module.backbone.{k.removeprefix("model.")}': v + 1 for k, v in state.items()}
    torch.save({'state_dict': whole}, tmp_path / 'whole.pth')
    text = text.format(file=str(tmp_path / 'whole.pth'))
    status, err, _ = start(None, tiny, text=text, work_dir='own')
    assert status == 0, err
    assert same(first_convolution('own'), of_file(file) + 1)
    assert record('own')['pretraining'] == 'whole' and record('own')['pretrained'][0]['share'] > 0.9
    status, err, _ = start(None, tiny, '--pretrained', str(file), text=text, work_dir='path')
    assert status == 0, err
    assert same(first_convolution('path'), of_file(file))
    assert record('path')['pretraining'] == 'lightning' and len(record('path')['pretrained']) == 1
    status, err, _ = start(None, tiny, '--pretrained', 'none', text=text, work_dir='none')
    assert status == 0, err
    assert not same(first_convolution('none'), of_file(file) + 1)
    assert record('none')['pretraining'] == '' and record('none')['pretrained'] == []


def test_load_from_that_does_not_fit_is_a_warning_and_no_pretraining(start, tiny, tmp_path):
    torch.save({'blocks.0.weight': torch.zeros(3, 3)}, tmp_path / 'other.pth')
    status, err, log = start(None, tiny, text="load_from = 'other.pth'\n")
    assert status == 0, err
    assert record()['pretraining'] == ''
    assert any('nothing in other.pth fits' in line for line in warnings_of(log))


def test_resume_in_a_config_starts_from_the_pretrained_weights_and_then_resumes(start, tiny, file):
    text = 'resume = True\n'
    status, err, _ = start(None, tiny, '--pretrained', str(file), text=text)
    assert status == 0, err
    assert same(first_convolution(), of_file(file)) and record()['pretraining'] == 'lightning'
    status, err, _ = start(
        None, tiny, '--pretrained', str(file), text=text, more=['train_cfg.max_epochs=2']
    )
    assert status == 0, err
    assert [e['epoch'] for e in record()['evaluations']] == [1, 2]


class Harmless:
    """Something that a restricted unpickler does not know."""


def test_trust_reaches_the_weights_of_the_backbone(start, tiny, file, tmp_path):
    content = torch.load(file)
    torch.save({**content, 'callbacks': Harmless()}, tmp_path / 'strange.pth')
    status, err, _ = start(tiny, '--pretrained', 'strange.pth', work_dir='a')
    assert status == 2 and 'Harmless' in err and '--trust-checkpoint' in err
    status, err, _ = start(tiny, '--pretrained', 'strange.pth', '--trust-checkpoint', work_dir='b')
    assert status == 0, err
    assert same(first_convolution('b'), of_file(file))


def test_a_model_without_a_backbone_is_refused(tmp_path, file):
    from mmengine.config import Config

    from bocb_mm.config.pretraining import set_pretrained
    from bocb_mm.errors import UserError

    cfg = Config(dict(model=dict(type='TimmClassifier', model_name='resnet18')))
    with pytest.raises(UserError, match='TimmClassifier has no backbones .* load_from=PATH'):
        set_pretrained(cfg, str(file))
    nested = Config(dict(model=dict(type='SoftTeacher', detector=dict(
        type='FasterRCNN', init_cfg=dict(type='Pretrained', checkpoint='x'), backbone=dict(type='ResNet')))))  # fmt: skip
    set_pretrained(nested, str(file))
    assert nested.model.detector.backbone.init_cfg.checkpoint == str(file)
    assert 'init_cfg' not in nested.model.detector


def test_swin_of_mmdet_has_a_loader_of_its_own_that_is_not_asked(file):
    from mmdet.models.backbones.swin import SwinTransformer
    from mmengine.config import ConfigDict

    from bocb_mm.backbones.pretrained import take_wanted

    cfg = ConfigDict(type='Pretrained', checkpoint='swin.pth', prefix='encoder')
    swin = SwinTransformer(embed_dims=24, depths=(1, 1, 1, 1), init_cfg=cfg)
    (wanted,) = take_wanted(torch.nn.ModuleDict({'backbone': swin}))
    assert (wanted.part, wanted.checkpoint, wanted.prefix) == ('backbone', 'swin.pth', 'encoder')
    logging.disable()
    swin.init_weights()
    logging.disable(logging.NOTSET)
    assert float(swin.stages[0].blocks[0].attn.w_msa.qkv.weight.std()) == pytest.approx(
        0.02, rel=0.1
    )


def test_names_that_the_model_translates_itself_are_counted_and_left():
    """mmpose 1 reads `keypoint_head.` of mmpose 0, by a hook of its own."""
    from bocb_mm.backbones.pretrained import loaded_by_itself, rename_for

    class Head(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)
            self._register_load_state_dict_pre_hook(self._translate)

        def _translate(self, state, prefix, *_):
            for key in [k for k in state if k.startswith('keypoint_head.')]:
                state[key.replace('keypoint_head', 'head')] = state.pop(key)

    model, other = Head(), Head()
    old = {k.replace('head', 'keypoint_head'): v for k, v in other.state_dict().items()}
    content = {'state_dict': dict(old)}
    assert rename_for(model, content, 'old.pth').share == 1
    assert content['state_dict'].keys() == old.keys()
    assert torch.equal(model.head.weight, other.head.weight)
    assert loaded_by_itself(model, {'head.weight': torch.ones(7)}, 'wrong.pth') is None


def test_a_checkpoint_that_has_the_models_names_is_left_as_it_is():
    """Layers tell old files by the versions that an OrderedDict carries beside its tensors."""
    from bocb_mm.backbones.pretrained import rename_for

    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    state = model.state_dict()
    content = {'state_dict': state}
    assert rename_for(model, content, 'own.pth').share == 1
    assert content['state_dict'] is state
    content = {'model': {f'net.{k}': v for k, v in state.items()}}
    loaded = rename_for(model, content, 'other.pth')
    assert (loaded.share, loaded.prefix) == (1, 'net.')
    assert content['state_dict'].keys() == state.keys()
