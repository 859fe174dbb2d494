"""Sixty cells: 20 optimizers x a stock config of mmpretrain, mmdet and mmpose.

Each cell is upstream's own config with nothing changed but the optimizer line, trained for a few
iterations through mmengine's own building of model, data and optimizer wrapper. Only what a test
without a network or a GPU must change is changed besides, and equally for all 20 optimizers:

- ``init_cfg`` of type Pretrained is dropped: there is no network to download weights from;
- the data is a generated set in the native format, with small images and batches.

The model of a toolbox is built once and gets the same weights back before every cell, and the
batch is fixed, so a lower loss is the optimizer's doing.
"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from bocb_mm.optimizers import get_spec, list_optimizers
from tests import tiny_data

ITERATIONS = 4


@dataclass(frozen=True)
class Stock:
    """One stock config, and how its data is made small."""

    task: str
    config: str
    batch_size: int


STOCK = {
    'mmpretrain': Stock('classification', 'resnet/resnet18_8xb32_in1k.py', 8),
    'mmdet': Stock('detection', 'retinanet/retinanet_r18_fpn_1x_coco.py', 2),
    'mmpose': Stock(
        'pose',
        'body_2d_keypoint/topdown_heatmap/coco/td-hm_shufflenetv2_8xb64-210e_coco-256x192.py',
        2,
    ),
}

# mmdet's and mmpose's stock schedules warm up from 1/1000 of the rate over 500 iterations. Four
# iterations see nothing of that, so they run at a tenth of the catalog's rate, all 20 optimizers
# alike; mmpretrain's stock config has no warm-up and runs at the full rate.
WARM_UP = {'mmpretrain': 1.0, 'mmdet': 0.1, 'mmpose': 0.1}


def drop_pretrained(model: dict[str, Any]) -> None:
    """Remove every ``init_cfg`` of type Pretrained, at any depth."""
    for key, value in list(model.items()):
        if key == 'init_cfg' and isinstance(value, dict) and value.get('type') == 'Pretrained':
            model[key] = None
        elif isinstance(value, dict):
            drop_pretrained(value)


def small_data(cfg: Any, scope: str, root: Any) -> None:
    """Point the training data to ``root`` and take small images in small batches."""
    loader = cfg.train_dataloader
    loader.batch_size = STOCK[scope].batch_size
    loader.num_workers, loader.persistent_workers = 0, False
    dataset = loader.dataset
    dataset.data_root = str(root)
    if scope == 'mmpretrain':
        dataset.ann_file, dataset.data_prefix = 'meta/train.txt', 'train'
    for step in dataset.pipeline:
        if step['type'] == 'RandomResizedCrop':
            step['scale'] = 64
        elif step['type'] == 'Resize':
            step['scale'] = (128, 96)


class Bench:
    """A toolbox's stock config with its model, its first weights and one batch."""

    def __init__(self, scope: str, root: Any) -> None:
        from mmengine.hub import get_config
        from mmengine.registry import MODELS, init_default_scope
        from mmengine.runner import Runner, set_random_seed

        self.scope, self.stock = scope, STOCK[scope]
        self.cfg = get_config(f'{scope}::{self.stock.config}')
        small_data(self.cfg, scope, root)
        drop_pretrained(self.cfg.model)
        init_default_scope(self.cfg.default_scope)
        set_random_seed(0)
        self.model = MODELS.build(self.cfg.model)
        self.model.init_weights()
        loader = Runner.build_dataloader(self.cfg.train_dataloader, seed=0)
        self.batch = next(iter(loader))
        self.weights = copy.deepcopy(self.model.state_dict())

    def train(self, name: str, wrapper: str | None = None) -> tuple[list[float], Any]:
        """Losses of :data:`ITERATIONS` iterations on the fixed batch, and the optimizer wrapper."""
        from mmengine.optim import build_optim_wrapper
        from mmengine.registry import init_default_scope

        init_default_scope(self.cfg.default_scope)
        self.model.load_state_dict(self.weights)
        self.model.train()
        start = get_spec(name).defaults_for(self.stock.task)
        start['lr'] *= WARM_UP[self.scope]
        cfg = copy.deepcopy(self.cfg.optim_wrapper)
        cfg['optimizer'] = {'type': f'bocb_mm.{name}', **start}  # the one line that differs
        if hasattr(get_spec(name).cls, 'halves'):
            cfg['constructor'] = 'bocb_mm.OptimWrapperConstructor'
        if wrapper is not None:
            cfg['type'] = wrapper
        torch.manual_seed(0)
        optim_wrapper = build_optim_wrapper(self.model, cfg)
        losses = []
        for _ in range(ITERATIONS):
            logs = self.model.train_step(copy.deepcopy(self.batch), optim_wrapper)
            losses.append(float(logs['loss']))
        return losses, optim_wrapper


