"""A process of several ends with its own status, whatever Python's tear-down would do to it."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import atexit, os, sys
from bocb_mm.errors import UserError, one_line_errors
from bocb_mm.launch.leaving import leaves_at_once
import torch.distributed as dist
atexit.register(os.abort)  # as gloo's threads do it now and then
@leaves_at_once
@one_line_errors
def main():
    dist.init_process_group('gloo')
    print('buffered', end='')
    {end}
sys.exit(main())
"""


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ('end', 'status', 'words'),
    [
        ('return 0', 0, ''),
        ('return 3', 3, ''),
        ('sys.exit(75)', 75, ''),
        ('raise UserError("no such thing")', 2, 'error: no such thing'),
        ('raise ZeroDivisionError("a fault")', 1, 'ZeroDivisionError: a fault'),
    ],
)
def test_its_exit_status_stays(end, status, words, tmp_path, root):
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT.format(end=end))
    done = subprocess.run(
        [sys.executable, '-m', 'bocb_mm.launch.torchrun', '--standalone', '--nproc_per_node', '2', script],
        env={**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'},
        capture_output=True, text=True, timeout=170,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert words in done.stderr and 'SIGABRT' not in done.stderr
    if status == 0:
        assert done.stdout.count('buffered') == 2
