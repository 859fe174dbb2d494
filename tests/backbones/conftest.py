"""Helpers of the backbone tests; the toolboxes are imported by the first test that needs them."""

from __future__ import annotations

import pytest


@pytest.fixture(scope='session')
def toolboxes():
    """Import the models of mmpretrain, mmdet and mmpose once."""
    import mmdet.models  # noqa: F401
    import mmpose.models  # noqa: F401
    import mmpretrain.models  # noqa: F401

    from bocb_mm.registry import MODELS

    return MODELS


@pytest.fixture
def no_drawing(monkeypatch):
    """Skip the random drawing in constructors, which costs seconds where only shapes matter."""
    from torch.nn import init

    for name in ('kaiming_uniform_', 'kaiming_normal_', 'uniform_', 'normal_', 'trunc_normal_'):
        monkeypatch.setattr(init, name, lambda tensor, *args, **kwargs: tensor)


@pytest.fixture
def no_threads():
    """One thread, as small tensors are faster that way."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
