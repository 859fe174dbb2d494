"""What a row of the optimizer catalog holds, and how defaults and search grids follow from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from bocb_mm import facts
from bocb_mm.errors import UnknownNameError, unknown_name
from bocb_mm.facts import OPTIMIZER_CATEGORIES, Default

CATEGORIES = OPTIMIZER_CATEGORIES

DECAYS = {
    'coupled': 'added to the gradient (L2)',
    'decoupled': 'shrinks the weight, apart from the gradient statistics',
    'trust-ratio': 'added to the update before the layer-wise trust ratio',
}
"""The kinds of weight decay."""

TASKS = ('classification', 'detection', 'pose')

RECIPES, DEFAULT_RECIPE = facts.RECIPES, facts.DEFAULT_RECIPE


@dataclass(frozen=True)
class OptimizerSpec(facts.Optimizer):
    """One optimizer: a row of ``facts/optimizers.csv`` with its class, or a library's like one.

    Attributes:
        cls: The class that ``class_path`` leads to, or what builds a library's.
        sourced: Defaults with a source, by recipe (:data:`RECIPES`).
    """

    cls: Callable[..., torch.optim.Optimizer]
    sourced: Mapping[str, Default] = field(default_factory=dict)

    def default(self, task: str, recipe: str | None = None) -> Default:
        """The starting point for a task, with its source.

        Args:
            task: ``'classification'``, ``'detection'`` or ``'pose'``.
            recipe: For classification, a name in :data:`RECIPES`; ``None`` is the paper's CIFAR-100
                schedule of 200 epochs.

        Raises:
            UnknownNameError: No such task or recipe.

        Example:
            >>> from bocb_mm.optimizers import get_spec
            >>> get_spec('AdamW').default('detection').source
            'mmdet RetinaNet RSB R-50'
        """
        return facts.default(self, _recipe_key(task, recipe))

    def defaults_for(self, task: str, recipe: str | None = None) -> dict[str, Any]:
        """Arguments to build the optimizer with: ``lr``, ``weight_decay`` and the fixed settings.

        A ``final_lr``, which AdaBound closes in on, is the rate of SGD under the recipe.

        Args:
            task: ``'classification'``, ``'detection'`` or ``'pose'``.
            recipe: For classification, a name in :data:`RECIPES`.

        Example:
            >>> from bocb_mm.optimizers import get_spec
            >>> get_spec('sgd').defaults_for('detection')
            {'lr': 0.01, 'weight_decay': 0.0001, 'momentum': 0.9}
        """
        start = self.default(task, recipe)
        settings = {'lr': start.lr, 'weight_decay': start.weight_decay, **self.fixed}
        if 'final_lr' in settings:
            settings['final_lr'] = RECIPES[_recipe_key(task, recipe)].sgd_lr
        known = getattr(self.cls, 'known', settings)  # a library's may have no weight_decay
        return {**{k: v for k, v in settings.items() if k in known}, **start.extra}

    def search_grid(
        self, task: str, recipe: str | None = None, n: int = 5
    ) -> dict[str, tuple[float, ...]]:
        """Learning rates and weight decays to search, consecutive values around the default (A.1).

        Rates step by 2. Decays step by 2 where decoupled or in the trust ratio, and by about 3
        where coupled, because a coupled decay acts through the adaptive rate and is known less
        well. Where the default decay is 0 the grid starts there and goes up in decades.

        Args:
            task: ``'classification'``, ``'detection'`` or ``'pose'``.
            recipe: For classification, a name in :data:`RECIPES`.
            n: Number of values; a larger odd one extends the same grid at both ends.

        Returns:
            ``dict(lr=(...), weight_decay=(...))``, each ascending.

        Example:
            >>> from bocb_mm.optimizers import get_spec
            >>> get_spec('AdamW').search_grid('detection')['lr']
            (2.5e-05, 5e-05, 0.0001, 0.0002, 0.0004)
        """
        start = self.default(task, recipe)
        step = math.sqrt(10) if self.decay == 'coupled' else 2.0
        return {
            'lr': _around(start.lr, 2.0, n),
            'weight_decay': _decays(start.weight_decay, step, n, self.decay),
        }

    def next_value(
        self, key: str, values: Sequence[float], up: bool, task: str, recipe: str | None = None
    ) -> float | None:
        """The value that follows the last one that was searched (or comes before the first one).

        It is the search grid's next where the values are that grid's, else it continues the ratio
        of the two values at that end. Below a decay of 0 there is nothing.

        Args:
            key: ``'lr'`` or ``'weight_decay'``.
            values: What was searched, ascending.
            up: Whether it shall be larger.
            task: As in :meth:`search_grid`.
            recipe: As in :meth:`search_grid`; one that has no rates here is none.

        Example:
            >>> from bocb_mm.optimizers import get_spec
            >>> get_spec('SGD').next_value('lr', (0.05, 0.1, 0.2), True, 'classification')
            0.4
        """
        if not up and values[0] == 0:
            return None
        with suppress(UnknownNameError):
            for n in range(3, 2 * len(values) + 8, 2):
                known = self.search_grid(task, recipe, n)[key]
                beyond = [v for v in known if (v > values[-1] if up else v < values[0])]
                if set(values) <= set(known) and beyond:
                    return min(beyond) if up else max(beyond)
        ends = values[-2:] if up else values[:2]
        ratio = ends[1] / ends[0] if len(ends) == 2 and ends[0] > 0 else 2.0
        return float(f'{values[-1] * ratio if up else values[0] / ratio:.6g}')


def _recipe_key(task: str, recipe: str | None) -> str:
    if task not in TASKS:
        raise unknown_name('task', task, TASKS, f'one of {", ".join(TASKS)}')
    if task != 'classification':
        return task
    names = [name for name in RECIPES if name not in TASKS]
    key = (recipe or DEFAULT_RECIPE).lower().replace('_', '-')
    if key not in names:
        raise unknown_name('recipe', str(recipe), names, f'one of {", ".join(names)}')
    return key


def _around(center: float, factor: float, n: int) -> tuple[float, ...]:
    below = (n - 1) // 2
    return tuple(float(f'{center * factor**i:.6g}') for i in range(-below, n - below))


def _decays(center: float, factor: float, n: int, kind: str) -> tuple[float, ...]:
    if center:
        values = _around(center, factor, n)
        return tuple(float(f'{v:.1g}') for v in values) if kind == 'coupled' else values
    top = 1e-3 if kind == 'coupled' else 0.1
    return (0.0, *_around(top, 10.0, 2 * n - 3)[: n - 1])
