"""``python -m bocb_mm.launch.torchrun``: torchrun whose exit status is the failing process's own.

torch.distributed.run ends with a traceback of its own and status 1 whatever a process said; a
user's mistake should stay one line and status 2, a divergence 3, an interruption 75.
"""

from __future__ import annotations

import logging
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
        status = error.get_first_failure()[1].exitcode
        return status if status > 0 else 128 - status  # a signal's number is negative
    except SignalException:
        return INTERRUPTED
    return 0


if __name__ == '__main__':
    sys.exit(main())
