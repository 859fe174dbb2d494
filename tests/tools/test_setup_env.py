"""What ``tools/setup_env.sh`` asks uv for; uv and nvcc are stand-ins here that write down their calls."""

import os
import shutil
import subprocess

import pytest

UV = """#!/bin/bash
echo "$* | FORCE_CUDA=${FORCE_CUDA:-} hidden=${CUDA_VISIBLE_DEVICES-no}" >> calls
if [ "$1" = venv ]; then
    mkdir -p .venv/bin
    printf '#!/bin/bash\\necho 12.8\\n' > .venv/bin/python  # CUDA of torch
    chmod +x .venv/bin/python
fi
[ ! -e broken ]
"""
NVCC = '#!/bin/bash\necho "Cuda compilation tools, release {}, V1"\n'


@pytest.fixture
def setup(root, tmp_path, monkeypatch):
    """Calls the script in a folder of its own; returns its result and the calls of uv."""
    (tmp_path / 'tools').mkdir()
    for name in ('pyproject.toml', 'tools/setup_env.sh'):
        shutil.copy(root / name, tmp_path / name)
    programs = tmp_path / 'bin'
    programs.mkdir()

    def program(name, text):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    program('uv', UV)
    program('c++', '')
    for name in ('UV', 'PYTHON', 'MMCV_OPS', 'CUDA_HOME', 'FORCE_CUDA', 'CUDA_VISIBLE_DEVICES'):
        monkeypatch.delenv(name, raising=False)

    def call(nvcc=None, where='.', **env):
        if nvcc:
            program('nvcc', NVCC.format(nvcc))
        done = subprocess.run(
            ['bash', os.path.relpath(tmp_path / 'tools' / 'setup_env.sh', tmp_path / where)],
            cwd=tmp_path / where, capture_output=True, text=True,
            env={**os.environ, 'PATH': f'{programs}:{os.environ["PATH"]}', **env},
        )  # fmt: skip
        calls = tmp_path / 'calls'
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return done, [line for line in lines if line.startswith('sync')]

    return call


def test_wheels_are_the_default_and_a_second_call_does_nothing(setup):
    done, calls = setup()
    assert done.returncode == 0, done.stderr
    assert calls == ['sync --extra mm --compile-bytecode | FORCE_CUDA= hidden=no']
    done, calls = setup()
    assert (done.returncode, calls) == (0, [])


def test_operators_are_compiled_for_cuda_where_nvcc_fits(setup):
    done, (first, second) = setup(nvcc='12.4', MMCV_OPS='1')
    assert done.returncode == 0, done.stderr
    assert '--extra mm-ops' in first and '--no-install-package mmcv' in first
    assert '--config-settings-package mmcv:cuda=12.8 | FORCE_CUDA=1 hidden=no' in second


def test_the_gpu_is_hidden_where_nvcc_does_not_fit(setup):
    done, (_, second) = setup(nvcc='13.0', MMCV_OPS='1')
    assert done.returncode == 0, done.stderr
    assert second == 'sync --extra mm-ops --compile-bytecode | FORCE_CUDA=0 hidden='
    assert "nvcc is 13.0, torch's CUDA is 12.8" in done.stderr


def test_the_choice_is_kept_until_another_is_made(setup):
    setup(nvcc='13.0', MMCV_OPS='1')
    assert setup()[1] == []
    assert len(setup(MMCV_OPS='0')[1]) == 1
    assert setup()[1] == []


@pytest.mark.parametrize('where', ['..', 'tools'])
def test_it_may_be_called_from_another_folder(setup, where):
    assert setup(where=where)[0].returncode == 0
    assert setup(where=where)[1] == []


def test_an_environment_whose_python_is_gone_is_built_anew(setup, tmp_path):
    setup()
    (tmp_path / '.venv' / 'bin' / 'python').unlink()
    assert len(setup()[1]) == 1 and setup()[1] == []


def test_a_python_other_than_that_of_the_environment_is_refused(setup):
    setup()
    done, calls = setup(PYTHON=shutil.which('python3'))
    assert (done.returncode, calls) == (1, []) and '.venv is of Python 12.8' in done.stderr


def test_a_build_that_failed_is_done_again(setup, tmp_path):
    setup()
    (tmp_path / '.venv' / '.setup.stamp').unlink()
    (tmp_path / 'broken').touch()
    done, calls = setup()
    assert done.returncode == 1 and len(calls) == 1
    assert done.stderr.splitlines()[-1].startswith('error: uv could not build the environment')
    (tmp_path / 'broken').unlink()
    assert len(setup()[1]) == 1


def test_another_word_than_0_or_1_is_refused(setup):
    done, calls = setup(MMCV_OPS='yes')
    assert (done.returncode, calls) == (1, [])
    assert done.stderr.startswith('error: MMCV_OPS=yes: expected 1')
