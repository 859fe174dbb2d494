"""Mixed precision: gradients are true gradients by the time anything reads them."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper

from bocb_mm.errors import UserError
from bocb_mm.optim_wrappers import AmpOptimWrapper
from bocb_mm.optimizers import build_optimizer, list_optimizers
from tests.optim_wrappers.toy import ToyNet, toy_batch


class Spy(torch.optim.SGD):
    """Keeps the gradients it was given."""

    def step(self, closure=None):
        self.seen = [p.grad.clone() for g in self.param_groups for p in g['params']]
        return super().step(closure)


def train(model, wrapper, n=1):
    for _ in range(n):
        out = model.train_step(toy_batch(), wrapper)
    return float(out['loss'])


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('clip', [None, {'max_norm': 0.01}])
def test_the_optimizer_reads_unscaled_gradients(dtype, clip):
    torch.manual_seed(0)
    plain = ToyNet()
    mixed = copy.deepcopy(plain)
    one = OptimWrapper(optimizer=Spy(plain.parameters(), lr=0.1), clip_grad=copy.copy(clip))
    two = AmpOptimWrapper(
        dtype=dtype, optimizer=Spy(mixed.parameters(), lr=0.1), clip_grad=copy.copy(clip)
    )
    train(plain, one)
    train(mixed, two)
    for a, b in zip(one.optimizer.seen, two.optimizer.seen):
        torch.testing.assert_close(a, b, rtol=0.1, atol=2e-3)
    if clip:
        norm = torch.cat([g.flatten() for g in two.optimizer.seen]).norm()
        assert norm == pytest.approx(0.01, rel=1e-3)


def test_fp16_is_scaled_and_bf16_is_not():
    scales = {
        dtype: AmpOptimWrapper(dtype=dtype, optimizer=Spy(ToyNet().parameters(), lr=0.1))
        for dtype in ('float16', 'bfloat16')
    }
    assert scales['float16'].loss_scaler.get_scale() == 2.0**16
    assert not scales['bfloat16'].loss_scaler.is_enabled()
    assert AmpOptimWrapper(optimizer=Spy(ToyNet().parameters(), lr=0.1)).cast_dtype in (
        torch.bfloat16,  # a CPU
        torch.float16,  # a GPU
    )


def test_the_forward_runs_in_the_low_precision():
    model = ToyNet()
    wrapper = AmpOptimWrapper(dtype='bfloat16', optimizer=Spy(model.parameters(), lr=0.1))
    kinds = []
    model.head.register_forward_hook(lambda m, a, out: kinds.append(out.dtype))
    train(model, wrapper)
    assert kinds == [torch.bfloat16]
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_infinite_gradients_leave_the_step_out_and_lower_the_scale():
    model = ToyNet()
    wrapper = AmpOptimWrapper(
        dtype='float16',
        loss_scale={'init_scale': 2.0**30},
        optimizer=Spy(model.parameters(), lr=0.1),
    )
    before = copy.deepcopy(model.state_dict())
    model.head.weight.data.mul_(1e4)
    before['head.weight'] = model.head.weight.detach().clone()
    train(model, wrapper)
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]), name
    assert not hasattr(wrapper.optimizer, 'seen')
    assert wrapper.loss_scaler.get_scale() == 2.0**29


@pytest.mark.parametrize('name', list_optimizers())
def test_no_optimizer_sees_the_loss_scale(name):
    """Two loss scales, the same weights after 3 steps: a power of two leaves no other trace."""
    torch.manual_seed(0)
    one = ToyNet()
    two = copy.deepcopy(one)
    start = copy.deepcopy(one.state_dict())
    for model, scale in ((one, 256.0), (two, 4096.0)):
        rate = 1.0 if name == 'Prodigy' else 0.01  # its own rate starts at 1e-6
        optimizer = build_optimizer(name, model.parameters(), lr=rate, weight_decay=0.01)
        train(model, AmpOptimWrapper(dtype='float16', loss_scale=scale, optimizer=optimizer), 3)
    for (key, a), b in zip(one.named_parameters(), two.parameters()):
        moved = (a - start[key]).norm()
        assert moved > 0, key
        assert (a - b).norm() <= 0.02 * moved, key


def test_state_round_trip():
    first, second = (
        AmpOptimWrapper(dtype='float16', optimizer=Spy(ToyNet().parameters(), lr=0.1))
        for _ in range(2)
    )
    first.loss_scaler.scale(torch.ones(()))  # the scale exists from its first use
    first.loss_scaler.update(512.0)
    second.load_state_dict(first.state_dict())
    assert second.loss_scaler.get_scale() == 512.0


def test_a_training_in_bf16_goes_on_in_fp16():
    begun = AmpOptimWrapper(dtype='bfloat16', optimizer=Spy(ToyNet().parameters(), lr=0.1))
    goes_on = AmpOptimWrapper(dtype='float16', optimizer=Spy(ToyNet().parameters(), lr=0.3))
    goes_on.load_state_dict(begun.state_dict())
    assert goes_on.loss_scaler.get_scale() == 2.0**16
    assert goes_on.optimizer.param_groups[0]['lr'] == 0.1
    begun.load_state_dict(goes_on.state_dict())


@pytest.mark.parametrize(
    'bad', [{'dtype': 'float8'}, {'dtype': 16}, {'loss_scale': 'big'}], ids=str
)
def test_refused(bad):
    with pytest.raises(UserError, match='expected'):
        AmpOptimWrapper(optimizer=Spy(ToyNet().parameters(), lr=0.1), **bad)


def test_a_pose_model_trains_in_bfloat16():
    """mmpose's heads hand their output to numpy, which has no bfloat16, to log an accuracy."""
    from mmengine.registry import init_default_scope
    from mmpose.models import build_pose_estimator
    from mmpose.testing import get_packed_inputs

    init_default_scope('mmpose')
    codec = {'type': 'MSRAHeatmap', 'input_size': (64, 64), 'heatmap_size': (8, 8), 'sigma': 1}
    model = build_pose_estimator({
        'type': 'TopdownPoseEstimator',
        'data_preprocessor': {'type': 'PoseDataPreprocessor'},
        'backbone': {'type': 'ResNet', 'depth': 18, 'base_channels': 8},
        'head': {
            'type': 'HeatmapHead', 'in_channels': 64, 'out_channels': 17,
            'deconv_out_channels': (8, 8), 'deconv_kernel_sizes': (4, 4),
            'loss': {'type': 'KeypointMSELoss', 'use_target_weight': True}, 'decoder': codec,
        },
    })  # fmt: skip
    wrapper = AmpOptimWrapper(dtype='bfloat16', optimizer=Spy(model.parameters(), lr=0.1))
    data = get_packed_inputs(2, img_shape=(64, 64), input_size=(64, 64), heatmap_size=(8, 8))
    logs = model.train_step(data, wrapper)
    assert logs['loss'].isfinite() and logs['acc_pose'].isfinite()
