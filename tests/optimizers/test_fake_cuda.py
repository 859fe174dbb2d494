"""Steps on fake CUDA tensors: few dispatches, and none that waits for the device.

A fake tensor has a device and no data; reading a number of it raises, as it would wait on a GPU.
"""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import bocb_mm.optimizers as optimizers

from .table import CASES
from .test_ways_to_run import Dispatches

SHAPES = [(8, 4, 3, 3), (8,), (8,), (16, 8, 1, 1), (16,), (10, 16), (1, 1, 16), ()]
# Its own classes choose in torch 2.9.1 by the type of a tensor, and take loops for a fake one; fused
# SGD has no fake kernel. So lists are asked for; which way they choose on a GPU is not tested here.
LISTS = {'SGD', 'Adamax', 'NAdam', 'RAdam', 'AdaGrad', 'AdaDelta', 'RMSProp'}


class AtenDispatches(Dispatches):
    """Leaves out the questions of a fake tensor for its device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace != 'aten':
            return function(*args, **(kwargs or {}))
        return super().__torch_dispatch__(function, types, args, kwargs)


def weights(copies):
    params = [nn.Parameter(torch.empty(s, device='cuda')) for s in SHAPES * copies]
    for p in params:
        p.grad = torch.empty_like(p)
    return params


@pytest.mark.parametrize('name', CASES)
def test_few_dispatches_and_no_waiting(name):
    counts = []
    for copies in (1, 3):
        with FakeTensorMode():
            way = {'foreach': True} if name in LISTS else {}
            params = weights(copies)
            optimizer = optimizers.build_optimizer(name, params, lr=1e-3, weight_decay=0.1, **way)
            for _ in range(2):
                optimizer.step()
            if name == 'Sophia':
                optimizer.update_hessian(batch_size=32)
            with AtenDispatches() as counter:
                optimizer.step()
        counts.append(counter.count)
        for state in optimizer.state.values():
            averages = [t for t in state.values() if isinstance(t, torch.Tensor) and t.dim()]
            assert all(t.device.type == 'cuda' for t in averages)
    assert counts[0] == counts[1]
    assert counts[1] <= (25 if optimizers.get_spec(name).elementwise else 60)


def test_waiting_is_noticed():
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        torch.empty(3, device='cuda').sum().item()
