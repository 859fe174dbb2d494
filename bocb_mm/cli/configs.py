"""``bocb configs [PATTERN]``: the configs that come with the package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bocb_mm import shipped
from bocb_mm.errors import UserError, one_line_errors


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Print names, one a line; `bocb train` takes each, or its end."""
    parser = argparse.ArgumentParser(
        description='The configs that come with the package; `bocb train` takes a name or its end.'
    )
    parser.add_argument('pattern', nargs='?', default='*', help="e.g. 'cifar100/*'")
    parser.add_argument('--paths', action='store_true', help='print the files instead')
    args = parser.parse_args(argv)
    found = shipped.matching(args.pattern)
    if not found:
        raise UserError(f'{args.pattern}: no shipped config; `bocb configs` lists them all')
    files = shipped.configs()
    print('\n'.join(str(files[name]) if args.paths else name for name in found))
    return 0


if __name__ == '__main__':
    sys.exit(main())
