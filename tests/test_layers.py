"""Dependencies point one way: what may not be imported cannot be, in a process of its own."""

import subprocess
import sys

import pytest

# what is imported -> packages that importing it must not load
RULES = {
    'bocb_mm': ('torch', 'mmengine', 'pandas'),
    'bocb_mm.runs': ('torch', 'mmengine'),
    'bocb_mm.files': ('torch', 'mmengine'),
    'bocb_mm.errors': ('torch', 'mmengine'),
    'bocb_mm.report.build': ('torch', 'mmengine'),
    'bocb_mm.report.recommend': ('torch', 'mmengine'),
    'bocb_mm.doctor': ('torch', 'mmengine'),
    'bocb_mm.metrics': ('mmengine', 'mmcv', 'mmdet'),
    'bocb_mm.optimizers': ('mmengine', 'mmcv', 'timm', 'pytorch_optimizer'),
    'bocb_mm.backbones': ('mmcv', 'mmpretrain', 'mmdet', 'timm'),
    'bocb_mm.registry': ('mmcv', 'mmpretrain', 'mmdet', 'mmpose'),
}


@pytest.mark.parametrize('module', RULES)
def test_importing_loads_nothing_it_must_not(module, root):
    # None in sys.modules makes the import of a package fail, as if it were not installed.
    blocked = ''.join(f'sys.modules[{name!r}] = None; ' for name in RULES[module])
    code = f'import sys; {blocked}import {module}'
    done = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
