"""The one place where a checkpoint is read: weights and plain data only, never code.

A ``.pth`` file is a pickle, and a pickle can run any program when it is opened. Everything here
goes through PyTorch's restricted unpickler with the short list of :func:`safe_globals`; a file
that wants more is refused with the name of what it wanted. ``docs/security.md`` says what that
does and does not protect from.
"""

from __future__ import annotations

import inspect
import io
import os
import pickle
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from bocb_mm.checkpoints.download import HUBS, PACKAGE, download, package_file, resolve
from bocb_mm.compat import read_checkpoints_with
from bocb_mm.errors import CheckpointError, nearest

TRUST_FLAG = '--trust-checkpoint'
_REMOTE = ('s3://', 'petrel://', 'pavi://')
_HARMLESS = re.compile(
    r'collections\.|numpy\.|_codecs\.|mmengine\.logging\.history_buffer\.'
    r'|torch\.(_utils\.|storage\.|nn\.parameter\.|Size$|device$|\w+Storage$)'
)


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint that would run code: the message names what it wanted to call."""


def load_checkpoint(
    path_or_url: str | os.PathLike[str],
    *,
    trust: bool | None = None,
    map_location: Any = 'cpu',
    lazy: bool = False,
) -> dict[str, Any]:
    """Read a checkpoint without running any code that it may hold.

    Args:
        path_or_url: A ``.pth`` or ``.safetensors`` file, an ``http(s)://`` address (kept in
            PyTorch's hub cache, its hash compared with the one in an OpenMMLab file name), or a
            name under ``torchvision://``, ``timm://``, ``mmpretrain://``, ``open-mmlab://`` or
            ``mmcls://``, or a file of an installed Python package, ``package://NAME/PATH``.
        trust: Unpickle without restriction. The file can then do whatever you can do. ``None``:
            as :func:`install_safe_loading` was told for this process, else no.
        map_location: As in :func:`torch.load`.
        lazy: Leave the tensors on the disk until they are used, for a quick look at the rest; the
            file's checksums are not compared then.

    Returns:
        What the file holds: of mmengine ``meta``, ``state_dict``, ``message_hub``, ``optimizer``,
        ``param_schedulers``; of others often just the weights by name.

    Raises:
        UnsafeCheckpointError: The pickle would run code.
        CheckpointError: Missing, truncated, damaged, or not a checkpoint at all.

    Example:
        >>> load_checkpoint('epoch_12.pth')['meta']['epoch']  # doctest: +SKIP
        12
    """
    trust = _trusted if trust is None else trust
    name = os.fspath(path_or_url)
    if name.startswith('mmcls://'):
        options: dict[str, Any] = {'trust': trust, 'map_location': map_location, 'lazy': lazy}
        return _backbone_of_mmcls(load_checkpoint(resolve(name), **options))
    if name.startswith(HUBS):
        name = resolve(name)
    if name.startswith(_REMOTE):
        raise CheckpointError(
            f'{name}: files and https:// addresses are read; copy the file here and give its path'
        )
    if name.startswith(('http://', 'https://')):
        path = download(name)
    elif name.startswith(PACKAGE):
        path = package_file(name)
    else:
        path = Path(unquote(urlparse(name).path) if name.startswith('file://') else name)
    return _read(path.expanduser(), trust, map_location, lazy)


def _read(path: Path, trust: bool, map_location: Any, lazy: bool) -> dict[str, Any]:
    """Read a local file, every failure as one line."""
    _check_exists(path)
    try:
        if path.suffix == '.safetensors':
            content = _read_safetensors(path, map_location)
        else:
            archive = _is_archive(path)
            if archive and not lazy:
                check_archive(path)
            content = _read_pickle(path, trust, map_location, mmap=archive and lazy)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file raises almost anything, on up to MemoryError
        why = _what_it_is(path) or f'damaged or not a checkpoint ({_reason(error)})'
        raise CheckpointError(f'{path}: {why}') from None
    if not isinstance(content, dict):
        found = type(content).__name__
        raise CheckpointError(f'{path}: holds a {found}, expected a dict of weights')
    return content


def _what_it_is(path: Path) -> str:
    """What took the place of a file that was never fetched; ``''`` for any other."""
    with path.open('rb') as file:
        head = file.read(200).lstrip()
    if head.startswith(b'version https://git-lfs'):
        return 'is a pointer of Git LFS and not the file itself; fetch that with git lfs pull'
    if head.startswith(b'<'):
        return 'is a web page and not a checkpoint; download it again'
    return ''


def _reason(error: Exception) -> str:
    """One short line of an error's text, without torch's advice to switch the safety off."""
    text = ' '.join(str(error).split())
    if 'Weights only load failed' in text:
        text = text.partition('WeightsUnpickler error: ')[2].partition(' Check the doc')[0]
    return text[:200] or type(error).__name__


def _check_exists(path: Path) -> None:
    if path.is_dir():
        raise CheckpointError(f'{path}: is a directory, expected a checkpoint file; give one in it')
    if not path.is_file():
        beside: list[str] = []
        with suppress(OSError):
            beside = nearest(path.name, (p.name for p in path.parent.glob('*.pth')))
        hint = f'; did you mean {", ".join(beside)}?' if beside else ''
        raise CheckpointError(f'{path}: no such checkpoint file{hint}')
    if path.stat().st_size == 0:
        raise CheckpointError(f'{path}: is empty; give another checkpoint')


def _is_archive(path: Path) -> bool:
    """Whether it is the zip format of torch >= 1.6; older files are bare pickles."""
    with path.open('rb') as file:
        return file.read(2) == b'PK'


def is_torch_archive(path: Path) -> bool:
    """Whether a file begins as torch.save's archives do, whatever its name and even if cut off."""
    try:
        with path.open('rb') as file:
            header = file.read(30)
            length = struct.unpack('<H', header[26:28])[0] if header[:4] == b'PK\3\4' else 0
            return file.read(length).endswith(b'/data.pkl')
    except (OSError, struct.error):
        return False


