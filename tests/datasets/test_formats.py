"""The written sets load through the toolboxes' own data sets, with the pipelines of the configs."""

import json
from pathlib import Path

import numpy as np
import pytest

from bocb_mm.datasets import prepare, scenes, stick_figures

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = sorted((ROOT / 'configs' / 'quickstart').glob('*.py'))
REAL = sorted((ROOT / 'configs' / 'real_small').glob('*.py'))


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    """Few scenes and figures, all digits."""
    root = tmp_path_factory.mktemp('data')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, 'COUNTS', {'train': 6, 'val': 4})
        patch.setattr(stick_figures, 'COUNTS', {'train': 3, 'val': 2})
        prepare.prepare_quickstart(root / 'quickstart')
    return root


@pytest.fixture(scope='module', autouse=True)
def toolboxes():
    import mmdet.utils
    import mmpose.utils
    import mmpretrain.utils

    for toolbox in (mmpretrain, mmdet, mmpose):
        toolbox.utils.register_all_modules(init_default_scope=False)


def load(path, monkeypatch, root):
    from mmengine.config import Config

    monkeypatch.setenv('BOCB_DATA_ROOT', str(root))
    return Config.fromfile(path)


def build_dataset(cfg, split):
    from mmengine.registry import DATASETS, DefaultScope

    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return DATASETS.build(cfg[f'{split}_dataloader'].dataset)


def test_the_digit_folders_load(data_root, monkeypatch):
    cfg = load(ROOT / 'configs/quickstart/digits_r18-xs.py', monkeypatch, data_root)
    train, val = build_dataset(cfg, 'train'), build_dataset(cfg, 'val')
    assert len(train) + len(val) == 1797
    assert list(train.CLASSES) == [str(d) for d in range(10)]
    item = train[0]
    assert item['inputs'].shape == (3, 32, 32)
    assert int(item['data_samples'].gt_label) == 0


@pytest.mark.parametrize('split', ['train', 'val'])
def test_the_scenes_load(data_root, monkeypatch, split):
    cfg = load(ROOT / 'configs/quickstart/retinanet_r18-xs.py', monkeypatch, data_root)
    dataset = build_dataset(cfg, split)
    truth = json.loads((data_root / f'quickstart/scenes/annotations/{split}.json').read_text())
    assert len(dataset) == len(truth['images']) == (6 if split == 'train' else 4)
    for index in range(len(dataset)):
        item = dataset[index]
        assert item['inputs'].shape == (3, 128, 128)
        known = [a for a in truth['annotations'] if a['image_id'] == index + 1]
        found = item['data_samples'].gt_instances
        x, y, w, h = np.array([a['bbox'] for a in known], dtype=float).T
        boxes = found.bboxes.tensor if hasattr(found.bboxes, 'tensor') else found.bboxes
        np.testing.assert_allclose(np.asarray(boxes), np.stack([x, y, x + w, y + h], axis=1))
        assert found.labels.tolist() == [a['category_id'] - 1 for a in known]


@pytest.mark.parametrize('split', ['train', 'val'])
def test_the_figures_load(data_root, monkeypatch, split):
    cfg = load(ROOT / 'configs/quickstart/topdown_r18-xs.py', monkeypatch, data_root)
    dataset = build_dataset(cfg, split)
    truth = json.loads((data_root / f'quickstart/figures/annotations/{split}.json').read_text())
    assert len(dataset) == len(truth['annotations']) == (6 if split == 'train' else 4)
    pairs = [0, *(k for left in range(1, 17, 2) for k in (left + 1, left))]
    assert dataset.metainfo['flip_indices'] == pairs
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        expected = np.array(truth['annotations'][index]['keypoints']).reshape(17, 3)
        np.testing.assert_allclose(info['keypoints'][0], expected[:, :2], atol=1e-3)
        assert info['keypoints_visible'].min() == 1
        assert dataset[index]['inputs'].shape == (3, 128, 96)


@pytest.mark.parametrize('path', QUICKSTART + REAL, ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_configs_build(path, data_root, monkeypatch):
    """Model, optimizer wrapper and schedule build; a small batch goes through the backbone."""
    import torch
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope

    cfg = load(path, monkeypatch, data_root)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build({'data_preprocessor': cfg.get('data_preprocessor'), **cfg.model})
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        for scheduler in cfg.param_scheduler:
            scheduler = dict(scheduler)
            by_iter = scheduler.pop('convert_to_iter_based', False)
            PARAM_SCHEDULERS.build(dict(scheduler, optimizer=wrapper.optimizer))
            assert by_iter or not scheduler.get('by_epoch', True)
    maps = model.backbone(torch.zeros(2, 3, 64, 64))
    assert all(torch.isfinite(m).all() for m in maps)
    assert (
        0 < sum(p.numel() for p in model.parameters()) < (4e6 if 'lite0' in path.stem else 3e6)
    )  # small enough for two cores


def test_records_name_the_sets_apart():
    """Stock classes read them, but a report must not put them beside COCO."""
    from mmengine.config import Config

    from bocb_mm.config.describe import describe

    names = [describe(Config.fromfile(path)).dataset for path in QUICKSTART + REAL]
    assert names == [
        'digits', 'digits', 'scenes', 'figures',
        'cifar10-10k', 'bccd', 'bccd', 'cifar10-10k', 'cifar10-10k', 'mouse', 'mouse',
    ]  # fmt: skip


@pytest.mark.parametrize('path', QUICKSTART + REAL, ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_configs_hold_no_absolute_path(path, monkeypatch):
    from mmengine.config import Config

    for variable in ('BOCB_DATA_ROOT', 'BOCB_REAL_DATA'):
        monkeypatch.delenv(variable, raising=False)
    root = Config.fromfile(path).train_dataloader.dataset.data_root
    assert not Path(root).is_absolute()


def test_the_real_sets_load(shared_data, monkeypatch):
    """The data README's counts."""
    monkeypatch.setenv('BOCB_REAL_DATA', str(shared_data))
    from mmengine.config import Config

    sizes = {
        'cifar10_r18-xs': (10_000, 2_000),
        'retinanet_bccd_r18-xs': (292, 72),
        'topdown_mouse_r18-xs': (92, 24),
    }
    for name, expected in sizes.items():
        cfg = Config.fromfile(ROOT / f'configs/real_small/{name}.py')
        datasets = [build_dataset(cfg, split) for split in ('train', 'val')]
        assert tuple(map(len, datasets)) == expected, name
        assert datasets[0][0]['inputs'].ndim == 3
