"""In toolboxes beyond the three: the optimizer line, the hooks, a backbone of ours and the report."""

import json
import math

import pytest

from tests.toolboxes.stock import STOCK

HOOKS = [
    dict(type='bocb_mm.RunRecordHook'), dict(type='bocb_mm.LayerMetricsHook', interval=1),
    dict(type='bocb_mm.DivergenceHook'), dict(type='bocb_mm.SignalHook'),
]  # fmt: skip
OPTIMIZERS = {
    'Adan': dict(lr=2e-4, weight_decay=0.02),
    'LAMB': dict(lr=1e-3, weight_decay=0.02),
}


@pytest.fixture(scope='module')
def data(scope, tmp_path_factory):
    root = tmp_path_factory.mktemp(scope)
    STOCK[scope].write(root)
    return root


def train(scope, data, work_dir, optimizer, ours=False, **changes):
    """The stock config with the README's lines, through the stock Runner."""
    from mmengine.hub import get_config
    from mmengine.runner import Runner

    stock = STOCK[scope]
    cfg = get_config(f'{scope}::{stock.config}')
    stock.shrink(cfg, data)
    cfg.model.pop('pretrained', None)  # a download
    cfg.model.backbone.pop('pretrained', None)
    for name in ('train', 'val', 'test'):
        cfg[f'{name}_dataloader'].update(num_workers=0, persistent_workers=False)
    if ours:
        stock.ours(cfg)
    cfg.work_dir, cfg.experiment_name = str(work_dir), work_dir.name
    cfg.optim_wrapper.optimizer = dict(type=f'bocb_mm.{optimizer}', **OPTIMIZERS[optimizer])
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), *HOOKS]
    cfg.default_hooks.checkpoint = dict(
        type='bocb_mm.SafeCheckpointHook', interval=2, by_epoch='max_epochs' in cfg.train_cfg
    )
    cfg.merge_from_dict(changes)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner, json.loads((work_dir / 'run.json').read_text())


@pytest.fixture(scope='module')
def runs(scope, data, tmp_path_factory):
    """Both optimizers on the stock network, one of them on ours: runner, record, directory."""
    root = tmp_path_factory.mktemp(f'{scope}-runs')
    return root, {
        (name, ours): train(scope, data, root / f'{name}-{"ours" if ours else "stock"}', name, ours)
        for name, ours in (('Adan', False), ('LAMB', False), ('Adan', True), ('LAMB', True))
    }


def test_the_record_says_what_was_trained(scope, runs):
    stock = STOCK[scope]
    for (name, ours), (_, record) in runs[1].items():
        backbone = 'CNX-XS' if ours else stock.backbone
        assert (record['status'], record['optimizer']) == ('completed', name)
        assert (record['task'], record['dataset']) == (stock.task, stock.dataset)
        assert (record['backbone'], record['metric']) == (backbone, stock.metric)
        assert record['warnings'] == [] and len(record['evaluations']) == 2
        assert math.isfinite(record['evaluations'][-1][stock.metric])


def test_the_optimizer_is_ours_and_has_moved_every_parameter(scope, runs):
    from bocb_mm.optimizers import get_spec

    for (name, _), (runner, _) in runs[1].items():
        optimizer = runner.optim_wrapper.optimizer
        assert type(optimizer) is get_spec(name).cls
        held = [p for group in optimizer.param_groups for p in group['params'] if p.requires_grad]
        assert held and all(p.grad is None or optimizer.state[p] for p in held)


def test_layers_are_measured_and_the_checkpoint_goes_on(scope, data, runs):
    import pandas as pd

    root, done = runs
    runner, record = done['LAMB', True]
    folder = root / 'LAMB-ours'
    frame = pd.read_csv(folder / 'layer_metrics.csv')
    weights = {k for k, p in runner.model.named_parameters() if p.dim() > 1}
    assert {f'{layer}.weight' for layer in frame['layer']} == weights
    by_epoch = 'max_epochs' in runner.cfg.train_cfg
    length = 'train_cfg.max_epochs' if by_epoch else 'train_cfg.max_iters'
    longer = {length: 2 * record['epochs' if by_epoch else 'iterations']}
    again, resumed = train(scope, data, folder, 'LAMB', True, resume=True, **longer)
    assert again.iter == 2 * record['iterations'] and resumed['status'] == 'completed'
    assert len(resumed['evaluations']) == 4
    assert resumed['started'] == record['started']


def test_the_report_has_a_table_of_them(scope, runs, tmp_path):
    import pandas as pd

    from bocb_mm.report.cli import main

    assert main([str(runs[0]), '--out', str(tmp_path), '--quiet', '--no-figures']) == 0
    tables = [
        pd.read_csv(f, index_col=0) for f in tmp_path.glob('*.csv') if 'rankings' not in f.name
    ]
    table = next(t for t in tables if set(OPTIMIZERS) <= set(map(str, t.index)))
    assert table.shape[1] == 2 and table.loc[list(OPTIMIZERS)].notna().all(axis=None)
    assert (tmp_path / 'report.html').is_file()
