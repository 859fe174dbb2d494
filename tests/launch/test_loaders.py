"""The work-around for mmengine's pause between two passes over the data."""

import time
from unittest.mock import MagicMock

from torch.utils.data import DataLoader


def test_an_iteration_based_loop_goes_on_without_a_pause(monkeypatch):
    from mmengine.runner import loops

    from bocb_mm.compat import restart_loaders_at_once

    monkeypatch.setattr(loops, 'time', time)  # as mmengine has it, and afterwards again
    monkeypatch.setattr(time, 'sleep', MagicMock(side_effect=AssertionError('a pause')))
    restart_loaders_at_once()
    loop = loops.IterBasedTrainLoop(MagicMock(), DataLoader(range(3)), max_iters=7)
    assert [int(next(loop.dataloader_iterator)) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]
