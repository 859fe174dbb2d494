"""From the arguments of ``sweep.py create`` to a plan, with everything checked that can be."""

from __future__ import annotations

import argparse
import dataclasses

from bocb_mm.config import edit
from bocb_mm.config.describe import task_of_rates
from bocb_mm.errors import UserError
from bocb_mm.optimizers import get_spec, list_optimizers
from bocb_mm.search.plan import Grid, Plan, catalog_grid, check_stems, parse_size, positive


def make_plan(args: argparse.Namespace) -> Plan:
    """The plan that the arguments describe.

    Raises:
        UserError: Anything that would fail later in every trial: a config that cannot be read, an
            optimizer that is not in the catalog, a number out of its range.
    """
    for name, least in (('seeds', 1), ('retries', 0), ('heartbeat', 0.1)):
        if not getattr(args, name) >= least:
            raise UserError(f'--{name} {getattr(args, name)}: at least {least} is expected')
    if args.halving not in (0, *range(2, 100)):
        raise UserError(f'--halving {args.halving}: at least 2 is expected, or 0 for none')
    size = parse_size(args.grid)
    check_stems(args.config)
    options = edit.parse_options(args.cfg_options)
    names = optimizer_names(args.optimizers)
    grids = []
    for config in args.config:
        cfg = edit.load_config(config, options)
        task, recipe = task_of_rates(cfg), args.recipe or edit.recipe_of(cfg)
        grids += [_grid(catalog_grid(config, name, task, recipe, size), args) for name in names]
    return Plan(
        grids=tuple(grids),
        seeds=tuple(range(args.seeds)),
        work_dir=args.work_dir or f'work_dirs/{args.place.name}',
        cfg_options=options,
        pretrained=args.pretrained,
        amp=args.amp,
        retries=args.retries,
        heartbeat=args.heartbeat,
        halving=args.halving,
    )


def _grid(grid: Grid, args: argparse.Namespace) -> Grid:
    """With the values that were given instead of the catalog's."""
    rates = positive('--lr', args.lr) if args.lr else grid.lr
    decays = grid.weight_decay
    if args.weight_decay:
        decays = positive('--weight-decay', args.weight_decay, zero=True)
    return dataclasses.replace(grid, lr=rates, weight_decay=decays)


def optimizer_names(words: list[str]) -> list[str]:
    """Catalog names that names and patterns stand for, each once.

    Raises:
        UserError: A name or pattern that stands for none.

    Example:
        >>> optimizer_names(['sgd', 'AdaB*'])
        ['SGD', 'AdaBound', 'AdaBelief']
    """
    found: dict[str, None] = {}
    for word in words:
        names = list_optimizers(word)
        found.update(dict.fromkeys(names or [get_spec(word).name]))
    return list(found)
