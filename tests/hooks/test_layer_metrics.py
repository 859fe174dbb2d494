"""LayerMetricsHook: measures, changes nothing, never ends a training."""

import copy
import json

import pandas as pd
import pytest
import torch
from torch import nn

from bocb_mm.errors import UserError


@pytest.fixture(scope='module')
def toy():
    """A toy model and data for mmengine's Runner."""
    from mmengine.model import BaseModel

    class Toy(BaseModel):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Sequential(
                nn.Linear(24, 32), nn.Dropout(0.5), nn.BatchNorm1d(32), nn.Linear(32, 24)
            )
            self.head = nn.Linear(24, 4)

        def forward(self, inputs, target, mode='tensor'):
            out = self.head(self.backbone(inputs))
            if mode == 'loss':
                return {'loss': nn.functional.cross_entropy(out, target)}
            return out

    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return 32

        def __getitem__(self, index):
            generator = torch.Generator().manual_seed(index)
            noise = torch.rand(24)  # the global generator: the hook must not move it
            return {'inputs': torch.randn(24, generator=generator) + noise, 'target': index % 4}

    return Toy, Data


def run(toy, work_dir, *hooks, epochs=2, by_epoch=True, resume=False, model=None, **kwargs):
    from mmengine.hooks import Hook
    from mmengine.runner import Runner

    losses = []

    class Record(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            losses.append(float(outputs['loss']))

    model_class, data_class = toy
    torch.manual_seed(0)
    loop = dict(by_epoch=True, max_epochs=epochs) if by_epoch else dict(by_epoch=False, max_iters=8)
    runner = Runner(
        model=model or model_class(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=data_class(), batch_size=8, num_workers=0, collate_fn=dict(type='default_collate'),
            sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True),
        ),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        custom_hooks=[Record(), *hooks],
        randomness=dict(seed=0),
        default_scope='mmengine',
        experiment_name=f'{work_dir.name}{torch.randint(1 << 30, ()).item()}',
        log_level='WARNING',
        resume=resume,
        **kwargs,
    )  # fmt: skip
    runner.train()
    return runner, losses


HOOK = dict(type='bocb_mm.LayerMetricsHook')


def test_writes_one_row_a_layer_and_snapshot(toy, tmp_path):
    runner, _ = run(toy, tmp_path, HOOK, epochs=3)
    frame = pd.read_csv(tmp_path / 'layer_metrics.csv')
    assert list(frame['iteration'].unique()) == [0, 4, 8, 12]
    assert list(frame['epoch'].unique()) == [0, 1, 2, 3]
    assert list(frame['layer'].unique()) == ['backbone.0', 'backbone.3', 'head']
    start = frame[frame['iteration'] == 0].set_index('layer')
    end = frame[frame['iteration'] == 12].set_index('layer')
    assert (start['l2_norm'] != end['l2_norm']).all()
    weight = runner.model.head.weight
    assert end.loc['head', 'l2_norm'] == pytest.approx(float(weight.norm()), rel=1e-6)
    scalars = [json.loads(t) for t in next(tmp_path.rglob('scalars.json')).read_text().splitlines()]
    assert sum('layer_metrics/alpha' in s for s in scalars) == 4


def test_training_is_bit_equal_with_and_without(toy, tmp_path):
    with_hook, a = run(toy, tmp_path / 'a', HOOK)
    without, b = run(toy, tmp_path / 'b')
    assert a == b and len(a) == 8
    for p, q in zip(with_hook.model.parameters(), without.model.parameters()):
        assert torch.equal(p, q)
        assert p.grad is q.grad is None
    assert with_hook.model.training == without.model.training


def test_iterations_layers_and_scalars(toy, tmp_path):
    hook = HOOK | dict(by_epoch=False, interval=3, layers='backbone.*', at_start=False)
    run(toy, tmp_path, hook | dict(scalars='layers'), by_epoch=False)
    frame = pd.read_csv(tmp_path / 'layer_metrics.csv')
    assert list(frame['iteration'].unique()) == [3, 6, 8]
    assert set(frame['layer']) == {'backbone.0', 'backbone.3'}
    assert '"backbone.3/entropy"' in next(tmp_path.rglob('scalars.json')).read_text()


def test_an_error_of_its_own_is_in_run_json_and_does_not_end_the_run(toy, tmp_path):
    (tmp_path / 'layer_metrics.csv').mkdir(parents=True)  # nothing can be written there
    record = dict(
        type='bocb_mm.RunRecordHook', task='classification', dataset='toy', backbone='toy',
        metric='accuracy/top1',
    )  # fmt: skip
    _, losses = run(toy, tmp_path, HOOK, record, epochs=1)
    assert len(losses) == 4
    told = json.loads((tmp_path / 'run.json').read_text())
    assert told['status'] == 'completed'
    assert any('no snapshot at iteration 4' in text for text in told['warnings'])


def test_not_finite_weights_are_rows_not_errors(toy, tmp_path):
    model = toy[0]()
    with torch.no_grad():
        model.head.weight.fill_(float('nan'))
    run(toy, tmp_path, HOOK, epochs=1, model=model)
    frame = pd.read_csv(tmp_path / 'layer_metrics.csv')
    assert (frame.loc[frame['layer'] == 'head', 'reason'] == 'not finite').all()


def test_resume_goes_on_where_the_checkpoint_is(toy, tmp_path):
    run(toy, tmp_path, HOOK, epochs=2)
    path = tmp_path / 'layer_metrics.csv'
    whole = path.read_text()
    # As if the run was killed after a snapshot that no checkpoint followed.
    path.write_text(whole + whole.splitlines()[-1][: -len('2,8')] + '9,36\n')
    from bocb_mm.checkpoints.read import install_safe_loading

    install_safe_loading()
    run(toy, tmp_path, HOOK, epochs=3, resume=True)
    frame = pd.read_csv(path)
    assert list(frame['iteration'].unique()) == [0, 4, 8, 12]
    assert len(frame) == 12
    assert path.read_text().startswith(whole)


def test_a_fresh_run_does_not_keep_an_old_file(toy, tmp_path):
    run(toy, tmp_path, HOOK, epochs=2)
    run(toy, tmp_path, HOOK, epochs=1)
    assert list(pd.read_csv(tmp_path / 'layer_metrics.csv')['iteration'].unique()) == [0, 4]


@pytest.mark.parametrize(
    ('wrong', 'named'),
    [({'interval': 0}, 'interval 0'), ({'binz': 3}, 'binz'), ({'bins': 1}, 'bins=1'),
     ({'fit': 'kss'}, 'did you mean ks'), ({'scalars': 'all'}, "'all'")],
)  # fmt: skip
def test_wrong_arguments_are_named_at_once(wrong, named):
    from bocb_mm.hooks.layer_metrics import LayerMetricsHook

    with pytest.raises(UserError, match='.*') as error:
        LayerMetricsHook(**copy.deepcopy(wrong))
    assert named in str(error.value)
