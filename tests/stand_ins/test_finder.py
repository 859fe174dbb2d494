"""How the stand-ins get in: never in the place of what is installed, and without importing anything."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import subprocess
import sys
from types import ModuleType

import pytest
import torch

from bocb_mm import stand_ins
from bocb_mm.errors import UserError

PTH = stand_ins._HERE / 'bocb_mm_stand_ins.pth'


def python(code, cwd):
    """What a fresh Python prints, whose start does not run our line yet."""
    done = subprocess.run([sys.executable, '-c', code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_installing_twice_adds_one_finder():
    stand_ins.install()
    assert sum(isinstance(f, stand_ins.StandInFinder) for f in sys.meta_path) == 1


def test_other_names_are_left_alone():
    finder = stand_ins.StandInFinder()
    for name in ('mmcv', 'mmcv.ops', 'torch', 'xtcocotools.coco', '_ext'):
        assert finder.find_spec(name, None) is None


def test_an_installed_package_is_found_first(monkeypatch, tmp_path):
    (tmp_path / 'xtcocotools').mkdir()
    (tmp_path / 'xtcocotools' / '__init__.py').touch()
    monkeypatch.syspath_prepend(tmp_path)
    spec = stand_ins.StandInFinder().find_spec('xtcocotools', None)
    assert spec.origin == str(tmp_path / 'xtcocotools' / '__init__.py')


def test_an_installed_extension_is_completed_not_replaced(monkeypatch, tmp_path):
    (tmp_path / '_ext.py').write_text(
        'def nms(*args):\n    return "compiled"\n'
        'def carafe_forward(*args):\n    return "compiled"\n'
    )
    spec = stand_ins.StandInFinder().find_spec('mmcv._ext', [str(tmp_path)])
    assert spec.origin == str(tmp_path / '_ext.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.nms() == module.carafe_forward() == 'compiled'
    assert callable(module.softnms)  # that build left it out


@pytest.mark.parametrize('message', [
    'nms_impl: implementation for device cuda:0 not found.\n',
    'DeformConv is not compiled with GPU support',
    '"sigmoid_focal_loss_forward_cuda_kernel" not implemented for \'BFloat16\'',
])  # fmt: skip
def test_a_stand_in_takes_a_call_that_the_compiled_operator_was_not_built_for(message):
    from bocb_mm.stand_ins.operators import complete

    def refuse(*args, **kwargs):
        raise RuntimeError(message)

    module = ModuleType('mmcv._ext')
    module.nms = refuse
    complete(module)
    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1]])
    assert module.nms(boxes, torch.tensor([0.1, 0.2]), iou_threshold=0.5, offset=0).tolist() == [1]


def test_any_other_fault_of_a_compiled_operator_is_raised():
    from bocb_mm.stand_ins.operators import complete

    def fail(*args):
        raise RuntimeError('CUDA error: an illegal memory access was encountered')

    module = ModuleType('mmcv._ext')
    module.nms = fail
    complete(module)
    with pytest.raises(RuntimeError, match='illegal memory access'):
        module.nms(None, None)


def test_an_operator_without_a_stand_in_says_what_it_needs():
    spec = importlib.util.spec_from_file_location('ours', stand_ins.STAND_INS['mmcv._ext'])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(UserError) as error:
        module.carafe_forward(1, up=2)
    assert str(error.value).startswith("mmcv's operator 'carafe_forward' needs the compiled mmcv: ")
    assert 'MMCV_OPS=1 bash tools/setup_env.sh' in str(error.value)
    assert '\n' not in str(error.value)
    assert not hasattr(module, '__path__')


def test_our_line_at_pythons_start_lets_stock_scripts_find_them(root):
    """mmdet's tools/train.py imports mmdet before anything of ours."""
    (line,) = PTH.read_text().splitlines()
    assert line.startswith('import ')
    code = f'{line}\nimport mmcv.ops, xtcocotools, sys; print("bocb_mm.registry" in sys.modules)'
    assert python(code, root) == 'False'


def test_our_line_does_nothing_where_the_package_is_gone(tmp_path):
    (line,) = PTH.read_text().splitlines()
    code = f'import sys; sys.path = [p for p in sys.path if "site-packages" not in p]\n{line}'
    done = subprocess.run(
        [sys.executable, '-I', '-S', '-c', code], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, '')


def test_the_wheel_brings_our_line(root):
    tomllib = pytest.importorskip('tomllib')  # Python 3.11
    wheel = tomllib.loads((root / 'pyproject.toml').read_text())['tool']['hatch']['build'][
        'targets'
    ]['wheel']
    assert wheel['force-include'] == {str(PTH.relative_to(root)): PTH.name}
