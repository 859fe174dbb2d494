"""Looking optimizers up by name, building them, and the catalog as a table."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from bocb_mm.errors import unknown_name
from bocb_mm.facts.tables import NOTE, markdown, optimizer_rows
from bocb_mm.optimizers.catalog import specs
from bocb_mm.optimizers.libraries import LIBRARIES, library_spec
from bocb_mm.optimizers.spec import CATEGORIES, OptimizerSpec


def list_optimizers(
    filter: str = '*', category: str | None = None, paper: bool | None = None
) -> list[str]:
    """Names in the catalog, in the paper's order, its extended rows last.

    Args:
        filter: Shell pattern, upper and lower case alike.
        category: ``'a'``, ``'b'``, ``'c'`` or ``'d'``.
        paper: True for the paper's 20, False for the others, None for all.

    Raises:
        UnknownNameError: No such category.

    Example:
        >>> list_optimizers('ada*', category='d')
        ['AdaGrad', 'AdaDelta']
        >>> len(list_optimizers(paper=True))
        20
    """
    if category is not None and category.lower() not in CATEGORIES:
        raise unknown_name('category', category, CATEGORIES, f'one of {", ".join(CATEGORIES)}')
    return [
        spec.name
        for spec in specs()
        if fnmatch.fnmatch(spec.name.lower(), filter.lower())
        and (category is None or spec.category == category.lower())
        and (paper is None or spec.in_paper == paper)
    ]


def get_spec(name: str) -> OptimizerSpec:
    """What is known of an optimizer, upper and lower case alike: what every tool asks by name.

    Args:
        name: One of the catalog, ``timm.<name>`` or ``pytorch_optimizer.<name>``, with or without
            ``bocb_mm.`` before it. A library's has no sourced defaults: its own are taken.

    Raises:
        UnknownNameError: No such optimizer.
        RefusedError: A library's that cannot run here.
        LibraryError: The library is not installed.

    Example:
        >>> get_spec('adamw').name, get_spec('bocb_mm.timm.Adopt').default('pose').lr
        ('AdamW', 0.001)
    """
    name = name.removeprefix('bocb_mm.')
    library, dot, rest = name.partition('.')
    if dot and library.lower() in LIBRARIES:
        return library_spec(library.lower(), rest.lower())
    for spec in specs():
        if spec.name.lower() == name.lower():
            return spec
    hint = 'python -m bocb_mm.optimizers lists them'
    raise unknown_name('optimizer', name, list_optimizers(), hint)


def build_optimizer(name: str, params: Iterable[Any], **kwargs: Any) -> torch.optim.Optimizer:
    """Build an optimizer of the catalog or of a library.

    Args:
        name: Name, upper and lower case alike; ``timm.<name>``, ``pytorch_optimizer.<name>``.
        params: Parameters or groups, as for any torch optimizer.
        kwargs: Arguments of the class. The fixed settings of the row are the defaults.

    Raises:
        UnknownNameError: No such optimizer.
        UnknownArgumentError: An argument the optimizer does not have; the nearest one is named.
        SettingError: A value outside its range.

    Example:
        >>> import torch
        >>> p = torch.nn.Parameter(torch.zeros(2))
        >>> build_optimizer('lamb', [p], lr=1e-3).param_groups[0]['betas']
        (0.9, 0.999)
    """
    return optimizer_builder(name)(params=params, **kwargs)


def optimizer_builder(name: str) -> Callable[..., torch.optim.Optimizer]:
    """What builds an optimizer from ``params`` and its arguments: a class, or a library's function.

    Args:
        name: One of the catalog, ``timm.<name>`` or ``pytorch_optimizer.<name>``, with or without
            ``bocb_mm.`` before it.

    Raises:
        UnknownNameError: No such optimizer.
    """
    return get_spec(name).cls


def try_out(name: str, settings: Mapping[str, Any]) -> None:
    """Build an optimizer on a weight of nobody: what it refuses shows before a training begins.

    Args:
        name: As for :func:`build_optimizer`.
        settings: Its arguments; those that depend on the device are not tried.

    Raises:
        UserError: What :func:`build_optimizer` raises.

    Example:
        >>> try_out('timm.sgdp', {'weight_decay': 0.1})
        Traceback (most recent call last):
        bocb_mm.optimizers.strict.SettingError: timm.sgdp has no default for lr: give a value
    """
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    build_optimizer(name, [weight], **{k: v for k, v in settings.items() if k not in _OF_DEVICE})


_OF_DEVICE = ('foreach', 'fused', 'capturable', 'compile')


def catalog_table() -> str:
    """The catalog as a Markdown table, one row an optimizer; the site shows it."""
    return f'{markdown(optimizer_rows())}\n\n{NOTE}'
