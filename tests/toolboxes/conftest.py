"""Which toolboxes are asked for: BOCB_TOOLBOXES, which tools/test_toolboxes.sh sets."""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from pathlib import Path

import pytest

from tests.toolboxes.stock import STOCK


@pytest.fixture(scope='session', params=STOCK)
def scope(request):
    """Each toolbox: skipped where it is not asked for, failed where it is and cannot be imported."""
    asked = [name for name in os.environ.get('BOCB_TOOLBOXES', '').split(',') if name]
    if request.param not in asked:
        pytest.skip(f'BOCB_TOOLBOXES={",".join(asked)} does not name {request.param} '
                    '(bash tools/test_toolboxes.sh installs and runs it)')  # fmt: skip
    assert importlib.util.find_spec(request.param), f'{request.param} is not installed'
    if request.param == 'mmaction':
        _complete_mmaction()
    return request.param


def _complete_mmaction() -> None:
    """mmaction2 1.2.0's wheel lacks ``mmaction/models/localizers/drn``, which it imports itself."""
    folder = Path(importlib.util.find_spec('mmaction').origin).parent
    if not (folder / 'models/localizers/drn').is_dir():
        name = 'mmaction.models.localizers.drn'
        package, module = types.ModuleType(name), types.ModuleType(f'{name}.drn')
        module.DRN = type('DRN', (), {})
        sys.modules.update({name: package, f'{name}.drn': module})
