"""The networks that the probe is validated with: each takes a step on its own image size."""

import pytest
from mmengine.config import Config

from tests.conftest import ROOT

FILES = sorted((ROOT / 'configs' / 'real_small' / 'probe').glob('*.py'))
MOST_WEIGHTS = 500_000  # a training of each must stay one of seconds


@pytest.mark.parametrize('file', FILES, ids=[f.stem for f in FILES])
def test_a_network_trains_a_step(file):
    import torch
    from mmpretrain.registry import MODELS
    from mmpretrain.structures import DataSample
    from mmpretrain.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    cfg = Config.fromfile(file)
    model = MODELS.build(cfg.model)
    model.init_weights()
    samples = [DataSample().set_gt_label(k) for k in (3, 7)]
    losses = model(torch.randn(2, 3, 32, 32), samples, mode='loss')
    losses['loss'].backward()
    weights = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in weights)
    assert sum(p.numel() for p in weights) < MOST_WEIGHTS


def test_a_class_is_found_by_its_path():
    """As in any registry of mmengine: MogaNet's sizes are no arguments of the catalog's."""
    from bocb_mm.backbones.moganet import MogaNet
    from bocb_mm.errors import UnknownNameError
    from bocb_mm.registry import MODELS

    assert MODELS.get('bocb_mm.backbones.moganet.MogaNet') is MogaNet
    for wrong in ('bocb_mm.backbones.moganet.MogaNets', 'bocb_mm.nowhere.MogaNet'):
        with pytest.raises(UnknownNameError):
            MODELS.get(wrong)


def test_they_share_schedule_and_data():
    shared = ('train_dataloader', 'val_dataloader', 'train_cfg', 'param_scheduler', 'val_evaluator')
    configs = [Config.fromfile(f) for f in FILES]
    assert len({str([c[k] for k in shared]) for c in configs}) == 1
    names = [c.default_hooks.run_record.backbone for c in configs]
    assert len(set(names)) == len(FILES) == 8
