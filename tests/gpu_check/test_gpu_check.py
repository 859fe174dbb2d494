"""``tools/gpu_check.py`` on a CPU: every stage's code runs, and what fails is told."""

from __future__ import annotations

import io
import json
import time

import pytest

from bocb_mm.gpu_check import run
from bocb_mm.gpu_check.report import Report, Row, read_rows
from bocb_mm.gpu_check.stages import STAGES, Stage

TESTED = [stage.name for stage in STAGES]

STAND_IN = """
import sys, time
def run(report, settings):
    report.check('small', 1.0, 2.0)
    report.measure('speed', '3 ms')
    {rest}
"""


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A stage whose module ends with the given line."""
    import bocb_mm.gpu_check as package

    def make(rest, seconds=60):
        (tmp_path / 'made_up.py').write_text(STAND_IN.format(rest=rest))
        monkeypatch.setattr(run, 'CPU_FACTOR', 1)
        # The stage is a process of its own: it finds the module by the package's path.
        code = f'import bocb_mm.gpu_check; bocb_mm.gpu_check.__path__.append({str(tmp_path)!r})'
        (tmp_path / 'sitecustomize.py').write_text(code)
        monkeypatch.setenv('PYTHONPATH', str(tmp_path))
        return Stage('made_up', seconds, 'made up')

    assert package.__path__
    return make


def rows_of(stage, tmp_path, root):
    return run.run_stage(stage, 'cpu', tmp_path, root)


def test_a_stage_in_a_process_of_its_own_gives_rows(stage, tmp_path, root):
    rows = rows_of(stage('pass'), tmp_path, root)
    assert rows == [
        Row('made_up', 'small', 2.0, 1.0, 'pass'),
        Row('made_up', 'speed', None, '3 ms', 'measured'),
    ]


def test_a_stage_that_dies_keeps_its_rows_and_fails(stage, tmp_path, root):
    *kept, last = rows_of(stage('raise ValueError("no such kernel")'), tmp_path, root)
    assert len(kept) == 2
    assert (
        last.status == 'fail' and last.reason == 'ended with status 1: ValueError: no such kernel'
    )


def test_a_stage_that_hangs_is_ended_with_its_children(stage, tmp_path, root):
    child = 'import subprocess; subprocess.run(["sleep", "600"])'
    start = time.monotonic()
    *kept, last = rows_of(stage(child, seconds=8), tmp_path, root)
    assert time.monotonic() - start < 60
    assert len(kept) == 2 and last.reason == 'stopped after 8 s'


def test_an_error_within_a_check_fails_that_check_alone():
    file = io.StringIO()
    report = Report('x', file)
    with report.guard('first'):
        raise RuntimeError('out of\n memory')
    report.check('second', float('nan'), 1.0)
    first, second = map(json.loads, file.getvalue().splitlines())
    assert (first['status'], first['reason']) == ('fail', 'RuntimeError: out of memory')
    assert second['status'] == 'fail'  # NaN is not within any bound


def test_a_line_that_a_killed_stage_left_is_left_out(tmp_path):
    file = tmp_path / 'x.jsonl'
    with file.open('w') as out:
        Report('x', out).measure('a', 1.0)
        out.write('{"stage": "x", "ch')
    assert [row.check for row in read_rows(file)] == ['a']


def test_without_a_gpu_there_is_one_line(run_tool, capsys, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    status, _, err = run_tool('gpu_check', '--out', tmp_path, capsys=capsys)
    assert status == 2 and err.startswith('error: --device cuda: torch sees no GPU')


def test_an_unknown_stage_is_named(run_tool, capsys, tmp_path):
    argv = ('--device', 'cpu', '--out', tmp_path, '--stages', 'paritty')
    status, _, err = run_tool('gpu_check', *argv, capsys=capsys)
    assert status == 2 and "unknown stage 'paritty'; did you mean parity" in err


def test_all_stages_take_eight_minutes_at_most_on_a_gpu():
    assert sum(stage.seconds for stage in STAGES) <= 480


@pytest.mark.timeout(1800)  # eleven processes, each with its imports
def test_every_stage_passes_on_a_cpu(run_tool, capsys, tmp_path):
    """Nothing here is a statement about a GPU: the script is what is tested."""
    argv = ('--device', 'cpu', '--out', tmp_path, '--stages', *TESTED)
    status, out, _ = run_tool('gpu_check', *argv, capsys=capsys)
    document = json.loads((tmp_path / 'gpu_check.json').read_text())
    failed = [check for check in document['checks'] if check['status'] == 'fail']
    assert (status, failed) == (0, [])
    assert list(document['seconds']) == TESTED
    passed = {check['stage'] for check in document['checks'] if check['status'] != 'skip'}
    assert passed >= {*TESTED} - {'compiled', 'waiting'}
    assert '| parity | LARS, channels last |' in out
