"""The exceptions that mean "the user can fix this", and how a tool shows them."""

from __future__ import annotations

import difflib
import functools
import os
import select
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

_F = TypeVar('_F', bound=Callable[..., Any])


class UserError(Exception):
    """A mistake in what the user gave: one line that names the value, what was expected, the fix.

    Tools print the line without a traceback and exit with status 2. Library code raises it like
    any exception.
    """


class UnknownNameError(UserError, KeyError):
    """A name that a catalog does not have; made by :func:`unknown_name`.

    It takes one message, because mmengine wraps errors by calling ``type(error)(message)``.
    """

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0])


class CheckpointError(UserError):
    """A checkpoint that cannot be read: one line with the path and the reason."""


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str = '') -> UnknownNameError:
    """The error for a name that a catalog does not have, with the nearest names in it.

    Args:
        kind: What was looked up, e.g. ``'optimizer'``.
        name: The name as given.
        known: All names the catalog has.
        hint: The fix, e.g. the command that lists the names.

    Returns:
        The error, to be raised by the caller.

    Example:
        >>> print(unknown_name('optimizer', 'adanw', ['AdamW', 'SGD']))
        unknown optimizer 'adanw'; did you mean AdamW?
    """
    near = nearest(name, known)
    text = f'unknown {kind} {name!r}'
    if near:
        text += f'; did you mean {", ".join(near)}?'
    if hint:
        text += f' ({hint})'
    return UnknownNameError(text)


def nearest(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """Names in ``known`` closest to ``name``, upper and lower case alike, best first.

    Example:
        >>> nearest('adanw', ['AdamW', 'Adan', 'SGD'])
        ['Adan', 'AdamW']
    """
    by_lower = {k.lower(): k for k in known}
    hits = difflib.get_close_matches(name.lower(), list(by_lower), n=n, cutoff=0.5)
    return [by_lower[h] for h in hits]


def one_line_errors(main: _F) -> _F:
    """Decorate a tool's ``main``: a :class:`UserError` becomes one line and exit status 2.

    So does Ctrl-C, with the shell's status for it, 130. Where nobody reads any more what is
    printed, as after ``| head``, it ends in silence with the shell's status for that, 141.

    Under a launcher only the first process of the node speaks; the others fail in silence.
    """

    @functools.wraps(main)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            status = main(*args, **kwargs)
            sys.stdout.flush()
            return status
        except BrokenPipeError:
            if not _reader_is_gone():
                raise
            sys.exit(141)
        except UserError as error:
            if os.environ.get('LOCAL_RANK', '0') == '0':
                print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            if os.environ.get('LOCAL_RANK', '0') == '0':
                print('interrupted', file=sys.stderr)
            sys.exit(130)

    return wrapped  # type: ignore[return-value]


def _reader_is_gone() -> bool:
    """Whether it is the reader of stdout that has left; what is left to print then goes nowhere."""
    stdout = select.poll()
    stdout.register(1, 0)
    gone = any(event & select.POLLERR for _, event in stdout.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return gone
