"""Where a checkpoint with an address or a name comes from, and whether it is the one promised."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import urllib.error
from pathlib import Path
from urllib.parse import urlparse

from bocb_mm.errors import CheckpointError, nearest

HUBS = ('torchvision://', 'modelzoo://', 'open-mmlab://', 'openmmlab://', 'mmcls://')
# OpenMMLab, torchvision and timm end a published name with the first digits of the file's SHA-256.
_HASH_IN_NAME = re.compile(r'-([0-9a-f]{8,64})\.(?:pth|pt|bin|tar|safetensors)(?:\.tar)?$')


def resolve(name: str) -> str:
    """The address behind a name of one of mmengine's lists of models.

    Args:
        name: Begins with one of :data:`HUBS`.

    Raises:
        CheckpointError: The list has no such model; the nearest are in the message.
    """
    from mmengine.runner import checkpoint as mm

    scheme, model = name.split('://', 1)
    if scheme in ('torchvision', 'modelzoo'):
        known = mm.get_torchvision_models()
    elif scheme == 'mmcls':
        known = mm.get_mmcls_models()
    else:
        known = mm.get_external_models()
        model = mm.get_deprecated_model_names().get(model, model)
    if model not in known:
        near = nearest(model, known)
        hint = f'; did you mean {", ".join(near)}?' if near else ''
        raise CheckpointError(f'{name}: no such model in the list of {scheme}://{hint}')
    return known[model]


def download(url: str) -> Path:
    """Fetch a checkpoint into PyTorch's hub cache, or find it there, and verify its name's hash.

    In a distributed run the first process of the machine fetches, the others wait.

    Raises:
        CheckpointError: Unreachable, or not the file that its name promises.
    """
    import torch

    name = Path(urlparse(url).path).name
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
    verify_hash(target)
    return target


def _is_first_of_machine() -> bool:
    return int(os.environ.get('LOCAL_RANK', os.environ.get('SLURM_LOCALID', 0))) == 0


def verify_hash(path: Path) -> None:
    """Compare a file with the SHA-256 digits that OpenMMLab puts at the end of its name.

    A name without such digits passes: there is nothing to compare with.

    Raises:
        CheckpointError: They differ.
    """
    promised = _HASH_IN_NAME.search(path.name)
    if promised is None:
        return
    sha = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            sha.update(block)
    digest = sha.hexdigest()
    if not digest.startswith(promised[1]):
        raise CheckpointError(
            f'{path}: its SHA-256 begins {digest[:8]}, its name promises {promised[1]}; '
            'the download is damaged or not the published file: delete it and fetch it again'
        )
