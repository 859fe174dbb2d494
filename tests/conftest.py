"""Fixtures every test may use. Nothing heavy is imported here: a worker pays only for what it runs."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
import bocb_mm  # noqa: E402, F401  the stand-ins, for tests that import mmcv.ops first
from tests.browser import browser  # noqa: E402, F401  a fixture

os.environ.setdefault('OMP_NUM_THREADS', '1')
# A test that has to wait for the machine is no failure.
settings.register_profile(
    'untimed',
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile('untimed')
# No test may wait for an address that cannot be reached.
os.environ.setdefault('HF_HUB_OFFLINE', '1')


@pytest.fixture(scope='session')
def root() -> Path:
    """Folder of the project."""
    return ROOT


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """The small real data sets, ``BOCB_REAL_DATA`` or ``../shared/data``; skips where they are absent."""
    path = Path(os.environ.get('BOCB_REAL_DATA', ROOT.parent / 'shared' / 'data'))
    if not (path / 'cifar10').is_dir():
        pytest.skip(f'no real data at {path} (set BOCB_REAL_DATA)')
    return path


@pytest.fixture
def cxx() -> None:
    """A C++ compiler, as code that torch generates for a CPU needs; skips where there is none."""
    if not shutil.which(os.environ.get('CXX', 'g++')):
        pytest.skip('no C++ compiler on PATH (g++, or what CXX names)')


@pytest.fixture(autouse=True)
def trust_ends_with_the_test():
    """``--trust-checkpoint`` counts for the rest of a process, which other tests run in too."""
    yield
    read = sys.modules.get('bocb_mm.checkpoints.read')
    if read is not None and read.is_trusting():
        read.install_safe_loading(trust=False)


@pytest.fixture
def run_tool(root):
    """Call a Python tool's ``main`` in this process; returns (exit status, stdout, stderr)."""
    import importlib

    def call(name: str, *argv: str, capsys) -> tuple[int, str, str]:
        module = importlib.import_module(f'tools.{name}')
        capsys.readouterr()
        try:
            status = module.main([str(a) for a in argv])
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        return (status or 0), out, err

    return call
