"""``bocb backbones [PATTERN]``: the catalog of networks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bocb_mm.backbones.catalog import CATALOG, catalog_rows, list_backbones
from bocb_mm.errors import one_line_errors, unknown_name
from bocb_mm.facts.tables import markdown


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Print the backbones that match."""
    parser = argparse.ArgumentParser(
        description='The backbones of the catalog: the 20 of the paper, then small ones.'
    )
    parser.add_argument('pattern', nargs='?', default='*', metavar='NAME', help="or 'conv*'")
    pattern = parser.parse_args(argv).pattern
    names = list_backbones(pattern, extras=True)
    if not names:
        raise unknown_name('backbone', pattern, CATALOG, '`bocb backbones` lists them')
    print(markdown(catalog_rows(names), aligned=True))
    return 0


if __name__ == '__main__':
    sys.exit(main())
