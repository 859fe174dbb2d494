"""The catalog of optimizers as a table, for the command, the site and Python alike. No torch."""

from __future__ import annotations

from collections.abc import Iterable

from bocb_mm import facts

_STARTS = {'CIFAR-100': facts.DEFAULT_RECIPE, 'RetinaNet': 'detection', 'pose': 'pose'}
NOTE = (
    f'Categories: {"; ".join(f"{k}: {text}" for k, text in facts.OPTIMIZER_CATEGORIES.items())}. '
    'The last three columns are learning rate / weight decay to start from; * marks those without '
    "a source, where the search decides. Extended: none of the paper's 20."
)


def optimizer_rows(names: Iterable[str] | None = None) -> list[list[str]]:
    """Head and one row an optimizer.

    Args:
        names: Names in :data:`bocb_mm.facts.OPTIMIZERS`; all by default.

    Example:
        >>> optimizer_rows(['AdamW'])[1][5:]
        ['0.001 / 0.05', '0.0001 / 0.05', '0.0005 / 0.1']
    """
    head = ['optimizer', 'category', 'weight decay', 'implementation', 'paper', *_STARTS]
    lines = [head]
    for name in facts.OPTIMIZERS if names is None else names:
        row = facts.OPTIMIZERS[name]
        category = row.category + ('' if row.in_paper else ' (extended)')
        cells = [row.name, category, row.decay, row.implementation, row.paper]
        for recipe in _STARTS.values():
            start = facts.default(name, recipe)
            mark = '' if start.sourced else '*'
            cells.append(f'{start.lr:g} / {start.weight_decay:g}{mark}')
        lines.append(cells)
    return lines


def markdown(rows: Iterable[Iterable[str]], aligned: bool = False) -> str:
    """Rows, the head first, as a Markdown table.

    Args:
        rows: Cells.
        aligned: Pad the cells, for a reader of the text itself.

    Example:
        >>> print(markdown([['name', 'a'], ['SGD', 'fixed']], aligned=True))
        | name | a     |
        | ---- | ----- |
        | SGD  | fixed |
    """
    cells = [list(row) for row in rows]
    widths = [max(map(len, column)) if aligned else 0 for column in zip(*cells)]
    cells.insert(1, ['-' * max(3, width) for width in widths])
    lines = [[cell.ljust(width) for cell, width in zip(row, widths)] for row in cells]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
