"""mmcv's operators by the stand-ins: golden numbers of the compiled ones, formulas, gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.stand_ins.cases import CASES, boxes, tensor, with_gradients

GOLDEN = Path(__file__).with_name('golden') / 'operators.npz'


@pytest.fixture(scope='module')
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture
def extension():
    """``mmcv._ext``, compiled or ours."""
    import mmcv.ops  # noqa: F401
    from mmcv import _ext

    return _ext


@pytest.fixture
def ours(extension, monkeypatch):
    """``mmcv._ext`` with the stand-ins, also where mmcv is compiled."""
    from bocb_mm.stand_ins.operators import OPERATORS

    for name, operator in OPERATORS.items():
        monkeypatch.setattr(extension, name, operator)
    return extension


def assert_equal(found, expected):
    """The same, indices exactly and numbers within 1e-5."""
    assert set(found) == set(expected)
    for key, value in expected.items():
        value, got = np.asarray(value), np.asarray(found[key])
        assert got.shape == value.shape, key
        np.testing.assert_allclose(got, value, rtol=1e-5, atol=1e-5, err_msg=key)


@pytest.mark.parametrize('name', CASES)
def test_equals_the_golden_numbers_of_compiled_mmcv(name, golden, ours):
    """By mmcv 2.1.0's compiled operators on a CPU: make_golden.py."""
    expected = {k.partition('/')[2]: v for k, v in golden.items() if k.startswith(f'{name}/')}
    assert_equal(CASES[name](), expected)


@pytest.mark.parametrize('name', CASES)
def test_the_operators_at_hand_equal_the_golden_numbers(name, golden, extension):
    """Where mmcv is compiled this compares with it, on its version and this machine."""
    expected = {k.partition('/')[2]: v for k, v in golden.items() if k.startswith(f'{name}/')}
    assert_equal(CASES[name](), expected)


def test_of_equal_scores_the_first_box_wins(ours):
    from mmcv.ops import nms

    kept = nms(torch.tensor([[0.0, 0, 4, 4]]).repeat(300, 1), torch.ones(300), 0.5)[1]
    assert kept.tolist() == [0]


# mmcv's compiled operators below exist for CUDA only: their formulas are written out here.


def focal_formula(x, target, weight, gamma, alpha):
    """Loss and derivative by Lin et al., equation 5, in float64."""
    x = x.double().requires_grad_()
    own = torch.nn.functional.one_hot(target, x.shape[1] + 1)[:, :-1].bool()
    p = x.sigmoid()
    log_p, log_q = -torch.log1p(torch.exp(-x)), -torch.log1p(torch.exp(x))
    log_p, log_q = torch.where(x < -50, x, log_p), torch.where(x > 50, -x, log_q)
    loss = torch.where(own, -alpha * (1 - p) ** gamma * log_p, -(1 - alpha) * p**gamma * log_q) * (
        1 if weight is None else weight[target][:, None]
    )
    (grad,) = torch.autograd.grad(loss.sum(), x)
    return loss.detach(), grad


