#!/usr/bin/env python
"""Write the catalogs' tables into README.md, between their markers; ``--check`` only compares."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bocb_mm.errors import UserError, one_line_errors


def updated(text: str) -> str:
    """``text`` with the block of every catalog as the catalog is now."""
    from bocb_mm import backbones, optimizers

    for name, module in (('optimizers', optimizers), ('backbones', backbones)):
        begin, end = f'<!-- begin {name} -->', f'<!-- end {name} -->'
        if begin not in text or end not in text:
            raise UserError(f'README.md: the markers {begin} and {end} are missing')
        block = f'{begin}\n{module.catalog_table().strip()}\n{end}'
        text = re.sub(f'{begin}.*?{end}', lambda _, b=block: b, text, flags=re.DOTALL)
    return text


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='exit with 1 if the README is behind')
    args = parser.parse_args(argv)
    path = ROOT / 'README.md'
    text = path.read_text(encoding='utf-8')
    new = updated(text)
    if args.check:
        if new != text:
            print(
                'README.md is behind the catalogs: python tools/update_readme.py', file=sys.stderr
            )
        return int(new != text)
    path.write_text(new, encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
