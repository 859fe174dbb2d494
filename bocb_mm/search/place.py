"""Where a study is kept: the STUDY argument of ``tools/sweep.py``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bocb_mm.errors import UserError


@dataclass(frozen=True)
class Place:
    """A study's database and its name in there.

    Attributes:
        url: As SQLAlchemy takes it.
        name: The study's name.
    """

    url: str
    name: str

    @property
    def file(self) -> Path | None:
        """The SQLite file, ``None`` for a server."""
        start = 'sqlite:///'
        return Path(self.url.removeprefix(start)) if self.url.startswith(start) else None

    def __str__(self) -> str:
        """For people: without the password."""
        from sqlalchemy.engine import make_url

        return str(self.file or f'{make_url(self.url)}#{self.name}')

    def connect_args(self) -> dict[str, Any]:
        """What keeps a worker from waiting for ever on a database that is gone or busy."""
        if self.file is not None:
            return {'timeout': 60}
        return {
            'connect_timeout': 5,
            'keepalives_idle': 10,
            'keepalives_interval': 5,
            'keepalives_count': 3,
            'tcp_user_timeout': 20_000,
            'options': '-c timezone=utc -c lock_timeout=60s',
            'application_name': 'bocb_mm sweep',
        }


def parse(text: str) -> Place:
    """Read a STUDY argument.

    Args:
        text: A file ``name.db``, or ``postgresql://user@host/database``, with ``#name`` behind it
            where the database holds several studies.

    Raises:
        UserError: Neither of the two.

    Example:
        >>> parse('runs/cifar.db').name
        'cifar'
        >>> parse('postgresql://me@server/bocb#cifar').url
        'postgresql+psycopg://me@server/bocb'
    """
    if '://' not in text:
        path = Path(text)
        if path.suffix != '.db':
            raise UserError(f'STUDY {text!r}: a file NAME.db or postgresql://... is expected')
        return Place(f'sqlite:///{path}', path.stem)
    address, _, name = text.partition('#')
    scheme, _, rest = address.partition('://')
    if scheme not in ('postgresql', 'postgres', 'postgresql+psycopg'):
        raise UserError(f'STUDY {scheme}://...: postgresql:// is expected, or a file NAME.db')
    database = rest.partition('/')[2].partition('?')[0]
    if not database:
        raise UserError(
            f'STUDY {scheme}://...: it names no database; add /DATABASE behind the host'
        )
    return Place(f'postgresql+psycopg://{rest}', name or database)
