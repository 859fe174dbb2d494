import errno
import re

import pytest

from bocb_mm.errors import UserError
from bocb_mm.launch.outcomes import OUTCOMES, SERVER_GONE, of_error, of_exit
from bocb_mm.runs import exit_codes


def chained(outer, inner):
    """``outer`` raised while ``inner`` was handled, as saving and the hooks do."""
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
    # A node with a bad GPU, in the words of torch and CUDA.
    (RuntimeError('No CUDA GPUs are available'), 'machine'),
    (RuntimeError('CUDA error: no CUDA-capable device is detected'), 'machine'),
    (RuntimeError('CUDA error: all CUDA-capable devices are busy or unavailable'), 'machine'),
    (RuntimeError('CUDA error: CUDA-capable device(s) is/are busy or unavailable'), 'machine'),
    (RuntimeError('CUDA error: initialization error'), 'machine'),
    (RuntimeError('CUDA driver initialization failed, you might not have a CUDA gpu.'), 'machine'),
    (
        RuntimeError(
            'Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before '
            'calling NumCudaDevices() that might have already set an error? Error 802: system not '
            'yet initialized'
        ),
        'machine',
    ),
    (RuntimeError('CUDA error: unknown error'), 'machine'),
    (RuntimeError('CUDA error: GPU is lost'), 'machine'),
    (
        RuntimeError('CUDA error: uncorrectable NVLink error detected during the execution'),
        'machine',
    ),
    (RuntimeError('CUDA error: device-side assert triggered'), 'error'),
    (RuntimeError('CUDA error: an illegal memory access was encountered'), 'error'),
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
        128 + 9: 'killed',  # torchrun says so of one of several processes
        SERVER_GONE: 'killed',
        113: 'error',
    }
    assert {status: of_exit(status).name for status in told} == told


def test_only_failures_of_the_machine_are_tried_again():
    assert {o.name for o in OUTCOMES if o.retried} == {'interrupted', 'machine', 'killed', 'lost'}
    statuses = [o.exit_status for o in OUTCOMES if o.exit_status is not None]
    assert len(statuses) == len(set(statuses))


def test_the_documentation_lists_every_outcome(root):
    text = (root / 'docs' / 'sweep.md').read_text(encoding='utf-8')
    listed = re.findall(r'^\| `([a-z ]+)` \|', text, re.M)
    assert listed == [o.name for o in OUTCOMES]
