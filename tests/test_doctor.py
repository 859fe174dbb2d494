import numpy as np
import pytest

from bocb_mm import doctor
from bocb_mm.doctor import machine, stack

GOOD = {name: '1.0' for name in doctor.PACKAGES} | {
    'torch': '2.9.1', 'torchvision': '0.24.1', 'mmcv': '2.1.0', 'mmdet': '3.3.0', 'ray': '2.60.0',
}  # fmt: skip


def problems(**changes):
    return list(doctor.findings(GOOD | changes, probe=False))


def test_the_tested_stack_has_no_conflict():
    assert problems() == []


@pytest.mark.parametrize(
    'changes, problem, fix',
    [
        ({'mmcv': '2.2.0'}, 'refuses mmcv 2.2.0', 'mmcv-lite==2.1.0'),
        ({'mmcv': None}, 'mmcv is not installed', 'mmcv-lite==2.1.0'),
        ({'torch': None}, 'torch is not installed', 'setup_env.sh'),
        ({'torch': '2.5.1'}, '2.6 or newer', 'torch>=2.6'),
        ({'torch': '2.6.0a0'}, '2.6 or newer', 'torch>=2.6'),
    ],
)
def test_a_known_conflict_is_named_with_the_command_that_fixes_it(changes, problem, fix):
    found = problems(**changes)
    assert any(problem in f.problem and fix in f.fix for f in found)


def test_a_missing_optional_package_is_a_note_not_a_failure():
    (found,) = problems(ray=None)
    assert not found.fatal and 'sweep' in found.problem


@pytest.mark.parametrize('version', ['2.9.0', '3.0.0'])
def test_a_ray_that_was_not_run_is_a_note(version):
    (found,) = problems(ray=version)
    assert not found.fatal and version in found.problem and 'ray>=2.60,<3' in found.fix


def test_setuptools_81_is_a_conflict(monkeypatch):
    versions = {'setuptools': '81.0.0', 'xtcocotools': '1.14.3'}
    monkeypatch.setattr(stack, '_version', versions.get)
    (found,) = doctor.findings(GOOD, probe=False)
    assert 'pkg_resources' in found.problem and 'setuptools<81' in found.fix


@pytest.mark.parametrize(
    'installed, problem',
    [
        (('mmcv', 'mmcv-lite', 'xtcocotools'), 'both installed'),
        (('mmcv-lite',), 'mmpose without faster-coco-eval'),
        (('mmcv-lite', 'faster-coco-eval'), None),
        (('mmcv', 'xtcocotools'), None),
    ],
)
def test_wheels_and_compiled_packages(installed, problem, monkeypatch):
    versions = {'setuptools': '80.0', **dict.fromkeys(installed, '2.1.0')}
    monkeypatch.setattr(stack, '_version', versions.get)
    found = [f.problem for f in doctor.findings(GOOD, probe=False)]
    assert found == [] if problem is None else problem in found[0]


def test_mmcv_lite_counts_as_mmcv(monkeypatch):
    monkeypatch.setattr(stack, '_version', {'mmcv-lite': '2.1.0'}.get)
    assert doctor.versions()['mmcv'] == '2.1.0'


def test_a_broken_binary_is_found_by_loading_it(monkeypatch):
    def broken(name):
        raise ImportError('undefined symbol: at::Tensor')

    monkeypatch.setattr(stack.importlib, 'import_module', broken)
    found = [f for f in doctor.findings(GOOD) if 'undefined symbol' in f.problem]
    assert len(found) == 3 and all(f.fatal for f in found)


def on_gpu(monkeypatch, driver='13.0', sees=False, built_for='13.0'):
    """A machine with a GPU, as torch and nvidia-smi would tell."""
    import torch

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: sees)
    monkeypatch.setattr(torch.version, 'cuda', built_for)
    return list(machine.gpu(driver))


def test_without_a_driver_a_cpu_is_all_right(monkeypatch):
    assert on_gpu(monkeypatch, driver=None) == []


def test_a_gpu_that_torch_sees_is_all_right(monkeypatch):
    assert on_gpu(monkeypatch, sees=True) == []


