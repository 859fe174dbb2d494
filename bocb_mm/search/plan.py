"""What a study consists of: configs x optimizers x learning rates x weight decays x seeds."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bocb_mm.errors import UserError
from bocb_mm.runs.record import run_directory

VERSION = 1


@dataclass(frozen=True)
class Cell:
    """One trial: a pair of config and optimizer at one setting and seed.

    Attributes:
        config: Path as given to ``create``, or ``mmdet::...`` and the like.
        optimizer: Name in the catalog.
        lr: Base learning rate.
        weight_decay: Weight decay.
        seed: Random seed.
    """

    config: str
    optimizer: str
    lr: float
    weight_decay: float
    seed: int

    def dumps(self) -> str:
        """As compact JSON, a list of the fields."""
        return json.dumps(dataclasses.astuple(self), separators=(',', ':'))

    @classmethod
    def loads(cls, text: str) -> Cell:
        """Back from :meth:`dumps`."""
        return cls(*json.loads(text))

    @property
    def stem(self) -> str:
        """The config's name in tables and directories."""
        return Path(self.config.rpartition('::')[2]).stem

    @property
    def pair(self) -> tuple[str, str]:
        """Config and optimizer: what has a best setting."""
        return self.stem, self.optimizer

    def directory(self, root: str) -> Path:
        """Where the trial trains."""
        return run_directory(root, self.stem, self.optimizer, self.lr, self.weight_decay, self.seed)

    def __str__(self) -> str:
        setting = f'lr {self.lr:g} wd {self.weight_decay:g} seed {self.seed}'
        return f'{self.stem} {self.optimizer} {setting}'


@dataclass(frozen=True)
class Grid:
    """The values tried for one pair of config and optimizer.

    Attributes:
        config: As in :class:`Cell`.
        optimizer: Name in the catalog.
        lr: Learning rates, ascending.
        weight_decay: Weight decays, ascending.
        task: Of the config, for the catalog's grid.
        recipe: Of the config, likewise; ``None`` for the catalog's default recipe.
    """

    config: str
    optimizer: str
    lr: tuple[float, ...]
    weight_decay: tuple[float, ...]
    task: str = 'classification'
    recipe: str | None = None

    @property
    def pair(self) -> tuple[str, str]:
        """Config and optimizer, as :attr:`Cell.pair`."""
        return Cell(self.config, self.optimizer, 0, 0, 0).pair


@dataclass(frozen=True)
class Plan:
    """A study's list of trials and what they have in common.

    Attributes:
        grids: One a pair.
        seeds: Seeds of every setting.
        work_dir: Folder of the trials' directories.
        cfg_options: Overrides of every config.
        pretrained: As ``tools/train.py --pretrained``.
        amp: Mixed precision.
        retries: Further attempts after failures of the machine.
        heartbeat: Seconds between two signs of life of a worker; four without one and its trials
            are taken from it.
        halving: Factor of successive halving, 0 for none.
        identity: Tells the study from another one of the same name.
        version: Of this list of fields.
    """

    grids: tuple[Grid, ...]
    seeds: tuple[int, ...] = (0,)
    work_dir: str = 'work_dirs/study'
    cfg_options: Mapping[str, Any] = field(default_factory=dict)
    pretrained: str | None = None
    amp: bool = False
    retries: int = 3
    heartbeat: float = 15.0
    halving: int = 0
    identity: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    version: int = VERSION

    def cells(self) -> Iterator[Cell]:
        """Every trial; one seed is gone through before the next, so that early results count."""
        for seed in self.seeds:
            for grid in self.grids:
                for lr, decay in itertools.product(grid.lr, grid.weight_decay):
                    yield Cell(grid.config, grid.optimizer, lr, decay, seed)

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Back from :meth:`to_json`.

        Raises:
            UserError: Written by another version of the package.
        """
        if data.get('version') != VERSION:
            raise UserError(
                f'the study was made by another version of bocb_mm (plan {data.get("version")}, '
                f'this one reads {VERSION}); finish it with that one, or create it anew'
            )
        grids = tuple(
            Grid(**{**g, 'lr': tuple(g['lr']), 'weight_decay': tuple(g['weight_decay'])})
            for g in data['grids']
        )
        return cls(**{**data, 'grids': grids, 'seeds': tuple(data['seeds'])})


def catalog_grid(
    config: str, optimizer: str, task: str, recipe: str | None, size: tuple[int, int]
) -> Grid:
    """The catalog's values around an optimizer's default for the config's task and recipe.

    Args:
        config: Path of the config.
        optimizer: Name in the catalog.
        task: Of the config.
        recipe: Of the config.
        size: Number of learning rates and of weight decays.

    Example:
        >>> catalog_grid('r50.py', 'SGD', 'classification', None, (3, 1)).lr
        (0.05, 0.1, 0.2)
    """
    from bocb_mm.optimizers import get_spec

    spec = get_spec(optimizer)
    values = {
        key: spec.search_grid(task, recipe, n)[key] for key, n in zip(('lr', 'weight_decay'), size)
    }
    return Grid(config, spec.name, values['lr'], values['weight_decay'], task, recipe)


def parse_size(text: str) -> tuple[int, int]:
    """``'5x5'`` as (5, 5).

    Raises:
        UserError: Not two odd numbers; the default stands in the middle.
    """
    parts = text.lower().split('x')
    if len(parts) != 2 or not all(p.isdigit() and int(p) % 2 for p in parts):
        raise UserError(f'--grid {text!r}: two odd numbers as in 5x5 are expected')
    return int(parts[0]), int(parts[1])


def next_value(grid: Grid, key: str, up: bool) -> float | None:
    """The value that follows a grid's last (or comes before its first) one.

    It is the catalog's next where the grid is the catalog's, else continues the ratio of the two
    values at that end. Below a decay of 0 there is nothing.

    Example:
        >>> grid = catalog_grid('r50.py', 'SGD', 'classification', None, (3, 3))
        >>> next_value(grid, 'lr', up=True), next_value(grid, 'weight_decay', up=False)
        (0.4, 1e-05)
    """
    from bocb_mm.optimizers import get_spec

    values = getattr(grid, key)
    if not up and values[0] == 0:
        return None
    spec = get_spec(grid.optimizer)
    for n in range(3, 2 * len(values) + 8, 2):
        known = spec.search_grid(grid.task, grid.recipe, n)[key]
        beyond = [v for v in known if (v > values[-1] if up else v < values[0])]
        if set(values) <= set(known) and beyond:
            return min(beyond) if up else max(beyond)
    ends = values[-2:] if up else values[:2]
    ratio = ends[1] / ends[0] if len(ends) == 2 and ends[0] > 0 else 2.0
    return float(f'{values[-1] * ratio if up else values[0] / ratio:.6g}')


def positive(name: str, values: Sequence[float], zero: bool = False) -> tuple[float, ...]:
    """Values of an option, ascending and each once.

    Raises:
        UserError: One is negative, not finite, or 0 where that makes no sense.
    """
    for value in values:
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            raise UserError(f'{name} {value}: a number {">=" if zero else ">"} 0 is expected')
    return tuple(sorted(set(values)))


def check_stems(configs: Iterable[str]) -> None:
    """Refuse two configs of one file name: their trials would train in the same directories.

    Raises:
        UserError: Both paths.
    """
    seen: dict[str, str] = {}
    for config in configs:
        stem = Cell(config, '', 0, 0, 0).stem
        if stem in seen:
            raise UserError(
                f'--config {seen[stem]} and {config}: two configs are called {stem}; rename one'
            )
        seen[stem] = config
