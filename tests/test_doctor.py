import pytest

from bocb_mm import doctor
from bocb_mm.doctor import stack

GOOD = {name: '1.0' for name in doctor.PACKAGES} | {
    'torch': '2.9.1', 'torchvision': '0.24.1', 'mmcv': '2.1.0', 'mmdet': '3.3.0', 'optuna': '5.0.0',
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
    ],
)
def test_a_known_conflict_is_named_with_the_command_that_fixes_it(changes, problem, fix):
    found = problems(**changes)
    assert any(problem in f.problem and fix in f.fix for f in found)


def test_a_missing_optional_package_is_a_note_not_a_failure():
    (found,) = problems(optuna=None)
    assert not found.fatal and 'sweep' in found.problem


@pytest.mark.parametrize('version', ['4.9.0', '6.0.0'])
def test_an_optuna_of_other_tables_is_a_note(version):
    (found,) = problems(optuna=version)
    assert not found.fatal and version in found.problem and 'optuna>=5.0,<6' in found.fix


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


def test_the_tool_prints_versions_and_its_status_says_whether_all_works(run_tool, capsys):
    status, out, _ = run_tool('doctor', capsys=capsys)
    assert 'mmengine' in out and 'torch' in out
    assert status == (1 if 'PROBLEM' in out else 0)
