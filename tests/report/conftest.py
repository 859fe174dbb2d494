"""Fixtures of the report's tests."""

import pytest

from bocb_mm.report.cli import main
from tests.report.synthetic_runs import make_grid, make_record, save


def add_layers(place, n=12, head=0, shift=0.0):
    """A ``layer_metrics.csv`` of two snapshots in a run directory."""
    layers = [f'backbone.layer{i}.weight' for i in range(n)]
    layers += [f'bbox_head.layer{i}.weight' for i in range(head)]
    lines = ['layer,kind,shape,n_params,alpha,entropy,l2_norm,pca_energy,eligible,epoch,iteration']
    for epoch in (0, 4):
        for i, layer in enumerate(layers):
            alpha = '' if i == 3 else 2.5 + 0.2 * i + shift
            lines.append(
                f'{layer},conv,64x64,4096,{alpha},{5 + shift - 0.1 * i},{8 + i + epoch},'
                f'{0.9 - 0.02 * i},{i != 3},{epoch},{epoch * 100}'
            )
    (place / 'layer_metrics.csv').write_text('\n'.join(lines))


@pytest.fixture(scope='session')
def run_root(tmp_path_factory):
    """A small search of classification, a few detection runs, and runs that came to nothing."""
    root = tmp_path_factory.mktemp('runs')
    made = make_grid(
        root, ['SGD', 'AdamW', 'LION', 'LAMB', 'Adan'], ['R-50', 'DeiT-S', 'CNX-T'],
        rates=(1e-3, 1e-2), decays=(0.0, 0.05), seeds=2,
    )  # fmt: skip
    for i, place in enumerate(made):
        add_layers(place, shift=0.1 * (i % 7))
    for pretraining in ('sgd', 'rsb-a3'):
        for optimizer, ap in (('SGD', 0.366), ('AdamW', 0.371), ('LION', 0.321)):
            record = make_record(
                optimizer,
                'R-50',
                best=ap,
                task='detection',
                dataset='coco',
                pretraining=pretraining,
            )
            add_layers(save(root / pretraining, record), head=4)
    save(root, make_record('LARS', 'R-50', best=None, status='failed', message='out of memory'))
    save(root, make_record('NAdam', 'R-50', best=60.0, status='running'))
    return root


@pytest.fixture(scope='session')
def run_report(run_root, tmp_path_factory):
    """The report over ``run_root`` with every figure, made by the tool itself."""
    out = tmp_path_factory.mktemp('report')
    assert main([str(run_root), '--out', str(out), '--quiet']) == 0
    return out
