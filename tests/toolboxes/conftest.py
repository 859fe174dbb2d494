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
def stock(request):
    """Each config: skipped where its toolbox is not asked for, failed where that is not installed."""
    found = STOCK[request.param]
    asked = [name for name in os.environ.get('BOCB_TOOLBOXES', '').split(',') if name]
    if found.toolbox not in asked:
        pytest.skip(f'BOCB_TOOLBOXES={",".join(asked)} does not name {found.toolbox} '
                    '(bash tools/test_toolboxes.sh installs and runs it)')  # fmt: skip
    assert importlib.util.find_spec(found.toolbox), f'{found.toolbox} is not installed'
    {'mmaction': _complete_mmaction, 'mmyolo': _admit_mmcv}.get(found.toolbox, lambda: None)()
    return found


def _complete_mmaction() -> None:
    """mmaction2 1.2.0's wheel lacks ``mmaction/models/localizers/drn``, which it imports itself."""
    folder = Path(importlib.util.find_spec('mmaction').origin).parent
    if not (folder / 'models/localizers/drn').is_dir():
        name = 'mmaction.models.localizers.drn'
        package, module = types.ModuleType(name), types.ModuleType(f'{name}.drn')
        module.DRN = type('DRN', (), {})
        sys.modules.update({name: package, f'{name}.drn': module})


def _admit_mmcv() -> None:
    """mmyolo 0.6.0 asks for mmcv < 2.1.0, though it runs on 2.1.0."""
    import mmcv

    version, mmcv.__version__ = mmcv.__version__, '2.0.1'
    try:
        importlib.import_module('mmyolo')
    finally:
        mmcv.__version__ = version
