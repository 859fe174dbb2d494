"""Schedule-free optimizers: the average is evaluated and saved, the gradient point trained."""

from __future__ import annotations

import copy

import pandas as pd
import pytest
import torch

from bocb_mm.errors import UserError
from bocb_mm.optim_wrappers import ScheduleFreeSwitch
from tests.optim_wrappers.toy import ToyNet, toy_batch

NAMES = ['ScheduleFreeSGD', 'ScheduleFreeAdamW', 'ScheduleFreeRAdam']


def make(name='ScheduleFreeSGD'):
    library = pytest.importorskip('pytorch_optimizer', reason='pytorch_optimizer is not installed')
    torch.manual_seed(0)
    model = ToyNet()
    optimizer = getattr(library, name)(model.parameters(), lr=0.1)
    return model, optimizer, ScheduleFreeSwitch.attach(optimizer, model)


def step(model, optimizer):
    optimizer.zero_grad()
    model(**toy_batch(), mode='loss')['loss'].backward()
    optimizer.step()


def by_hand(name, n):
    """Weights to evaluate after ``n`` steps, the modes switched by hand."""
    library = pytest.importorskip('pytorch_optimizer', reason='pytorch_optimizer is not installed')
    torch.manual_seed(0)
    model = ToyNet()
    optimizer = getattr(library, name)(model.parameters(), lr=0.1)
    optimizer.train()
    for _ in range(n):
        step(model, optimizer)
    optimizer.eval()
    return copy.deepcopy(dict(model.named_parameters()))


@pytest.mark.parametrize('name', NAMES)
def test_validation_and_checkpoint_see_the_average(name):
    model, optimizer, _ = make(name)
    expected = by_hand(name, 12)  # RAdam's rectification holds the first five back
    for _ in range(12):
        step(model, optimizer)
    moving = {k: v.detach().clone() for k, v in model.named_parameters()}
    model.eval()
    with torch.no_grad():
        model(**toy_batch())
    for key, value in model.named_parameters():
        torch.testing.assert_close(value, expected[key], msg=key)
    assert any(not torch.allclose(moving[k], expected[k], rtol=1e-4) for k in moving)
    # Back to training: the gradient point again, up to rounding.
    model.train()
    model(**toy_batch())
    for key, value in model.named_parameters():
        torch.testing.assert_close(value, moving[key], rtol=1e-4, atol=1e-6)
    saved = {k: v.clone() for k, v in model.state_dict().items()}
    for key in expected:
        torch.testing.assert_close(saved[key], expected[key].data, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('name', NAMES)
def test_validation_in_between_changes_nothing(name):
    """The same weights in the end, with and without evaluations and checkpoints on the way."""
    model, optimizer, switch = make(name)
    expected = by_hand(name, 12)
    for i in range(12):
        model.train()
        step(model, optimizer)
        if i % 4 == 3:
            model.eval()
            with torch.no_grad():
                model(**toy_batch())
            model.state_dict()
    switch.eval()
    for key, value in model.named_parameters():
        torch.testing.assert_close(value, expected[key], rtol=2e-4, atol=1e-5)


def test_resume_goes_on_where_it_was():
    model, optimizer, _ = make()
    for _ in range(3):
        step(model, optimizer)
    # A checkpoint as mmengine makes it: the model first, then the optimizer.
    weights = copy.deepcopy(model.state_dict())
    state = copy.deepcopy(optimizer.state_dict())
    resumed, second, _ = make()
    resumed.load_state_dict(weights)
    second.load_state_dict(state)
    for m, o in ((model, optimizer), (resumed, second)):
        for _ in range(3):
            step(m, o)
        m.eval()
        m(**toy_batch())
    for a, b in zip(model.parameters(), resumed.parameters()):
        assert torch.equal(a, b)


def test_a_copied_model_switches_nothing():
    """mmengine's EMA copies the model; its forwards and checkpoints are its own."""
    model, optimizer, switch = make()
    step(model, optimizer)
    twin = copy.deepcopy(model).eval()
    twin(**toy_batch())
    twin.state_dict()
    assert switch.training is True


def test_exchanged_weights_are_noticed():
    """EMA without the hook exchanges weights before validation: refused, not corrupted."""
    model, optimizer, _ = make()
    step(model, optimizer)
    for p in model.parameters():
        p.data.add_(1.0)
    model.eval()
    with pytest.raises(UserError, match='weights were exchanged since the last step'):
        model(**toy_batch())


def test_attached_once_and_only_where_it_applies():
    model, optimizer, switch = make()
    assert ScheduleFreeSwitch.attach(optimizer, model) is switch
    assert ScheduleFreeSwitch.attach(torch.optim.SGD(model.parameters(), lr=0.1), model) is None


@pytest.mark.parametrize('constructor', ['bocb_mm.OptimWrapperConstructor', None])
@pytest.mark.parametrize('ema', [False, True])
def test_in_a_runner(constructor, ema, tmp_path):
    """A stock config: by our constructor alone, or by the hook; with EMA the hook is needed."""
    from bocb_mm.hooks.schedule_free import ScheduleFreeHook
    from tests import tiny_training

    pytest.importorskip('pytorch_optimizer', reason='pytorch_optimizer is not installed')
    optim_wrapper = {
        'type': 'OptimWrapper',
        'optimizer': {'type': 'bocb_mm.pytorch_optimizer.schedulefreeadamw', 'lr': 0.05},
    }
    if constructor:
        optim_wrapper['constructor'] = constructor
    hooks = [] if constructor and not ema else [{'type': 'bocb_mm.ScheduleFreeHook'}]
    if ema:
        hooks.append({'type': 'EMAHook', 'begin_iter': 0, 'momentum': 0.1})
    needed, hooks = len(hooks), [*hooks, {'type': 'bocb_mm.LayerMetricsHook'}]
    runner = tiny_training.runner(tmp_path, optim_wrapper=optim_wrapper, custom_hooks=hooks)
    runner.train()
    switch = runner.optim_wrapper.optimizer._bocb_schedule_free_switch
    assert switch.training is False  # the last thing was a validation or a checkpoint
    assert any(isinstance(h, ScheduleFreeHook) for h in runner.hooks) == bool(needed)
    saved = torch.load(tmp_path / 'epoch_3.pth', weights_only=False)
    assert not saved['optimizer']['param_groups'][0]['train_mode']
    if not ema:
        for key, value in runner.model.state_dict().items():
            assert torch.equal(saved['state_dict'][key], value), key
        rows = pd.read_csv(tmp_path / 'layer_metrics.csv').drop_duplicates('layer', keep='last')
        for row in rows.itertuples():  # of the average too, as what is validated and saved
            weight = saved['state_dict'][f'{row.layer}.weight']
            assert row.l2_norm == pytest.approx(float(weight.norm()), rel=1e-6), row.layer


def test_the_hook_refuses_another_optimizer(tmp_path):
    from tests import tiny_training

    optim_wrapper = {'type': 'OptimWrapper', 'optimizer': {'type': 'SGD', 'lr': 0.05}}
    hooks = [{'type': 'bocb_mm.ScheduleFreeHook'}]
    runner = tiny_training.runner(tmp_path, optim_wrapper=optim_wrapper, custom_hooks=hooks)
    with pytest.raises(UserError, match=r'SGD has no train\(\) and eval\(\)'):
        runner.train()