def check_archive(path: Path) -> None:
    """Compare every checksum in a zip archive, which torch.load does not, and refuse zip bombs.

    Raises:
        CheckpointError: Truncated, damaged, or compressed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, EOFError) as error:
        raise CheckpointError(f'{path}: truncated or damaged ({error})') from None
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise CheckpointError(f'{path}: a compressed archive, which torch.save never writes')
    # torch.serialization.set_crc32_options(False) writes none: then only lengths tell.
    summed = any(record.CRC for record in records)
    with path.open('rb', buffering=0) as file:
        for record in records:
            found = _checksum(file, record)
            if found is None or (summed and found != record.CRC):
                name = record.filename
                raise CheckpointError(f'{path}: damaged, the checksum of {name!r} does not match')


def _checksum(file: io.FileIO, record: zipfile.ZipInfo) -> int | None:
    """CRC-32 of a stored record, ``None`` if it is not all there.

    ZipFile.testzip() takes twice as long, which a training would wait for at every save.
    """
    file.seek(record.header_offset)
    header = file.read(30)  # APPNOTE.TXT 4.3.7: the lengths of name and extra field end it
    if len(header) < 30 or header[:4] != b'PK\3\4':
        return None
    file.seek(sum(struct.unpack('<HH', header[26:])), os.SEEK_CUR)
    left, crc = record.file_size, 0
    buffer = memoryview(bytearray(min(left, 1 << 20)))
    while left:
        count = file.readinto(buffer[:left])
        if not count:
            return None
        crc = zlib.crc32(buffer[:count], crc)
        left -= count
    return crc


def _read_safetensors(path: Path, map_location: Any) -> dict[str, Any]:
    from safetensors.torch import load_file

    device = map_location if isinstance(map_location, str | int) else str(map_location or 'cpu')
    return load_file(path, device='cpu' if callable(map_location) else device)


def _read_pickle(path: Path, trust: bool, map_location: Any, mmap: bool) -> Any:
    import torch

    if trust:
        return torch.load(path, map_location=map_location, mmap=mmap, weights_only=False)
    if os.environ.get('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '').lower() in ('1', 'y', 'yes', 'true'):
        raise CheckpointError(
            f'{path}: TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set and would let the file run code; '
            f'unset it, or give {TRUST_FLAG}'
        )
    try:
        with torch.serialization.safe_globals(safe_globals()):
            return torch.load(path, map_location=map_location, mmap=mmap, weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = _wanted(path, str(error))
        if wanted is None:
            raise
        raise UnsafeCheckpointError(
            f'{path}: refused, it wants to call {wanted!r}, which is code and not weights; '
            f'if you trust who made the file, give {TRUST_FLAG}'
        ) from None


def _wanted(path: Path, message: str) -> str | None:
    """The name that made the restricted unpickler stop; ``None`` when the file is just damaged.

    The unpickler's message has it, but for newer pickle protocols; there the opcodes tell.
    """
    if found := re.search(r'GLOBAL ([\w.]+)', message):
        return found[1]
    return next((n for n in _names_in(path) if not _HARMLESS.match(n)), None)


def _names_in(path: Path) -> Iterator[str]:
    """The functions and classes a pickle names, read off its opcodes without running them."""
    with suppress(Exception):  # the file is refused in any case, this only finds a better word
        data = path.read_bytes()
        if data.startswith(b'PK'):
            with zipfile.ZipFile(path) as archive:
                data = archive.read(next(n for n in archive.namelist() if n.endswith('data.pkl')))
        stream, strings = io.BytesIO(data), ['', '']
        while stream.tell() < len(data):
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in ('GLOBAL', 'INST'):
                    yield str(argument).replace(' ', '.')
                elif opcode.name == 'STACK_GLOBAL':
                    yield '.'.join(strings[-2:])
                elif isinstance(argument, str):
                    strings.append(argument)


def safe_globals() -> list[Any]:
    """What a checkpoint may name beyond tensors and plain containers.

    mmengine's history of logged values, and numpy arrays, scalars and data types: they hold
    numbers and cannot call anything.

    Returns:
        The list in the form :func:`torch.serialization.add_safe_globals` takes.
    """
    import numpy as np

    history: list[Any] = []
    with suppress(ImportError):  # the layer metrics work without mmengine
        from mmengine.logging import HistoryBuffer

        history = [HistoryBuffer, (_statistic_of_history, 'builtins.getattr')]
    multiarray = _multiarray()
    functions = [
        (getattr(multiarray, name), f'{module}.multiarray.{name}')
        for name in ('_reconstruct', 'scalar')
        for module in ('numpy.core', 'numpy._core')  # as numpy 1 and numpy 2 spell it
    ]
    dtypes = {type(np.dtype(kind)) for kind in '?bhilqBHILQefdFDgGSU'}
    return [
        *history,
        np.ndarray,
        np.dtype,
        *functions,
        *sorted(dtypes, key=repr),
    ]


def _statistic_of_history(owner: Any, name: str) -> Any:
    """What stands in for ``getattr``, by which a pickled HistoryBuffer names its own methods."""
    from mmengine.logging import HistoryBuffer

    method = vars(HistoryBuffer).get(name) if isinstance(name, str) else None
    if owner is not HistoryBuffer or name.startswith('_') or not inspect.isfunction(method):
        raise pickle.UnpicklingError(f'GLOBAL getattr of {owner!r}')
    return method


def _multiarray() -> Any:
    try:
        from numpy._core import multiarray
    except ImportError:  # numpy 1
        from numpy.core import multiarray  # type: ignore[no-redef]
    return multiarray


def _backbone_of_mmcls(checkpoint: dict[str, Any]) -> dict[str, Any]:
    weights = checkpoint.get('state_dict', checkpoint)
    prefix = 'backbone.'
    return {'state_dict': {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}}


_trusted = False


def install_safe_loading(trust: bool | None = None) -> None:
    """Make mmengine read every checkpoint through :func:`load_checkpoint`.

    ``Runner.load_checkpoint``, ``Runner.resume``, ``init_cfg=dict(type='Pretrained')`` and
    ``load_from`` all ask mmengine's ``CheckpointLoader``. A tool calls this once at its start;
    importing the package changes nothing.

    Args:
        trust: Unpickle without restriction; ``None`` keeps what an earlier call said.
    """
    global _trusted
    if trust is not None:
        _trusted = trust
    read_checkpoints_with(load_from_bocb_mm)


def is_trusting() -> bool:
    """Whether this process reads checkpoints without restriction."""
    return _trusted


def load_from_bocb_mm(filename: str, map_location: Any = 'cpu') -> dict[str, Any]:
    """A loader for mmengine's ``CheckpointLoader``, which logs the name behind ``load_from_``.

    Everything is read onto the CPU, whatever device mmengine asks for: model and optimizer copy
    what is theirs to their own device, and random states, counters and positions belong on the
    CPU. (mmengine 0.10.7's ``Runner.resume`` asks for the GPU.)
    """
    content = load_checkpoint(filename)
    # mmengine 0.10.7's Runner.resume executes this string as a Python config, to look up gpu_ids.
    if not _trusted and isinstance(content.get('meta'), dict):
        content['meta'].pop('config', None)
    return content
