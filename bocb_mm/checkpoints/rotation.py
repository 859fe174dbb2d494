"""What the checkpoints of a run are called, which one is the newest, and which ones go."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bocb_mm.runs.files import atomic_write_text, remove_leftovers

TEMPORARY = '.{}.tmp'
"""Name of a checkpoint that is being written."""


class Rotation:
    """The checkpoints of one run on the disk.

    Args:
        directory: Where they are; it is made when it is not there.
        pointer: File that names the newest one (``last_checkpoint``).
        template: Their name, with ``{}`` for the number of the epoch or iteration.
        keep: How many regular ones are kept; all of them below 1.
        steps: Numbers of the regular ones that are there.

    Example:
        >>> rotation = Rotation('work_dirs/a', 'work_dirs/a/last_checkpoint', keep=1, steps=[3])
        >>> rotation.name(4), rotation.best('coco/AP', 4)
        ('epoch_4.pth', 'best_coco_AP_epoch_4.pth')
        >>> rotation.add(4), rotation.steps
        (['epoch_3.pth'], [4])
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        pointer: str | os.PathLike[str],
        template: str = 'epoch_{}.pth',
        keep: int = -1,
        steps: Iterable[int] = (),
    ) -> None:
        self.directory, self.pointer = Path(directory), Path(pointer)
        one_file = template.format(0) == template.format(1)  # it has no place for a number
        self.template, self.keep, self.steps = template, -1 if one_file else keep, list(steps)

    def name(self, step: int) -> str:
        """Name of a regular checkpoint."""
        return self.template.format(step)

    def interim(self, iteration: int) -> str:
        """Name of a checkpoint between the regular ones."""
        ending = self.template.rpartition('}')[2] if '}' in self.template else '.pth'
        return f'iter_{iteration}{ending}'

    def best(self, metric: str, step: int) -> str:
        """Name of the checkpoint with the best value of a metric so far."""
        return f'best_{metric}_{self.name(step)}'.replace('/', '_')

    def steps_with(self, step: int) -> list[int]:
        """Numbers of the regular checkpoints once this one is among them, none deleted yet."""
        return [known for known in self.steps if known != step] + [step]

    def add(self, step: int) -> list[str]:
        """Count a regular checkpoint that is on the disk; returns the names of those to delete."""
        steps = self.steps_with(step)
        if self.keep < 1:
            return []
        self.steps = steps[-self.keep :]
        return [self.name(old) for old in steps[: -self.keep]]

    def point_to(self, name: str) -> None:
        """Let the pointer name a checkpoint, all or nothing.

        Raises:
            OSError: The disk is full or read-only.
        """
        atomic_write_text(self.pointer, str(self.directory / name))

    def delete(self, names: Iterable[str]) -> None:
        """Delete checkpoints; those that are gone already are no error."""
        for name in names:
            with suppress(FileNotFoundError):
                (self.directory / name).unlink()

    def prepare(self) -> None:
        """Make the directory, and delete what a run that was killed left half-written.

        The run's lock must be held: nobody else may be writing.

        Raises:
            OSError: The directory cannot be made.
        """
        regular = self.directory / self.template
        regular.parent.mkdir(parents=True, exist_ok=True)
        any_number = re.sub(r'\\\{[^}]*\\\}', '.*', re.escape(regular.name))
        ending = re.escape(self.interim(0).removeprefix('iter_0'))
        written = re.compile(rf'\.({any_number}|iter_\d+{ending}|best_.*)\.tmp')
        for folder in {self.directory, regular.parent}:
            for path in folder.glob(TEMPORARY.format('*')):
                if written.fullmatch(path.name):
                    path.unlink(missing_ok=True)
        remove_leftovers(self.pointer)
