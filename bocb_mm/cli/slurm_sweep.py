"""``bocb slurm-sweep PARTITION DRIVERS STUDY ...``: an array of drivers of a study under Slurm."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bocb_mm.cli.scripts import run_script
from bocb_mm.errors import one_line_errors


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tools/slurm_sweep.sh``."""
    return run_script('slurm_sweep.sh', argv)


if __name__ == '__main__':
    sys.exit(main())
