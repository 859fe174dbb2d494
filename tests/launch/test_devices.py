"""Which device a training takes, on a machine simulated by patches."""

import os

import pytest
import torch
from mmengine.device import get_device, utils

from bocb_mm.compat import stay_on_cpu
from bocb_mm.errors import UserError


@pytest.fixture
def machine(monkeypatch):
    """Make torch see ``n`` GPUs, as far as CUDA_VISIBLE_DEVICES lets it."""

    def see(n):
        def visible():
            return 0 if os.environ.get('CUDA_VISIBLE_DEVICES') == '-1' else n

        monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
        monkeypatch.setattr(torch.cuda, 'device_count', visible)
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: visible() > 0)
        monkeypatch.setattr(utils, 'DEVICE', 'cuda' if n else 'cpu')

    yield see
    os.environ.pop('CUDA_VISIBLE_DEVICES', None)


def test_a_training_on_the_cpu_stays_there_on_a_machine_with_gpus(machine):
    machine(2)
    assert get_device() == 'cuda'
    stay_on_cpu()
    assert get_device() == 'cpu' and not torch.cuda.is_available()


@pytest.mark.parametrize(('n', 'argument'), [(0, '0'), (2, '2'), (1, '0,1')])
def test_gpus_that_are_not_there_are_refused(n, argument, machine):
    from bocb_mm.search.engine import engine_here

    machine(n)
    with pytest.raises(UserError, match=f'--gpus {argument}: torch sees {n} GPUs here.*--jobs N'):
        engine_here(argument.split(','))


@pytest.mark.parametrize(('bf16', 'expected'), [(True, 'bfloat16'), (False, 'float16')])
def test_half_precision_is_bfloat16_where_the_gpu_has_it(bf16, expected, machine, monkeypatch):
    from bocb_mm.launch.train import best_half

    machine(1)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation: bf16)
    assert best_half() == expected
    machine(0)
    assert best_half() == 'bfloat16'


def test_gpus_are_counted_among_those_that_are_visible(monkeypatch):
    from bocb_mm.launch import devices
    from bocb_mm.search.engine import engine_here

    monkeypatch.setattr(devices, '_number_of_gpus', lambda: 4)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    assert engine_here(['0', '3']).gpus == ('0', '3')
    assert engine_here(jobs=2).jobs == 2 and not engine_here(jobs=2).on_gpu
    assert engine_here().gpus == ('0', '1', '2', '3')
    monkeypatch.setattr(devices, '_number_of_gpus', lambda: 2)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,GPU-8f2e')
    assert engine_here(['1']).gpus == ('GPU-8f2e',)
    assert engine_here().gpus == ('4', 'GPU-8f2e')
    with pytest.raises(UserError, match='torch sees 2 GPUs here .CUDA_VISIBLE_DEVICES=4,GPU-8f2e.'):
        engine_here(['2'])
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '-1')
    assert not engine_here().on_gpu
    with pytest.raises(UserError, match='torch sees 0 GPUs'):
        engine_here(['0'])
    for wrong in (['all'], ['0', '0'], ['']):
        with pytest.raises(UserError, match='numbers as in 0,1'):
            engine_here(wrong)
