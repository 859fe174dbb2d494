"""What comes beside the code: configs and scripts, in a wheel below ``.mim``, else the checkout's.

No torch and no mmengine here: a wrong name is refused before they are imported.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from bocb_mm.errors import UserError, nearest

PREFIX = 'bocb_mm::'


def root() -> Path:
    """The folder that holds ``configs`` and ``tools``."""
    package = Path(__file__).resolve().parent
    installed = package / '.mim'
    return installed if installed.is_dir() else package.parent


def configs() -> dict[str, Path]:
    """The configs one can train, by name: the path below ``configs`` without ``.py``.

    Example:
        >>> configs()['pretrain/cifar100/cnx-t'].name
        'cnx-t.py'
    """
    folder = root() / 'configs'
    files = sorted(folder.rglob('*.py'))
    names = {f.relative_to(folder).with_suffix('').as_posix(): f for f in files}
    return {name: file for name, file in names.items() if not name.startswith('_base_/')}


def find_config(name: str) -> str:
    """Path of the config that a user names.

    Args:
        name: A file, which comes first; the end of a shipped config's name, with or without
            ``.py``, ``configs/`` or ``bocb_mm::`` before it; or another package's
            ``mmdet::...``, which is returned as it is.

    Raises:
        UserError: There is none (the nearest are named), or several shipped ones end so.

    Example:
        >>> Path(find_config('cifar100/cnx-t')).name, find_config('mmdet::retinanet/a.py')
        ('cnx-t.py', 'mmdet::retinanet/a.py')
    """
    ours = name.startswith(PREFIX)
    if not ours and ('::' in name or Path(name).is_file()):
        return name
    wanted = _parts(name)
    found = {n: file for n, file in configs().items() if _ends_with(PurePosixPath(n).parts, wanted)}
    exact = found.get('/'.join(wanted))
    if exact or len(found) == 1:
        return str(exact or next(iter(found.values())))
    if found:
        raise UserError(f'config {name}: several end so; name one of {", ".join(found)}')
    raise UserError(f'config {name}: no such file{_near(name)}')


def find_configs(name: str) -> list[str]:
    """Paths of the configs that a name, or a pattern of shipped ones, stands for.

    Raises:
        UserError: As :func:`find_config`.

    Example:
        >>> [Path(path).stem for path in find_configs('cifar100/cnx*')]
        ['cnx-t', 'cnxv2-t']
    """
    found = matching(name) if '*' in name else []
    return [find_config(config) for config in found or [name]]


def find_base(name: str) -> Path:
    """The file of ``_base_ = 'bocb_mm::<name>'``, parts of configs too.

    Raises:
        UserError: No such file is shipped.
    """
    path = root() / 'configs' / name
    if not path.is_file():
        raise UserError(f"_base_ '{PREFIX}{name}': no such file; `bocb configs` lists them")
    return path


def matching(pattern: str = '*') -> list[str]:
    """Names of the configs that a shell pattern matches, in whole or from a folder on.

    Example:
        >>> matching('cifar100/cnx*')
        ['pretrain/cifar100/cnx-t', 'pretrain/cifar100/cnxv2-t']
    """
    return [n for n in configs() if fnmatchcase(n, pattern) or fnmatchcase(n, f'*/{pattern}')]


def _parts(name: str) -> tuple[str, ...]:
    """The name's folders and stem, without what may stand before and behind it."""
    parts = PurePosixPath(name.removeprefix(PREFIX).removesuffix('.py')).parts
    return parts[1:] if parts[:1] == ('configs',) else parts


def _ends_with(parts: tuple[str, ...], end: tuple[str, ...]) -> bool:
    return bool(end) and parts[-len(end) :] == end


def _near(name: str) -> str:
    """Which files or shipped configs may have been meant."""
    folder = Path(name).parent
    files = [str(p) for p in folder.glob('*.py')] if folder.is_dir() else []
    short = {PurePosixPath(n).name: n for n in configs()}
    stem = PurePosixPath(name).name.removesuffix('.py')
    near = nearest(str(Path(name)), files) or [short[n] for n in nearest(stem, short)]
    where = '' if folder.is_dir() else f' (the folder {folder} does not exist)'
    return where + (
        f'; did you mean {", ".join(near)}?' if near else '; `bocb configs` lists the shipped ones'
    )
