import errno
import re
from pathlib import Path

import pytest

from bocb_mm.errors import UserError
from bocb_mm.runs import exit_codes
from bocb_mm.search.halving import falls_behind
from bocb_mm.search.machine import is_dead, worker_name
from bocb_mm.search.outcomes import OUTCOMES, of_error, of_exit


def chained(outer, inner):
    """``outer`` raised while ``inner`` was handled, as saving.py and the hooks do."""
    try:
        try:
            raise inner
        except type(inner):
            raise outer from None
    except type(outer) as error:
        return error


# What ends a training -> how it counts.
ERRORS = [
    (UserError('no such thing'), 'config error'),
    (MemoryError(), 'out of memory'),
    (RuntimeError('CUDA out of memory. Tried to allocate 2 GiB'), 'out of memory'),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 'out of memory'),
    (OSError(errno.ENOSPC, 'No space left on device'), 'machine'),
    (OSError(errno.ESTALE, 'Stale file handle'), 'machine'),
    (chained(UserError('a.pth: not saved'), OSError(errno.ENOSPC, 'No space left')), 'machine'),
    (chained(UserError('a.py: no such file'), FileNotFoundError(2, 'gone')), 'config error'),
    (RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed.'), 'machine'),
    (RuntimeError('CUDA error: uncorrectable ECC error encountered'), 'machine'),
    (RuntimeError('CUDA error: device-side assert triggered'), 'error'),
    (RuntimeError('mat1 and mat2 shapes cannot be multiplied'), 'error'),
    (KeyError('x'), 'error'),
    (FileNotFoundError(2, 'gone'), 'error'),
]


@pytest.mark.parametrize(('error', 'name'), ERRORS)
def test_what_an_exception_means(error, name):
    assert of_error(error).name == name


def test_what_an_exit_status_means():
    told = {
        exit_codes.COMPLETED: 'completed',
        exit_codes.DIVERGED: 'diverged',
        exit_codes.USER_ERROR: 'config error',
        exit_codes.FAILED: 'error',
        exit_codes.INTERRUPTED: 'interrupted',
        -9: 'killed',
        -15: 'killed',
        113: 'error',
    }
    assert {status: of_exit(status).name for status in told} == told


def test_only_failures_of_the_machine_are_tried_again():
    assert {o.name for o in OUTCOMES if o.retried} == {'interrupted', 'machine', 'killed', 'lost'}
    statuses = [o.exit_status for o in OUTCOMES if o.exit_status is not None]
    assert len(statuses) == len(set(statuses))


def test_the_documentation_lists_every_outcome(root):
    text = (root / 'docs' / 'search.md').read_text(encoding='utf-8')
    listed = re.findall(r'^\| `([a-z ]+)` \|', text, re.M)
    assert listed == [o.name for o in OUTCOMES]


def test_a_worker_of_this_machine_is_known_to_be_dead(tmp_path):
    import subprocess
    import sys

    mine = worker_name()
    assert not is_dead(mine)
    host, pid, _, machine = mine.split(':')
    assert is_dead(f'{host}:{pid}:1:{machine}'), 'another process had this number'
    assert not is_dead(f'{host}:{pid}:1:other-machine')
    assert not is_dead('') and not is_dead('nonsense')
    code = 'from bocb_mm.search.machine import worker_name; print(worker_name())'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          cwd=Path(__file__).parents[2])  # fmt: skip
    assert is_dead(done.stdout.strip())


@pytest.mark.parametrize(
    ('mine', 'others', 'behind'),
    [
        ({1: 5.0}, [], False),
        ({1: 5.0}, [{1: 6.0}], True),
        ({1: 6.0}, [{1: 5.0}], False),
        ({1: 5.0}, [{1: 6.0}, {1: 4.0}, {1: 3.0}, {1: 2.0}, {1: 1.0}], False),  # 2 of 6 go on
        ({1: 5.0, 2: 5.0}, [{1: 6.0, 2: 6.0}], False),  # no rung here: 1, 3, 9...
        ({1: 5.0, 2: 5.0, 3: 5.0}, [{1: 9.0}], False),  # nobody else has come so far
        ({1: 5.0, 2: 5.0, 3: 5.0}, [{4: 1.0, 8: 1.0, 12: 9.0}], True),  # the third evaluation
        ({}, [{1: 6.0}], False),
    ],
)
def test_halving(mine, others, behind):
    assert falls_behind(mine, others, 3) is behind
