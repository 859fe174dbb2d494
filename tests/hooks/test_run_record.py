"""The hook on mmengine's Runner with a model of one layer."""

import importlib.metadata
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import METRICS, MODELS
from mmengine.runner import Runner

from bocb_mm.checkpoints.read import install_safe_loading
from bocb_mm.errors import UserError
from bocb_mm.hooks.stopping import record_failure
from bocb_mm.runs import lock


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
                raise ValueError('broken\nimage')
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


def run(work_dir, values=(1.0, 3.0, 2.0), fail_at=-1, named_by_hand=True, **more):
    data = [torch.ones(2) for _ in range(4)]
    loader = {
        'batch_size': 2,
        'dataset': data,
        'sampler': {'type': 'DefaultSampler', 'shuffle': False},
    }
    named = {
        'task': 'classification', 'dataset': 'toy', 'backbone': 'r-50',
        'metric': 'accuracy/top1', 'gamma': 3,
    }  # fmt: skip
    hook = {'type': 'bocb_mm.RunRecordHook', **(named if named_by_hand else {})}
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


def test_a_run_by_iterations_has_no_epochs(tmp_path):
    loop = {'by_epoch': False, 'max_iters': 3, 'val_interval': 1}  # mmengine: one epoch, of none
    run(tmp_path, train_cfg=loop).train()
    found = record(tmp_path)
    assert (found['max_epochs'], found['epochs'], found['iterations']) == (None, 0, 3)


def test_the_record_is_there_while_the_run_goes_on(tmp_path):
    runner = run(tmp_path, fail_at=4)
    with pytest.raises(ValueError):
        runner.train()
    found = record(tmp_path)
    assert found['status'] == 'running' and len(found['evaluations']) == 1


def test_a_failure_is_told_by_the_training_glue(tmp_path):
    runner = run(tmp_path, fail_at=4)
    with pytest.raises(ValueError) as error:
        runner.train()
    record_failure(runner, error.value)
    found = record(tmp_path)
    assert found['status'] == 'failed' and found['message'] == 'ValueError: broken image'


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
    assert 'accuracy/top1 is not among the results (pck/top1)' in found['warnings'][0]
    assert 'without a result to compare: accuracy/top1 was never measured' in found['warnings'][1]


def test_what_another_hook_found_closes_the_record(tmp_path):
    runner = run(tmp_path)
    runner.message_hub.update_info('bocb_mm/status', 'diverged')
    runner.message_hub.update_info('bocb_mm/message', 'loss NaN at iteration 3')
    runner.message_hub.update_info('bocb_mm/warnings', ['layer metrics failed'])
    runner.train()
    found = record(tmp_path)
    assert found['status'] == 'diverged' and 'iteration 3' in found['message']
    assert found['warnings'] == ['layer metrics failed']


def evaluator(prefix, values=(1.0, 3.0, 2.0)):
    return {'type': 'Scripted', 'values': list(values), 'prefix': prefix}


def test_nothing_need_be_named_in_a_project_nobody_knows(tmp_path):
    run(tmp_path, named_by_hand=False, val_evaluator=evaluator('my')).train()
    found = record(tmp_path)
    assert (found['task'], found['dataset'], found['backbone']) == ('', '', 'OneLayer')
    assert (found['metric'], found['best'], found['status']) == ('my/top1', 3.0, 'completed')
    assert found['warnings'] == []
    assert (found['n_train'], found['batch_size']) == (4, 2)


def test_of_an_error_the_smallest_is_best(tmp_path):
    saver = {'type': 'CheckpointHook', 'save_best': 'loss/top1', 'rule': 'less'}
    hooks = {'checkpoint': saver}
    run(tmp_path, named_by_hand=False, val_evaluator=evaluator('loss'), default_hooks=hooks).train()
    found = record(tmp_path)
    assert (found['metric'], found['metric_rule']) == ('loss/top1', 'less')
    assert (found['best'], found['last']) == (1.0, 2.0)


@pytest.mark.parametrize('method', ['before_run', 'before_train', 'after_val_epoch', 'after_train'])
def test_an_error_of_the_hook_itself_is_a_warning_and_nothing_more(method, tmp_path, monkeypatch):
    from bocb_mm.hooks import run_record

    culprit = {
        'before_run': 'identity', 'before_train': '_optimizer_settings',
        'after_val_epoch': 'among', 'after_train': '_peak_memory_mb',
    }[method]  # fmt: skip

    def broken(*_):
        raise KeyError('a fault of ours')

    monkeypatch.setattr(run_record, culprit, broken)
    runner = run(tmp_path)
    runner.train()
    assert runner.iter == 6
    warnings = runner.message_hub.runtime_info['bocb_mm/warnings']
    assert any(f'RunRecordHook.{method}' in w and 'a fault of ours' in w for w in warnings)


def test_the_process_of_a_run_holds_the_lock_while_it_lasts(tmp_path):
    held = []

    class Look(Hook):
        def after_train_iter(self, runner, **_):
            held.append(lock.is_held(tmp_path))

    runner = run(tmp_path)
    runner.register_hook(Look())
    runner.train()
    assert held == [True] * 6 and lock.is_held(tmp_path) is False


def resumed(work_dir, start, values, **more):
    more = {'resume': True, 'load_from': str(start), 'default_hooks': {}, **more}
    return run(work_dir, values, **more)


def test_a_resumed_run_is_the_run_that_was_started(tmp_path):
    """Its names, pre-training, rate and hash were settled at the first start."""
    first = {'pretraining': 'LARS', 'lr_origin': 'sourced', 'lr_source': 'Table A3'}
    install_safe_loading()
    run(tmp_path, (1.0, 3.0), default_hooks={}, **first).train()
    before = record(tmp_path)
    optimizer = {'type': 'bocb_mm.adamw', 'lr': 0.5, 'weight_decay': 0.1}
    changed = {'optim_wrapper': {'optimizer': optimizer}, 'randomness': {'seed': 9}}
    resumed(tmp_path, tmp_path / 'epoch_1.pth', (2.0, 2.5, 0.5), **changed).train()
    found = record(tmp_path)
    same = ('pretraining', 'lr', 'seed', 'config_hash', 'started', 'lr_origin', 'lr_source')
    assert {k: found[k] for k in same} == {k: before[k] for k in same}
    assert found['pretraining'] == 'LARS' and found['lr'] == 0.01
    assert [e['accuracy/top1'] for e in found['evaluations']] == [1.0, 2.0, 2.5]
    assert (found['epochs'], found['iterations']) == (3, 6)


def test_a_run_that_goes_on_in_another_directory_is_the_same_run(tmp_path):
    install_safe_loading()
    run(tmp_path / 'a', (1.0, 3.0), default_hooks={}, pretraining='LARS').train()
    resumed(tmp_path / 'b', tmp_path / 'a' / 'epoch_1.pth', (2.0, 2.5)).train()
    assert record(tmp_path / 'b')['pretraining'] == 'LARS'
    assert [e['accuracy/top1'] for e in record(tmp_path / 'b')['evaluations']] == [1.0, 2.0]


def test_a_resume_that_is_refused_leaves_the_record_as_it_was(tmp_path):
    run(tmp_path, default_hooks={}).train()
    before = (tmp_path / 'run.json').read_bytes()
    broken = resumed(tmp_path, tmp_path / 'gone.pth', (1.0,))
    with pytest.raises(UserError, match='gone.pth') as error:
        broken.train()
    record_failure(broken, error.value)
    assert (tmp_path / 'run.json').read_bytes() == before
