"""Steps on fake CUDA tensors: few dispatches, and none that waits for the device.

A fake tensor has a device and no data; reading a number of it raises, as it would wait on a GPU.
"""

import sys

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import bocb_mm.optimizers as optimizers

from .table import CASES
from .test_modes import SHAPES, Kernels, few, parameters


@pytest.fixture(autouse=True)
def fake_tensors_count_as_tensors(monkeypatch):
    """torch 2.9.1 takes ``foreach`` by default on an accelerator, for plain tensors alone."""
    module = sys.modules[torch.optim.Optimizer.__module__]
    monkeypatch.setattr(
        module, '_foreach_supported_types', [*module._foreach_supported_types, FakeTensor]
    )


@pytest.fixture(autouse=True)
def copies_keep_their_mode(monkeypatch):
    """``copy.deepcopy`` of a fake tensor copies its mode too, which then differs from the others'."""
    copied = lambda t, memo: torch.empty_like(t)
    monkeypatch.setattr(FakeTensor, '__deepcopy__', copied, raising=False)


@pytest.mark.parametrize('name', CASES)
def test_few_kernels_and_no_waiting(name):
    for copies in (1, 3):
        with FakeTensorMode():
            params = parameters(SHAPES * copies, device='cuda')
            optimizer = optimizers.build_optimizer(name, params, lr=1e-3, weight_decay=0.1)
            for _ in range(2):
                optimizer.step()
            if name == 'Sophia':
                optimizer.update_hessian(batch_size=32)
            with Kernels() as counter:
                optimizer.step()
        assert counter.count <= few(name, copies)
        for state in optimizer.state.values():
            averages = [t for t in state.values() if isinstance(t, torch.Tensor) and t.dim()]
            assert all(t.device.type == 'cuda' for t in averages)


@pytest.mark.parametrize('name', ['LAMB', 'Adan'])
def test_clipping_over_two_devices(name):
    with FakeTensorMode():
        groups = [{'params': parameters(SHAPES, device=f'cuda:{i}')} for i in range(2)]
        optimizer = optimizers.build_optimizer(name, groups, max_grad_norm=1.0)
        with NoWaiting():
            optimizer.step()
    assert all(state['step'] == 1 for state in optimizer.state.values())


class NoWaiting(TorchDispatchMode):
    """Raises where a value of the device is asked for; numbers on the CPU are 2."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        of_device = [t for t in tree_leaves(args) if isinstance(t, torch.Tensor) and t.is_cuda]
        if function is torch.ops.aten._local_scalar_dense.default:
            assert not of_device, 'a number is read from the device'
            return 2.0
        out = function(*args, **(kwargs or {}))
        if of_device and function.namespace == 'aten':
            to_cpu = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor) and t.is_cpu]
            assert not to_cpu, f'{function} copies from the device'
        return out


def moved(state, device):
    def anew(t):
        return torch.empty(t.shape, dtype=t.dtype, device=device)

    return tree_map_only(torch.Tensor, anew, state)


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
@pytest.mark.parametrize('name', CASES)
def test_no_waiting_after_loading(name, device):
    """A checkpoint read to either device: mmengine reads it to that of the model."""
    with FakeTensorMode():
        saved = optimizers.build_optimizer(
            name, params := parameters(SHAPES, device='cuda'), lr=1e-3
        )
        saved.step()
        fresh = optimizers.build_optimizer(name, params, lr=1e-3)
        fresh.load_state_dict(moved(saved.state_dict(), device))
        places = [{k: getattr(v, 'device', 0) for k, v in s.items()} for s in fresh.state.values()]
        expected = [
            {k: getattr(v, 'device', 0) for k, v in s.items()} for s in saved.state.values()
        ]
        assert places == expected
        with NoWaiting():
            fresh.step()


@pytest.mark.parametrize('name', ['Adam', 'AdamW'])
def test_counters_of_a_fused_kernel_lie_on_the_device(name):
    with FakeTensorMode():
        plain = optimizers.build_optimizer(
            name, params := parameters(SHAPES, device='cuda'), lr=1e-3
        )
        plain.step()
        fused = optimizers.build_optimizer(name, params, lr=1e-3, fused=True)
        fused.load_state_dict(moved(plain.state_dict(), 'cpu'))
        assert all(s['step'].is_cuda for s in fused.state.values())
        fused.step()
        plain.load_state_dict(moved(fused.state_dict(), 'cuda'))
        assert all(s['step'].is_cpu for s in plain.state.values())


@pytest.mark.parametrize('read', [lambda t: t.sum().item(), lambda t: t.cpu(), bool])
def test_waiting_is_noticed(read):
    with FakeTensorMode(), NoWaiting(), pytest.raises(AssertionError, match='device'):
        read(torch.empty((), device='cuda'))


def test_waiting_is_noticed_without_the_mode():
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        torch.empty(3, device='cuda').sum().item()
