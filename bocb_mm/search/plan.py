"""What a study consists of: a list of trials, in ``plan.json``."""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bocb_mm.errors import UserError
from bocb_mm.runs.files import atomic_write_text
from bocb_mm.runs.record import config_hash, run_directory

SCHEMA_VERSION = 1
PLAN_FILE = 'plan.json'


@dataclass(frozen=True)
class Cell:
    """One trial: a config and an optimizer at one setting and seed.

    Attributes:
        config: Path as given, or ``mmdet::...`` and the like.
        optimizer: Any name that ``tools/train.py --optimizer`` takes.
        lr: Base learning rate.
        weight_decay: Weight decay.
        seed: Random seed.
        options: Overrides of the config, for this trial alone.
        pretrained: As ``tools/train.py --pretrained``; ``None``: the study's.
    """

    config: str
    optimizer: str
    lr: float
    weight_decay: float
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    pretrained: str | None = None

    @property
    def stem(self) -> str:
        """The config's name in tables and directories."""
        return Path(self.config.rpartition('::')[2]).stem

    @property
    def pair(self) -> tuple[str, str]:
        """Config and optimizer: what has a best setting."""
        return self.stem, self.optimizer

    def directory(self, root: Path) -> Path:
        """Where the trial trains; what is its own stands in the name as a hash."""
        folder = run_directory(
            root, self.stem, self.optimizer, self.lr, self.weight_decay, self.seed
        )
        own = {'options': dict(self.options), 'pretrained': self.pretrained}
        special = self.options or self.pretrained is not None
        return folder.with_name(f'{folder.name}_{config_hash(own)[:8]}') if special else folder

    def to_json(self) -> list[Any]:
        """As JSON can hold it."""
        own = [dict(self.options), self.pretrained]
        plain = [self.config, self.optimizer, self.lr, self.weight_decay, self.seed]
        return plain + (own if own != [{}, None] else [])

    def __str__(self) -> str:
        setting = f'lr {self.lr:g} wd {self.weight_decay:g} seed {self.seed}'
        return f'{self.stem} {self.optimizer} {setting}'


@dataclass(frozen=True)
class Plan:
    """A study's trials and what they have in common.

    Attributes:
        cells: The trials, in the order in which they start.
        configs: By path: ``task`` and ``recipe`` whose rates the catalog has, the ``toolbox`` to
            import, and what the config ``trains``, to notice that it has been changed.
        options: Overrides of every config.
        pretrained: As ``tools/train.py --pretrained``.
        amp: Mixed precision.
        retries: Further attempts after failures of the machine.
        processes: Of each trial, on a GPU each.
        folder: Working directory of the trials, which relative paths in configs start from.
        work_dir: Where the run directories are; ``''`` for the study's own directory.
        identity: Tells the study from another one in the same place.
    """

    cells: tuple[Cell, ...]
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    pretrained: str | None = None
    amp: bool = False
    retries: int = 3
    processes: int = 1
    folder: str = ''
    work_dir: str = ''
    identity: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def with_cells(self, more: Iterable[Cell]) -> Plan:
        """With further trials behind its own, each once, and each config by its first path.

        Raises:
            UserError: Two configs of one file name: their trials would train in one directory.
        """
        cells: dict[Cell, None] = {}
        seen: dict[str, str] = {}
        for cell in [*self.cells, *more]:
            first = seen.setdefault(cell.stem, cell.config)
            if first != cell.config:
                if os.path.realpath(self.path_of(first)) != os.path.realpath(
                    self.path_of(cell.config)
                ):
                    raise UserError(
                        f'{first} and {cell.config}: two configs are called {cell.stem}; rename one'
                    )
                cell = dataclasses.replace(cell, config=first)
            cells[cell] = None
        return dataclasses.replace(self, cells=tuple(cells))

    def with_config_at(self, path: str) -> Plan:
        """With the only config at another path, since what it stood in was moved."""
        cells = tuple(dataclasses.replace(cell, config=path) for cell in self.cells)
        return dataclasses.replace(self, cells=cells, configs={})

    def path_of(self, config: str) -> str:
        """The path of a config, which was given relative to the plan's folder."""
        path = Path(self.folder, config)
        return config if '::' in config or not path.exists() else str(path)

    def save(self, directory: Path) -> None:
        """Write ``plan.json``, whole or not at all."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain['cells'] = [cell.to_json() for cell in self.cells]
        data = {'schema_version': SCHEMA_VERSION, 'hash': _hash(plain), **plain}
        atomic_write_text(directory / PLAN_FILE, json.dumps(data) + '\n')

    @classmethod
    def load(cls, directory: Path) -> Plan:
        """Read ``plan.json``.

        Raises:
            UserError: There is none, it is damaged or was changed by hand, or another version of
                the package wrote it.
        """
        file = directory / PLAN_FILE
        if not file.exists():
            raise UserError(
                f'{directory}: no such study ({PLAN_FILE} is not there); make it with '
                'bocb sweep create'
            )
        kept = 'its runs are kept: put the file back, or create the study anew in another directory'
        try:
            data = json.loads(file.read_text(encoding='utf-8'))
            version, told = data.pop('schema_version'), data.pop('hash')
            if version != SCHEMA_VERSION:
                raise UserError(
                    f'{file}: written by another version of bocb_mm (schema {version}, this one '
                    f'reads {SCHEMA_VERSION}); finish the study with that one, or create it anew'
                )
            if told != _hash(data):
                raise UserError(f'{file}: was changed by hand or is damaged; {kept}')
            return cls(**{**data, 'cells': tuple(Cell(*cell) for cell in data['cells'])})
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f'{file}: cannot be read ({error}); {kept}') from None
        except (AttributeError, KeyError, TypeError):
            raise UserError(f'{file}: is no plan of a study; {kept}') from None


def _hash(plain: Mapping[str, Any]) -> str:
    """Of all but the place, which may move."""
    return config_hash({k: v for k, v in plain.items() if k not in ('folder', 'work_dir')})