@pytest.fixture(scope='module')
def bench(tmp_path_factory):
    """Benches by toolbox, each built when first asked for."""
    root = tmp_path_factory.mktemp('tiny')
    tiny_data.write_coco(root, n_train=4, n_val=2)
    tiny_data.write_imagenet(root, n_train=16, n_val=4)
    built: dict[str, Bench] = {}

    def get(scope: str) -> Bench:
        if scope not in built:
            built[scope] = Bench(scope, root)
        return built[scope]

    return get


# the paper's, and of those that came later what the wrapper treats in another way
NAMES = [*list_optimizers(paper=True), 'Muon', 'ScheduleFreeAdamW']


@pytest.mark.parametrize('scope', STOCK)
@pytest.mark.parametrize('name', NAMES)
def test_the_optimizer_line_is_all_that_changes(name, scope, bench):
    losses, _ = bench(scope).train(name)
    assert all(map(math.isfinite, losses)), losses
    assert losses[-1] < losses[0], losses


HESSIANS = {
    'mmpretrain': 'gauss-newton-bartlett (categorical)',
    # Four convolutions and the last layer of the box branch see no class: 10 tensors.
    'mmdet': 'gauss-newton-bartlett (bernoulli); empirical-fisher for 10 tensors',
    'mmpose': 'gauss-newton-bartlett (gaussian)',
}


@pytest.mark.parametrize('scope', STOCK)
def test_sophia_with_its_hessian(scope, bench):
    """The optimizer line and the wrapper's type; the Hessian is the one docs/sophia.md says."""
    losses, wrapper = bench(scope).train('Sophia', 'bocb_mm.SophiaOptimWrapper')
    assert losses[-1] < losses[0], losses
    assert wrapper.hessian_kind == HESSIANS[scope]
    assert wrapper.hessian_updates == 1
    # The backbone's zero-initialised last norms leave most of it without a gradient at first.
    for key, p in bench(scope).model.named_parameters():
        if 'head' in key.split('.')[0]:
            assert (wrapper.optimizer.state[p]['hessian'] > 0).any(), key


@pytest.mark.parametrize('scope', STOCK)
def test_the_constructor_groups_a_stock_model(scope, bench):
    """At most 4 groups, frozen parameters left out, and a step done on them."""
    from mmengine.optim import build_optim_wrapper

    model = bench(scope).model
    cfg = copy.deepcopy(bench(scope).cfg.optim_wrapper)
    cfg['constructor'] = 'bocb_mm.OptimWrapperConstructor'
    cfg['optimizer'] = {'type': 'bocb_mm.LAMB', 'lr': 1e-3, 'weight_decay': 0.02}
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    assert len(groups) <= 4
    held = {id(p) for g in groups for p in g['params']}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}
    if scope == 'mmdet':  # frozen_stages=1
        assert len(held) < len(list(model.parameters()))


@pytest.mark.parametrize('scope', STOCK)
def test_two_hook_lines_measure_and_record(scope, bench, tmp_path):
    """The README's ``custom_hooks``, added to upstream's config and run by upstream's Runner."""
    import pandas as pd
    from mmengine.runner import Runner

    cfg = copy.deepcopy(bench(scope).cfg)
    for name in ('val', 'test'):
        for key in ('cfg', 'dataloader', 'evaluator'):
            cfg[f'{name}_{key}'] = None
    cfg.train_cfg = {'by_epoch': True, 'max_epochs': 1}
    cfg.train_dataloader.dataset.indices = 4
    cfg.work_dir, cfg.experiment_name = str(tmp_path), f'stock-{scope}'
    cfg.custom_hooks = [
        *cfg.get('custom_hooks', []),
        {'type': 'bocb_mm.RunRecordHook'},
        {'type': 'bocb_mm.LayerMetricsHook'},
    ]
    runner = Runner.from_cfg(cfg)
    runner.train()
    record = json.loads((tmp_path / 'run.json').read_text())
    assert (record['status'], record['task']) == ('completed', STOCK[scope].task)
    assert record['warnings'] == []
    frame = pd.read_csv(tmp_path / 'layer_metrics.csv')
    assert sorted(frame['iteration'].unique()) == [0, record['iterations']]
    weights = {k for k, p in runner.model.named_parameters() if p.dim() > 1}
    assert {f'{layer}.weight' for layer in frame['layer']} == weights