@pytest.mark.parametrize('gamma', [0.0, 1.5, 2.0])
@pytest.mark.parametrize('weighted', [False, True])
def test_sigmoid_focal_loss_is_its_formula(gamma, weighted, ours):
    from mmcv.ops import sigmoid_focal_loss

    x = tensor(40, 6, scale=20)  # as far as +-60
    target = torch.from_numpy(np.random.default_rng(1).integers(0, 6 + (not weighted), 40))
    weight = tensor(6, seed=2).exp() if weighted else None
    loss, grad = focal_formula(x, target, weight, gamma, 0.25)
    leaf = x.clone().requires_grad_()
    out = sigmoid_focal_loss(leaf, target, gamma, 0.25, weight, 'none')
    torch.testing.assert_close(out.double(), loss, rtol=1e-5, atol=1e-5)
    out.sum().backward()
    torch.testing.assert_close(leaf.grad.double(), grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_sigmoid_focal_loss_equals_the_one_mmdet_runs_on_a_cpu(reduction, ours):
    from mmcv.ops import sigmoid_focal_loss
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    target = torch.from_numpy(np.random.default_rng(1).integers(0, 81, 50))
    own = torch.nn.functional.one_hot(target, 81)[:, :-1]
    found = with_gradients(
        lambda x: sigmoid_focal_loss(x, target, 2.0, 0.25, None, reduction), x=tensor(50, 80)
    )
    expected = with_gradients(
        lambda x: (
            py_sigmoid_focal_loss(x, own, reduction='none').sum()
            / (50 if reduction == 'mean' else 1)
        ),
        x=tensor(50, 80),
    )
    assert_equal(found, expected)


def test_sigmoid_focal_loss_of_nothing(ours):
    from mmcv.ops import sigmoid_focal_loss

    leaf = torch.zeros(0, 5, requires_grad=True)
    sigmoid_focal_loss(leaf, torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, 'sum').backward()
    assert leaf.grad.shape == (0, 5)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_sigmoid_focal_loss_in_half_precision(dtype, ours):
    """Worked out in float32: only the input and the result are rounded."""
    from mmcv.ops import sigmoid_focal_loss

    x = tensor(30, 6, scale=6).to(dtype)
    target = torch.from_numpy(np.random.default_rng(1).integers(0, 7, 30))
    loss, grad = focal_formula(x, target, None, 2.0, 0.25)
    leaf = x.clone().requires_grad_()
    out = sigmoid_focal_loss(leaf, target, 2.0, 0.25, None, 'none')
    assert out.dtype == dtype
    torch.testing.assert_close(out, loss.to(dtype))
    out.sum().backward()
    torch.testing.assert_close(leaf.grad, grad.to(dtype))


def plain_roi_pool(image, box, bins, scale):
    """RoIPool of one box, as mmcv's CUDA kernel has it: float bins, the last pixel included."""
    x1, y1, x2, y2 = (np.float32(v) for v in box)
    x1, y1, x2, y2 = x1 * scale, y1 * scale, (x2 + 1) * scale, (y2 + 1) * scale
    height, width = (y2 - y1) / bins[0], (x2 - x1) / bins[1]
    out = torch.zeros(image.shape[0], *bins)
    for y in range(bins[0]):
        for x in range(bins[1]):
            rows = slice(
                *np.clip(
                    [np.floor(y * height + y1), np.ceil((y + 1) * height + y1)], 0, image.shape[1]
                ).astype(int)
            )
            columns = slice(
                *np.clip(
                    [np.floor(x * width + x1), np.ceil((x + 1) * width + x1)], 0, image.shape[2]
                ).astype(int)
            )
            part = image[:, rows, columns].flatten(1)
            if part.shape[1]:
                out[:, y, x] = part.amax(1)
    return out


def test_roi_pool_takes_the_greatest_value_of_each_bin(ours):
    from mmcv.ops import roi_pool

    corners, _ = boxes(15)
    corners[3] = torch.tensor([50.0, 50, 20, 20])  # inside out: zeros
    corners[4] = torch.tensor([500.0, 500, 600, 600])  # outside: zeros
    rois = torch.cat([torch.arange(15)[:, None] % 2, corners], 1)
    scale = np.float32(0.0625)

    def plain(input):
        return torch.stack(
            [
                plain_roi_pool(input[int(i)], box, (3, 2), scale)
                if box[2] + 1 > box[0]
                else torch.zeros(4, 3, 2)
                for i, *box in rois.tolist()
            ]
        )

    found = with_gradients(
        lambda input: roi_pool(input, rois, (3, 2), 0.0625), input=tensor(2, 4, 17, 19)
    )
    assert_equal(found, with_gradients(plain, input=tensor(2, 4, 17, 19)))


def test_roi_pool_of_no_box(ours):
    from mmcv.ops import roi_pool

    leaf = tensor(1, 2, 5, 5).requires_grad_()
    roi_pool(leaf, torch.zeros(0, 5), (2, 2), 1.0).sum().backward()
    assert not leaf.grad.any()


def test_multi_scale_attention_and_its_gradients_are_mmcvs_own_form(ours):
    from mmcv.ops.multi_scale_deform_attn import (
        MultiScaleDeformableAttnFunction,
        multi_scale_deformable_attn_pytorch,
    )

    shapes = torch.tensor([[6, 5], [3, 2]])
    inputs = {
        'value': tensor(2, 36, 4, 8),
        'locations': tensor(2, 7, 4, 2, 3, 2, seed=1).sigmoid(),
        'weights': tensor(2, 7, 4, 2, 3, seed=2).softmax(-1),
    }
    starts = torch.tensor([0, 30])
    found = with_gradients(
        lambda value, locations, weights: MultiScaleDeformableAttnFunction.apply(
            value, shapes, starts, locations, weights, 64
        ),
        **inputs,
    )
    expected = with_gradients(
        lambda value, locations, weights: multi_scale_deformable_attn_pytorch(
            value, shapes, locations, weights
        ),
        **inputs,
    )
    assert_equal(found, expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_worked_out_in_float32(dtype, ours):
    """Each operator's result is the float32 one of the rounded input, rounded."""
    from mmcv import ops

    corners, scores = boxes(60)
    rois = torch.cat([torch.zeros(60, 1), corners], 1).to(dtype)
    image, offset = tensor(1, 4, 20, 20).to(dtype), tensor(1, 18, 20, 20, seed=1).to(dtype)
    mask, weight = tensor(1, 9, 20, 20, seed=2).sigmoid().to(dtype), tensor(3, 4, 3, 3).to(dtype)
    calls = {
        'nms': lambda cast: ops.nms(cast(corners.to(dtype)), cast(scores.to(dtype)), 0.5)[1],
        'roi_align': lambda cast: ops.roi_align(cast(image), cast(rois), (2, 2), 0.06),
        'roi_pool': lambda cast: ops.roi_pool(cast(image), cast(rois), (2, 2), 0.0625),
        'deform': lambda cast: ops.deform_conv2d(cast(image), cast(offset), cast(weight), 1, 1),
        'modulated': lambda cast: ops.modulated_deform_conv2d(
            cast(image), cast(offset), cast(mask), cast(weight), None, 1, 1
        ),
    }
    for name, call in calls.items():
        out, wide = call(lambda x: x), call(torch.Tensor.float)
        torch.testing.assert_close(out, wide.to(out.dtype), msg=name)


def test_numpy_arrays_stay_numpy_arrays(ours):
    from mmcv.ops import nms

    corners, scores = boxes(50)
    dets, kept = nms(corners.numpy(), scores.numpy(), 0.5)
    assert isinstance(dets, np.ndarray) and isinstance(kept, np.ndarray)
    assert (kept == nms(corners, scores, 0.5)[1].numpy()).all()
