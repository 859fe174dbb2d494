"""``bocb optimizers [PATTERN]``: the catalog, or all that is known of where one starts from."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase

from bocb_mm import facts
from bocb_mm.errors import one_line_errors, unknown_name
from bocb_mm.facts.tables import NOTE, markdown, optimizer_rows


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Print the optimizers that match; for a single name, its defaults with their sources too."""
    parser = argparse.ArgumentParser(
        description='The optimizers of the catalog, with the rates and decays to start from. '
        'Beside them, timm.NAME and pytorch_optimizer.NAME are taken wherever a name is.'
    )
    parser.add_argument('pattern', nargs='?', default='*', metavar='NAME', help="or e.g. 'ada*'")
    pattern = parser.parse_args(argv).pattern
    one = facts.find_optimizer(pattern)
    names = [n for n in facts.OPTIMIZERS if fnmatchcase(n.lower(), pattern.lower())]
    if one is None and not names:
        raise unknown_name('optimizer', pattern, facts.OPTIMIZERS, '`bocb optimizers` lists them')
    print(markdown(optimizer_rows([one.name] if one else names), aligned=True))
    print(f'\n{starts(one.name) if one else NOTE}')
    return 0


def starts(name: str) -> str:
    """Learning rate and weight decay of one optimizer under every recipe, with the source."""
    rows = [['recipe', 'learning rate', 'weight decay', 'source']]
    for recipe in facts.RECIPES:
        start = facts.default(name, recipe)
        rows.append([recipe, f'{start.lr:g}', f'{start.weight_decay:g}', start.source])
    return markdown(rows, aligned=True)


if __name__ == '__main__':
    sys.exit(main())
