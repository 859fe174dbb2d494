"""Process groups on GPUs (nccl) and on CPUs (gloo), under the launchers OpenMMLab knows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from mmengine.config import Config, ConfigDict

from bocb_mm.errors import UserError
from bocb_mm.launch.leaving import in_gloo_group

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')


@contextmanager
def process_group(cfg: Config, launcher: str) -> Iterator[None]:
    """Join the processes of ``launcher``; those on GPUs leave them again however the body ends.

    On CPUs :func:`bocb_mm.launch.leaving.leaves_at_once` ends the process.

    Args:
        cfg: Changed in place, see :func:`setup_distributed`.
        launcher: One of :data:`LAUNCHERS`.

    Raises:
        UserError: As :func:`setup_distributed`.
    """
    setup_distributed(cfg, launcher)
    try:
        yield
    finally:
        if launcher != 'none' and dist.is_initialized() and not in_gloo_group():
            dist.destroy_process_group()


def setup_distributed(cfg: Config, launcher: str) -> None:
    """Make ``cfg`` and the process group right for this machine, before the Runner is built.

    With CUDA, mmengine does everything itself. Without, its ``init_dist`` still calls
    ``torch.cuda.set_device`` and its wrapper still passes ``device_ids`` (mmengine 0.10.7), so the
    gloo group is made here and the wrapper's ``device_ids`` are set to None.

    Args:
        cfg: Changed in place: ``launcher``, and on a CPU ``model_wrapper_cfg``.
        launcher: One of :data:`LAUNCHERS`.

    Raises:
        UserError: More processes than GPUs on this node, or SyncBatchNorm on CPUs.
    """
    cfg.launcher = launcher
    if launcher == 'none':
        return
    if torch.cuda.is_available():
        local = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
        if local > torch.cuda.device_count():
            raise UserError(
                f'{local} processes asked on this node, it has {torch.cuda.device_count()} GPUs; '
                'ask for no more, or set CUDA_VISIBLE_DEVICES=-1 for CPU processes'
            )
        return
    if cfg.get('sync_bn'):
        raise UserError(f'sync_bn={cfg.sync_bn!r}: SyncBatchNorm needs GPUs; set sync_bn=None')
    _init_gloo(launcher)
    wrapper = cfg.get('model_wrapper_cfg') or ConfigDict(type='MMDistributedDataParallel')
    wrapper.setdefault('device_ids', None)
    wrapper.setdefault('broadcast_buffers', False)  # as mmengine does without the setting
    wrapper.setdefault('find_unused_parameters', cfg.get('find_unused_parameters', False))
    cfg.model_wrapper_cfg = wrapper


_VARIABLES = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}


def number_of_processes(launcher: str) -> int:
    """How many processes train together, as the launcher's variables say.

    Example:
        >>> number_of_processes('none')
        1
    """
    name = _VARIABLES[launcher][1] if launcher in _VARIABLES else ''
    size = os.environ.get(name, '1')
    return int(size) if size.isdigit() else 1


_LOST = re.compile(r'closed by peer|reset by peer|Broken pipe|gloo|NCCL (error|timeout)', re.I)


def lost_peer(error: BaseException) -> bool:
    """Whether an error of this process means that another process of the training is gone."""
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return several and isinstance(error, RuntimeError) and bool(_LOST.search(str(error)))


def _init_gloo(launcher: str) -> None:
    """Join the gloo group the launcher's environment variables describe."""
    try:
        rank, size, local = (int(os.environ[name]) for name in _VARIABLES[launcher])
    except KeyError as error:
        raise UserError(
            f'--launcher {launcher}: the variable {error.args[0]} is not set; start it with '
            f'{"`bocb slurm`" if launcher == "slurm" else "`bocb dist`"}'
        ) from None
    os.environ.setdefault('LOCAL_RANK', str(local))
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    os.environ.setdefault('MASTER_PORT', '29500')
    if not dist.is_initialized():
        dist.init_process_group('gloo', rank=rank, world_size=size)
