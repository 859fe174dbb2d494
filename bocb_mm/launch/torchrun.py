"""``python -m bocb_mm.launch.torchrun``: torchrun whose exit status is the failing process's own.

torch.distributed.run ends with a traceback of its own and status 1 whatever a process said; a
user's mistake should stay one line and status 2, a divergence 3, an interruption 75.
"""

from __future__ import annotations

import logging
import signal
import sys


def main(argv: list[str] | None = None) -> int:
    """Run ``torch.distributed.run`` with ``argv`` and return the first failing process's status."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    from bocb_mm.runs.exit_codes import INTERRUPTED

    logging.getLogger('torch.distributed.elastic').setLevel(logging.CRITICAL)
    try:
        torchrun(argv)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        for other, found in error.failures.items():  # one that was killed takes the others along
            if found.exitcode < 0 and found.exitcode != -signal.SIGTERM:
                rank, failure = other, found
        if failure.exitcode > 0:
            return failure.exitcode
        number = signal.Signals(-failure.exitcode).name
        print(f'error: process {rank} was ended by {number}; go on with --resume', file=sys.stderr)
        return 128 - failure.exitcode  # a signal's number is negative
    except SignalException:
        return INTERRUPTED
    return 0


if __name__ == '__main__':
    sys.exit(main())
