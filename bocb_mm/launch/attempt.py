"""``python -m bocb_mm.launch.attempt``: one of several processes of a training, under torchrun."""

from __future__ import annotations

import base64
import os
from multiprocessing.reduction import ForkingPickler
from typing import NoReturn

from bocb_mm.launch import process
from bocb_mm.launch.leaving import leave


def main() -> NoReturn:
    """Train; the exit status is the body's."""
    process.end_with_parent()
    body, args, threads, status_of = ForkingPickler.loads(
        base64.b64decode(os.environ.pop(process.TOLD))
    )
    try:
        import torch

        torch.set_num_threads(threads)
        status = body(*args)
    except BaseException as error:
        status = process.report(error, status_of)[0]
    leave(status)


if __name__ == '__main__':
    main()
