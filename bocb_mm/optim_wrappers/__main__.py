"""``python -m bocb_mm.optim_wrappers CONFIG``: which parameter learns how."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from bocb_mm.errors import UserError, one_line_errors

HEAD = ('role', 'tensors', 'weights', 'shapes', 'optimizer', 'lr', 'weight decay')


def group_table(optimizer: Any) -> str:
    """The groups of an optimizer as a Markdown table, one row a group, shapes by frequency."""
    lines = [f'| {" | ".join(HEAD)} |', '|' + '---|' * len(HEAD)]
    name = type(optimizer).__name__
    for group in optimizer.param_groups:
        rest = group.get('use_fallback') or not group.get('matrix', group.get('use_muon', True))
        shapes = Counter('x'.join(map(str, p.shape)) or 'scalar' for p in group['params'])
        common = [f'{s} ({n})' if n > 1 else s for s, n in shapes.most_common(3)]
        cells = (
            group.get('name', group.get('role', '')).split(', lr x')[0],
            len(group['params']),
            f'{sum(p.numel() for p in group["params"]):,}',
            ', '.join(common) + (f', {len(shapes) - 3} more' if len(shapes) > 3 else ''),
            f'AdamW of {name}' if rest else name,
            f'{float(group["lr"]):.4g}',
            f'{group.get("weight_decay", 0):.4g}',
        )
        lines.append(f'| {" | ".join(map(str, cells))} |')
    return '\n'.join(lines)


@one_line_errors
def main(argv: list[str] | None = None) -> None:
    """Build the model and the optimizer wrapper of a config, and print the groups."""
    parser = argparse.ArgumentParser('python -m bocb_mm.optim_wrappers', description=__doc__)
    parser.add_argument('config', help='a config of mmpretrain, mmdet, mmpose or this package')
    path = parser.parse_args(argv).config
    if not Path(path).is_file():
        raise UserError(f'{path}: there is no such config')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program: it may raise anything
        raise UserError(f'{path}: cannot be read ({type(error).__name__}: {error})') from error
    if not cfg.get('model') or not cfg.get('optim_wrapper'):
        raise UserError(f'{path}: expected a config with a `model` and an `optim_wrapper`')
    MMLogger.get_current_instance().setLevel('WARNING')  # which says the same at length
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    model = MODELS.build(cfg.model)
    print(group_table(build_optim_wrapper(model, cfg.optim_wrapper).optimizer))


if __name__ == '__main__':
    main()
