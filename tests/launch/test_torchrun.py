"""Several processes: the status is that of the one that failed, and a killed one is named."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, sys
import torch
import torch.distributed as dist
from bocb_mm.launch.distributed import lost_peer
dist.init_process_group('gloo')
if dist.get_rank() == 1:
    {end}
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # time enough to see what became of process 1
try:
    for _ in range(9999):
        dist.all_reduce(torch.ones(1))
except RuntimeError as error:
    with open({told!r}, 'w') as file:
        file.write(str(lost_peer(error)))
    os._exit(0)  # gloo's threads may abort an ordinary exit once a peer is gone (torch 2.14)
"""


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ('end', 'status', 'words'),
    [
        ('os.kill(os.getpid(), signal.SIGKILL)', 137, 'process 1 was ended by SIGKILL'),
        ('sys.exit(3)', 3, ''),
    ],
)
def test_the_process_that_failed_gives_status_and_reason(end, status, words, tmp_path, root):
    script = tmp_path / 'script.py'
    told = tmp_path / 'told'
    script.write_text(SCRIPT.format(end=end, told=str(told)))
    command = [sys.executable, '-m', 'bocb_mm.launch.torchrun', '--standalone']
    done = subprocess.run(
        [*command, '--nproc_per_node', '2', str(script)],
        env={**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'},
        capture_output=True, text=True, timeout=170,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert told.read_text() == 'True', 'process 0 did not know that its peer is gone'
    assert words in done.stderr and 'Traceback' not in done.stderr
    if words:
        assert 'go on with --resume' in done.stderr
