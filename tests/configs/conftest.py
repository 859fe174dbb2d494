"""What the tests of the configs share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope='session', autouse=True)
def plain_config_dumps():
    """Let Runners write configs down unformatted: laying one out with yapf takes over a second."""
    from mmengine.config import config

    patch = pytest.MonkeyPatch()
    patch.setattr(config, 'FormatCode', lambda text, **_: (text, True))
    yield
    patch.undo()
