"""The hook on mmengine's Runner with a model of one layer."""

import importlib.metadata
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import METRICS, MODELS
from mmengine.runner import Runner


class OneLayer(BaseModel):
    def __init__(self, fail_at=-1):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.fixed = torch.nn.Parameter(torch.zeros(3), requires_grad=False)
        self.fail_at, self.calls = fail_at, 0

    def forward(self, *inputs, mode='tensor'):
        if mode == 'loss':
            self.calls += 1
            if self.calls == self.fail_at:
                raise ValueError('broken\npicture')
            return {'loss': self.layer(torch.stack(inputs)).square().mean()}
        return [{}]


class Scripted(BaseMetric):
    """Returns the values it was given, one an evaluation."""

    def __init__(self, values, prefix):
        super().__init__(prefix=prefix)
        self.values = list(values)

    def process(self, data_batch, data_samples):
        self.results.append({})

    def compute_metrics(self, results):
        value = self.values.pop(0)
        return {} if value is None else {'top1': value}


@pytest.fixture(autouse=True)
def registered():
    MODELS.register_module(module=OneLayer, force=True)
    METRICS.register_module(module=Scripted, force=True)


def run(work_dir, values=(1.0, 3.0, 2.0), fail_at=-1, **more):
    data = [torch.ones(2) for _ in range(4)]
    loader = {
        'batch_size': 2,
        'dataset': data,
        'sampler': {'type': 'DefaultSampler', 'shuffle': False},
    }
    hook = {
        'type': 'bocb_mm.RunRecordHook', 'task': 'classification', 'dataset': 'toy',
        'backbone': 'r-50', 'metric': 'accuracy/top1', 'gamma': 3,
    }  # fmt: skip
    cfg = Config(
        {
            'model': {'type': 'OneLayer', 'fail_at': fail_at},
            'work_dir': str(work_dir),
            'train_dataloader': loader,
            'val_dataloader': loader,
            'val_evaluator': {'type': 'Scripted', 'values': list(values), 'prefix': 'accuracy'},
            'train_cfg': {'by_epoch': True, 'max_epochs': len(values), 'val_interval': 1},
            'val_cfg': {},
            'optim_wrapper': {
                'optimizer': {'type': 'bocb_mm.adamw', 'lr': 0.01, 'weight_decay': 0.1}
            },
            'custom_hooks': [hook],
            'default_hooks': {'checkpoint': None},
            'experiment_name': work_dir.name,
            'randomness': {'seed': 4},
            'log_level': 'ERROR',
            **more,
        }
    )
    return Runner.from_cfg(cfg)


def record(work_dir):
    return json.loads((work_dir / 'run.json').read_text())


def test_a_completed_run_is_on_record(tmp_path):
    run(tmp_path).train()
    found = record(tmp_path)
    assert found['status'] == 'completed' and found['finished'] >= found['started']
    assert (found['backbone'], found['optimizer']) == ('R-50', 'AdamW')
    assert (found['lr'], found['weight_decay'], found['seed']) == (0.01, 0.1, 4)
    assert [e['accuracy/top1'] for e in found['evaluations']] == [1.0, 3.0, 2.0]
    assert (found['best'], found['last']) == (3.0, 2.0)
    assert (found['epochs'], found['max_epochs'], found['iterations']) == (3, 3, 6)
    assert (found['n_parameters'], found['n_trainable']) == (6, 3)
    assert found['optimizer_settings']['eps'] == 1e-8
    assert found['optimizer_step_ms'] > 0 and found['seconds_per_iteration'] > 0
    assert [pair[0] for pair in found['losses']] == [1, 2, 3, 4, 5, 6]
    assert found['versions']['torch'] == importlib.metadata.version('torch')


def test_the_record_is_there_while_the_run_goes_on(tmp_path):
    runner = run(tmp_path, fail_at=4)
    with pytest.raises(ValueError):
        runner.train()
    found = record(tmp_path)
    assert found['status'] == 'running' and len(found['evaluations']) == 1


def test_a_failure_is_told_by_the_training_glue(tmp_path):
    from bocb_mm.launch.train import _record_failure

    runner = run(tmp_path, fail_at=4)
    with pytest.raises(ValueError) as error:
        runner.train()
    _record_failure(runner, error.value)
    found = record(tmp_path)
    assert found['status'] == 'failed' and found['message'] == 'ValueError: broken picture'


def test_an_evaluation_that_found_nothing_counts_as_zero(tmp_path):
    run(tmp_path, values=[None]).train()
    assert record(tmp_path)['best'] == 0.0


def test_an_evaluator_without_the_headline_metric_gives_no_result_and_a_warning(tmp_path):
    run(
        tmp_path, val_evaluator={'type': 'Scripted', 'values': [1.0, 2.0, 3.0], 'prefix': 'pck'}
    ).train()
    found = record(tmp_path)
    assert (found['best'], found['last'], found['status']) == (None, None, 'completed')
    assert [e['pck/top1'] for e in found['evaluations']] == [1.0, 2.0, 3.0]
    (warning,) = found['warnings']
    assert 'accuracy/top1 is not among the results (pck/top1)' in warning


def test_what_another_hook_found_closes_the_record(tmp_path):
    runner = run(tmp_path)
    runner.message_hub.update_info('bocb_mm/status', 'diverged')
    runner.message_hub.update_info('bocb_mm/message', 'loss NaN at iteration 3')
    runner.message_hub.update_info('bocb_mm/warnings', ['layer metrics failed'])
    runner.train()
    found = record(tmp_path)
    assert found['status'] == 'diverged' and 'iteration 3' in found['message']
    assert found['warnings'] == ['layer metrics failed']


def test_the_hash_tells_configs_apart_but_not_seeds(tmp_path):
    hashes = []
    for name, more in {
        'a': {},
        'b': {'randomness': {'seed': 9}},
        'c': {'param_scheduler': [{'type': 'StepLR', 'step_size': 1}]},
    }.items():
        runner = run(tmp_path / name, **more)
        hook = next(h for h in runner.hooks if type(h).__name__ == 'RunRecordHook')
        hashes.append(hook._identity(runner)['config_hash'])
    assert hashes[0] == hashes[1] != hashes[2]
