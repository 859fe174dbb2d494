"""In toolboxes beyond the three: the optimizer line, the hooks, a backbone of ours and the report."""

import json
import math

import pytest

HOOKS = [
    dict(type='bocb_mm.RunRecordHook'), dict(type='bocb_mm.LayerMetricsHook'),
    dict(type='bocb_mm.DivergenceHook'), dict(type='bocb_mm.SignalHook'),
]  # fmt: skip
OPTIMIZERS = {
    'Adan': dict(lr=2e-4, weight_decay=0.02),
    'LAMB': dict(lr=1e-3, weight_decay=0.02),
}


@pytest.fixture(scope='module')
def data(stock, tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    stock.write(root)
    return root


def train(stock, data, work_dir, optimizer, ours=False, **changes):
    """The stock config with the README's lines, through the stock Runner."""
    from mmengine.hub import get_config
    from mmengine.runner import Runner

    cfg = get_config(stock.config)
    stock.shrink(cfg, data)
    cfg.default_hooks.setdefault('logger', dict(type='LoggerHook'))['interval'] = 1
    for part in (cfg.model, cfg.model.backbone):  # downloads
        part.pop('pretrained', None)
        part.pop('init_cfg', None)
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
def runs(stock, data, tmp_path_factory):
    """Both optimizers on the stock network, and on ours where there is one: runner and record."""
    root = tmp_path_factory.mktemp('runs')
    return root, {
        (name, ours): train(stock, data, folder(root, name, ours), name, ours)
        for ours in (False, True)[: 1 + (stock.ours is not None)]
        for name in OPTIMIZERS
    }


def folder(root, name, ours):
    return root / f'{name}-{"ours" if ours else "stock"}'


def test_the_record_says_what_was_trained(stock, runs):
    for (name, ours), (_, record) in runs[1].items():
        backbone = 'CNX-XS' if ours else stock.backbone
        assert (record['status'], record['optimizer']) == ('completed', name)
        assert (record['task'], record['dataset']) == (stock.task, stock.dataset)
        assert (record['backbone'], record['metric']) == (backbone, stock.metric)
        assert record['warnings'] == [] and len(record['evaluations']) == 2
        assert math.isfinite(record['evaluations'][-1][stock.metric])


def test_the_optimizer_is_ours_and_has_moved_every_parameter(runs):
    from bocb_mm.optimizers import get_spec

    for (name, _), (runner, _) in runs[1].items():
        optimizer = runner.optim_wrapper.optimizer
        assert type(optimizer) is get_spec(name).cls
        held = [p for group in optimizer.param_groups for p in group['params'] if p.requires_grad]
        assert held and all(p.grad is None or optimizer.state[p] for p in held)


def test_layers_are_measured_and_the_checkpoint_goes_on(stock, data, runs):
    import pandas as pd

    root, done = runs
    ours = stock.ours is not None
    runner, record = done['LAMB', ours]
    frame = pd.read_csv(folder(root, 'LAMB', ours) / 'layer_metrics.csv')
    # Tensors without a module of their own (position embeddings) have the layer's name.
    weights = {k.removesuffix('.weight') for k, p in runner.model.named_parameters() if p.dim() > 1}
    assert set(frame['layer']) == weights
    by_epoch = 'max_epochs' in runner.cfg.train_cfg
    length = 'train_cfg.max_epochs' if by_epoch else 'train_cfg.max_iters'
    longer = {length: 2 * record['epochs' if by_epoch else 'iterations']}
    again, resumed = train(
        stock, data, folder(root, 'LAMB', ours), 'LAMB', ours, resume=True, **longer
    )
    assert again.iter == 2 * record['iterations'] and resumed['status'] == 'completed'
    assert len(resumed['evaluations']) == 4
    assert resumed['started'] == record['started']


def test_the_report_has_a_table_of_them(stock, runs, tmp_path):
    import pandas as pd

    from bocb_mm.report.cli import main

    assert main([str(runs[0]), '--out', str(tmp_path), '--quiet', '--no-figures']) == 0
    tables = [
        pd.read_csv(f, index_col=0) for f in tmp_path.glob('*.csv') if 'rankings' not in f.name
    ]
    table = next(t for t in tables if set(OPTIMIZERS) <= set(map(str, t.index)))
    assert table.shape[1] == 1 + (stock.ours is not None)
    assert table.loc[list(OPTIMIZERS)].notna().all(axis=None)
    assert (tmp_path / 'report.html').is_file()
