import pytest

from bocb_mm import doctor

GOOD = {name: '1.0' for name in doctor.PACKAGES} | {
    'torch': '2.9.1', 'torchvision': '0.24.1', 'mmcv': '2.1.0', 'mmdet': '3.3.0', 'optuna': '5.0.0',
}  # fmt: skip


def problems(**changes):
    return list(doctor.findings(GOOD | changes, probe=False))


def test_the_tested_stack_has_no_conflict():
    assert problems() == []


@pytest.mark.parametrize(
    'changes, problem, mend',
    [
        ({'mmcv': '2.2.0'}, 'refuses mmcv 2.2.0', 'mmcv==2.1.0'),
        ({'mmcv': None, 'torch': '2.11.0'}, 'C++17', 'torch==2.9.1'),
        ({'torch': None}, 'torch is not installed', 'setup_env.sh'),
    ],
)
def test_a_known_conflict_is_named_with_the_command_that_mends_it(changes, problem, mend):
    found = problems(**changes)
    assert any(problem in f.problem and mend in f.mend and f.fatal for f in found)


def test_a_missing_optional_package_is_a_note_not_a_failure():
    (found,) = problems(optuna=None)
    assert not found.fatal and 'sweep' in found.problem


@pytest.mark.parametrize('version', ['4.9.0', '6.0.0'])
def test_an_optuna_of_other_tables_is_a_note(version):
    (found,) = problems(optuna=version)
    assert not found.fatal and version in found.problem and 'optuna>=5.0,<6' in found.mend


def test_setuptools_81_is_a_conflict(monkeypatch):
    versions = {'setuptools': '81.0.0', 'xtcocotools': '1.14.3'}
    monkeypatch.setattr(doctor, '_version', versions.get)
    (found,) = doctor.findings(GOOD, probe=False)
    assert 'pkg_resources' in found.problem and 'setuptools<81' in found.mend


def test_a_broken_binary_is_found_by_loading_it(monkeypatch):
    def broken(name):
        raise ImportError('undefined symbol: at::Tensor')

    monkeypatch.setattr(doctor.importlib, 'import_module', broken)
    found = [f for f in doctor.findings(GOOD) if 'undefined symbol' in f.problem]
    assert len(found) == 3 and all(f.fatal for f in found)


def test_the_tool_prints_versions_and_its_status_says_whether_all_works(run_tool, capsys):
    status, out, _ = run_tool('doctor', capsys=capsys)
    assert 'mmengine' in out and 'torch' in out
    assert status == (1 if 'PROBLEM' in out else 0)