@pytest.mark.parametrize('driver, built_for, problem, fix', [
    ('13.0', None, 'built for the CPU alone', 'setup_env.sh'),
    ('12.4', '13.0', 'the driver runs up to 12.4', 'torch==2.9.1'),
    ('12.4', '12.8', "CUDA_VISIBLE_DEVICES is ''", 'unset CUDA_VISIBLE_DEVICES'),
])  # fmt: skip
def test_a_gpu_that_torch_does_not_see(driver, built_for, problem, fix, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    (found,) = on_gpu(monkeypatch, driver, built_for=built_for)
    assert problem in found.problem and fix in found.fix and found.fatal


def test_the_drivers_cuda_is_read_from_nvidia_smi(monkeypatch, tmp_path):
    smi = tmp_path / 'nvidia-smi'
    smi.write_text(
        '#!/bin/sh\necho "| NVIDIA-SMI 580.82   Driver Version: 580.82   CUDA Version: 13.0 |"\n'
    )
    smi.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:/bin:/usr/bin')
    assert machine.driver() == '13.0'
    smi.write_text('#!/bin/sh\nexit 9\n')
    assert machine.driver() is None


def test_retinanets_operators_run_on_this_machine():
    assert list(machine.operators(['cpu'])) == []


def test_an_operator_that_fails_on_a_device_is_a_problem(monkeypatch):
    import mmcv.ops

    def broken(*args):
        raise RuntimeError('no kernel image is available')

    monkeypatch.setattr(mmcv.ops, 'sigmoid_focal_loss', broken)
    (found,) = machine.operators(['cpu'])
    assert 'sigmoid_focal_loss fails on cpu' in found.problem and found.fatal
    monkeypatch.setattr(mmcv.ops, 'batched_nms', lambda *a: (None, np.array([0])))
    assert 'right are [1, 2]' in next(machine.operators(['cpu'])).problem


@pytest.mark.parametrize(
    'nvcc, fix', [('12.8', 'rm -rf'), ('13.0', 'install nvcc 12.8'), (None, 'install')]
)
def test_an_mmcv_compiled_without_cuda_is_a_note_on_a_gpu(nvcc, fix, monkeypatch):
    import mmcv.ops
    import torch

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.version, 'cuda', '12.8')
    monkeypatch.setattr(mmcv.ops, 'get_compiling_cuda_version', lambda: 'not available')
    monkeypatch.setattr(mmcv.ops, 'get_compiler_version', lambda: 'GCC 12.2')
    monkeypatch.setattr(machine, 'nvcc_version', lambda: nvcc)
    (found,) = machine.mmcv_cuda()
    assert found.fix.startswith(fix) and not found.fatal
    monkeypatch.setattr(mmcv.ops, 'get_compiler_version', lambda: 'none: bocb_mm stand-ins')
    assert list(machine.mmcv_cuda()) == []


def test_without_a_compiler_there_is_a_note(monkeypatch):
    monkeypatch.setattr(machine.shutil, 'which', lambda name: None)
    found = next(machine.compilers())
    assert 'torch.compile cannot run' in found.problem and not found.fatal


def test_little_shared_memory_disk_and_no_locks_are_found(monkeypatch, tmp_path):
    class Usage:
        free = 64 << 20

    monkeypatch.setattr(machine.shutil, 'disk_usage', lambda path: Usage)
    (shm,), (disk,) = machine.shared_memory(str(tmp_path)), machine.disk(tmp_path)
    assert '0.06 GiB free' in shm.problem and '--shm-size' in shm.fix and shm.fatal
    assert '0.1 GiB free' in disk.problem and '--work-dir' in disk.fix and disk.fatal


def test_files_that_cannot_be_locked_are_a_note(monkeypatch, tmp_path):
    import errno
    import fcntl
    import os

    def refused(*args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    assert list(machine.locks(tmp_path)) == []
    monkeypatch.setattr(fcntl, 'lockf', refused)
    (found,) = machine.locks(tmp_path)
    assert 'No locks available' in found.problem and not found.fatal
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_a_problem(monkeypatch, tmp_path):
    def refused(**kwargs):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(machine.tempfile, 'NamedTemporaryFile', refused)
    (found,) = machine.locks(tmp_path)
    assert 'cannot be written (Permission denied)' in found.problem and found.fatal


def test_the_tool_prints_versions_and_its_status_says_whether_all_works(run_tool, capsys, tmp_path):
    status, out, _ = run_tool('doctor', '--work-dir', tmp_path / 'not' / 'there', capsys=capsys)
    assert 'mmengine' in out and 'mmcv operators' in out and 'CUDA of torch' in out
    assert status == (1 if 'PROBLEM' in out else 0)


def test_a_fix_that_needs_a_checkout_says_so_where_there_is_none(
    run_tool, capsys, tmp_path, monkeypatch
):
    from bocb_mm import shipped

    found = [stack.Finding('torch is not installed', 'bash tools/setup_env.sh')]
    monkeypatch.setattr(doctor, 'findings', lambda versions: found)
    assert 'part of the checkout' not in run_tool('doctor', capsys=capsys)[1]
    monkeypatch.setattr(shipped, 'root', lambda: tmp_path)
    status, out, _ = run_tool('doctor', capsys=capsys)
    assert status == 1 and 'is a part of the checkout; without one: docs/install.md' in out
