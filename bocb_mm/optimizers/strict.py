"""Optimizer arguments that do not exist are refused, with the nearest one that does."""

from __future__ import annotations

import inspect
from typing import Any

from bocb_mm.errors import UserError, nearest


class UnknownArgumentError(UserError, TypeError):
    """An optimizer was given an argument it does not have."""


class SettingError(UserError, ValueError):
    """An optimizer was given a value outside its range."""


class SparseGradientError(UserError, RuntimeError):
    """A parameter has a sparse gradient."""


class StrictArguments:
    """Mixin: building the class with an unknown keyword raises, and names the nearest argument.

    The check sits in ``__new__``, so that it holds for a direct call, for ``build_optimizer`` and
    for a registry alike.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Show the arguments of ``__init__`` where ``inspect`` would show those of ``__new__``."""
        super().__init_subclass__(**kwargs)
        if '__init__' in cls.__dict__:
            signature = inspect.signature(cls.__dict__['__init__'])
            cls.__signature__ = signature.replace(  # type: ignore[attr-defined]
                parameters=list(signature.parameters.values())[1:]
            )

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Check the keywords, then make the object.

        Raises:
            UnknownArgumentError: A keyword that ``__init__`` does not take.
        """
        check_arguments(cls.__name__, cls, kwargs)
        return super().__new__(cls)


def check_arguments(name: str, target: Any, kwargs: dict[str, Any], lenient: bool = True) -> None:
    """Raise for the first keyword that ``target`` does not take.

    Args:
        name: How the message calls the target.
        target: A class or function whose signature counts.
        kwargs: Keywords it is about to get.
        lenient: Where the target has ``**kwargs``, let everything pass.

    Raises:
        UnknownArgumentError: Names the keyword and the nearest arguments.
    """
    known = inspect.signature(target).parameters
    if lenient and any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return
    names = [n for n, p in known.items() if n != 'params' and p.kind is not p.VAR_KEYWORD]
    for key in kwargs:
        if key not in names and key != 'params':
            near = nearest(key, names)
            mend = f'did you mean {near[0]}?' if near else f'it takes {", ".join(names)}'
            raise UnknownArgumentError(f'{name} has no argument {key!r}; {mend}')


def require(condition: bool, name: str, value: Any, expected: str) -> None:
    """Raise :class:`SettingError` unless ``condition`` holds.

    Example:
        >>> require(-1 >= 0, 'lr', -1, 'at least 0')
        Traceback (most recent call last):
        bocb_mm.optimizers.strict.SettingError: lr=-1: expected at least 0
    """
    if not condition:
        raise SettingError(f'{name}={value}: expected {expected}')


def check_common(lr: Any, weight_decay: float, eps: float = 1.0) -> None:
    """Check what nearly every optimizer takes: rate and decay at least 0, eps above 0."""
    require(float(lr) >= 0, 'lr', lr, 'a number of at least 0')
    require(weight_decay >= 0, 'weight_decay', weight_decay, 'a number of at least 0')
    require(eps >= 0, 'eps', eps, 'a number of at least 0')


def check_betas(betas: tuple[float, ...], n: int) -> None:
    """Check that there are ``n`` decay rates in [0, 1)."""
    good = len(betas) == n and all(0 <= b < 1 for b in betas)
    require(good, 'betas', tuple(betas), f'{n} numbers in [0, 1)')
