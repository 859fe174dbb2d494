"""What a hook that only watches must not do: end a training by an error of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from bocb_mm.runs.warn import warn

_F = TypeVar('_F', bound=Callable[..., Any])


def harmless(method: _F) -> _F:
    """Decorate a hook's method: its errors are a warning in the log and in ``run.json``.

    A run that another hook ends in good order ends all the same.
    """

    @functools.wraps(method)
    def wrapped(self: Any, runner: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, runner, *args, **kwargs)
        except Exception as error:
            text = ' '.join(f'{type(error).__name__}: {error}'.split())[:500]
            warn(runner, f'{type(self).__name__}.{method.__name__}: {text}')
            return None

    return wrapped  # type: ignore[return-value]
