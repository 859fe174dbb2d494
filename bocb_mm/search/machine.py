"""Who a worker is, and whether one of this machine is still alive."""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path


def worker_name() -> str:
    """This process, unlike any other on any machine: ``host:process:start:machine``."""
    return f'{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}:{_machine()}'


def is_dead(worker: str) -> bool:
    """Whether a worker certainly is gone; of another machine nothing is certain.

    Example:
        >>> is_dead(worker_name()), is_dead('elsewhere:1:2:3')
        (False, False)
    """
    _, _, rest = worker.partition(':')
    pid, _, rest = rest.partition(':')
    started, _, machine = rest.partition(':')
    if not pid.isdigit() or machine != _machine():
        return False
    return _started(int(pid)) != started


@functools.cache
def _machine() -> str:
    """Boot and process namespace: containers may share a host's name, but not both of these."""
    try:
        boot = Path('/proc/sys/kernel/random/boot_id').read_text(encoding='ascii').strip()
        return f'{boot}-{Path("/proc/self/ns/pid").stat().st_ino}'
    except OSError:
        return f'unknown-{os.getpid()}'  # equal to no other: only its silence tells


def _started(pid: int) -> str:
    """Start of a process in ticks since boot, ``''`` if there is none (or it is a zombie)."""
    try:
        text = Path(f'/proc/{pid}/stat').read_text(encoding='utf-8', errors='replace')
    except OSError:
        return ''
    fields = text.rpartition(')')[2].split()  # a program's name may hold blanks
    return '' if fields[0] in 'ZX' else fields[19]
