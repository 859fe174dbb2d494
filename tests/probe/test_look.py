"""A look at a real network: how long a run takes, and what cannot be trained."""

import pytest

from bocb_mm.errors import UserError
from bocb_mm.probe.look import Look, look
from tests.tools.tiny_config import write_tiny_config


def test_a_look_measures_and_leaves_nothing(tmp_path):
    config = write_tiny_config(tmp_path)
    before = sorted(p.name for p in tmp_path.rglob('*'))
    options = {'train_cfg.max_epochs': 4, 'train_cfg.val_interval': 4}
    found = look(str(config), options, 'SGD', None, 1)
    assert found.iterations == 8  # 16 images, 8 a batch, 4 epochs
    assert found.seconds_per_iteration > 0 and found.validation_seconds > 0
    assert found.seconds(2) > found.seconds(1) > found.seconds(0) > found.start_seconds
    assert found.n_parameters > 10_000
    assert found.covariates['first_to_median'] > 0 and found.covariates['block_spread'] >= 0
    assert sorted(p.name for p in tmp_path.rglob('*')) == before


def test_a_look_starts_from_what_a_training_starts_from(tmp_path, monkeypatch):
    """Weights of an installed package, under other names than the network's own."""
    import torch
    from mmengine.config import Config
    from mmpretrain.registry import MODELS
    from mmpretrain.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    config = write_tiny_config(tmp_path)
    weights = MODELS.build(Config.fromfile(config).model.backbone).state_dict()
    weights['conv1.weight'] *= 1e6  # batch norm undoes it but for the first layer's gradient
    (tmp_path / 'weights_of_ours').mkdir()
    (tmp_path / 'weights_of_ours' / '__init__.py').write_text('')
    told = {f'module.{k}': v for k, v in weights.items()}
    torch.save(told, tmp_path / 'weights_of_ours' / 'w.pth')
    monkeypatch.syspath_prepend(tmp_path)
    found = look(str(config), {}, 'SGD', 'package://weights_of_ours/w.pth', 1)
    assert found.covariates['first_to_median'] < 1e-3  # of random weights above 1


def test_what_cannot_be_trained_is_one_line(tmp_path):
    config = write_tiny_config(tmp_path)
    with pytest.raises(UserError) as caught:
        look(str(config), {'model.head.in_channels': 63}, 'SGD', None, 1)
    text = str(caught.value)
    assert 'cannot be trained for one iteration: RuntimeError' in text and '\n' not in text


def test_seconds_of_a_run():
    assert Look(0.1, 100, 3.0, 2.0).seconds(0.5) == pytest.approx(10.0)
