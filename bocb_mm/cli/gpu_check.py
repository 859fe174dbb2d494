"""``bocb gpu-check``: every path that differs on a GPU, compared with the CPU; docs/gpu.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bocb_mm import shipped
from bocb_mm.errors import one_line_errors


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the stages, print their table; 1 where a check failed."""
    parser = argparse.ArgumentParser(
        description='Run every path that differs on a GPU and compare it with the CPU.',
        epilog='Exit status: 0 nothing failed, 1 a check failed, 2 a mistake in what was given.',
    )
    parser.add_argument(
        '--device', choices=('cpu', 'cuda'), default='cuda', help='cpu tries the script itself'
    )
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/gpu_check'), metavar='DIR',
        help='where gpu_check.json and the logs go (default: work_dirs/gpu_check)',
    )  # fmt: skip
    parser.add_argument(
        '--stages', nargs='+', default=[], metavar='NAME', help='these only (default: all)'
    )
    args = parser.parse_args(argv)
    from bocb_mm.gpu_check import run

    rows = run.gpu_check(args.device, args.out.resolve(), shipped.root(), args.stages)
    print('\n' + run.table(rows))
    failed = run.failures(rows)
    skipped = len(run.skipped(rows))
    print(f'\n{len(failed)} of {len(rows)} checks failed, {skipped} skipped; {args.out / run.FILE}')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
