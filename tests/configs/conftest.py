"""What the tests of the configs share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope='session', autouse=True)
def quick_configs():
    """Read metafiles once; write configs down unformatted, since yapf takes over a second for one."""
    from mmengine.config import config

    from bocb_mm.compat import read_metafiles_once

    read_metafiles_once()
    patch = pytest.MonkeyPatch()
    patch.setattr(config, 'FormatCode', lambda text, **_: (text, True))
    yield
    patch.undo()
