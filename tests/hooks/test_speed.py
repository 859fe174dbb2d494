"""SpeedHook changes layout and rounding, not what is trained."""

import pytest
import torch
from torch import nn

from tests import tiny_training as tiny


class ConvModel(tiny.TinyModel):
    """TinyModel with a 2-D convolution and nothing random."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, (1, 3), padding=(0, 1))
        )
        self.norm, self.drop = nn.Identity(), nn.Identity()
        self.head = nn.Linear(24, 2)

    def forward(self, inputs, y, mode='tensor'):
        return super().forward(inputs[:, None], y, mode)


def train(work_dir, *hooks):
    runner = tiny.runner(work_dir, model=ConvModel(), custom_hooks=list(hooks))
    runner.train()
    return runner


def test_channels_last_changes_the_layout_and_nothing_else(tmp_path):
    plain = train(tmp_path / 'a')
    runner = train(
        tmp_path / 'b', dict(type='bocb_mm.SpeedHook', channels_last=True), dict(type='EMAHook')
    )
    (last,) = [p for p in runner.model.parameters() if p.shape == (4, 4, 1, 3)]
    assert last.is_contiguous(memory_format=torch.channels_last) and not last.is_contiguous()
    momentum = runner.optim_wrapper.optimizer.state[last]['momentum_buffer']
    assert momentum.stride() == last.stride()
    (ema,) = [h for h in runner.hooks if type(h).__name__ == 'EMAHook']
    (averaged,) = [p for p in ema.ema_model.parameters() if p.shape == (4, 4, 1, 3)]
    assert averaged.stride() == last.stride()
    for (name, p), q in zip(runner.model.named_parameters(), plain.model.parameters()):
        assert torch.allclose(p, q, rtol=1e-5, atol=1e-6), name


BACKENDS = (torch.backends.cuda.matmul, torch.backends.cudnn)


@pytest.fixture
def torchs_default():
    before = [backend.allow_tf32 for backend in BACKENDS]
    yield before
    for backend, value in zip(BACKENDS, before):
        backend.allow_tf32 = value


@pytest.mark.parametrize('tf32', [True, False, None])
def test_tf32_is_set_for_both_kinds_of_products_or_left_alone(tf32, tmp_path, torchs_default):
    train(tmp_path, dict(type='bocb_mm.SpeedHook', tf32=tf32))
    after = [backend.allow_tf32 for backend in BACKENDS]
    assert after == (torchs_default if tf32 is None else [tf32, tf32])
