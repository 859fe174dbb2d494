"""What of the machine keeps a training from running: GPU, operators, shared memory, disk, locks."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bocb_mm.doctor.stack import Finding

GIB = 1 << 30
#: What RetinaNet's data loaders hold in flight: 2 workers x 2 batches x 4 images of 800 x 1333.
SHARED_MEMORY = GIB // 2
#: Two checkpoints of ResNet-50 with an optimizer's state while the third is written.
DISK = 2 * GIB


def machine_findings(work_dir: str | os.PathLike[str] = 'work_dirs') -> Iterator[Finding]:
    """Everything about the machine that the main job, RetinaNet, stumbles over.

    Args:
        work_dir: Where runs are to be written; its nearest existing parent is looked at.

    Yields:
        Findings, those of the GPU first.
    """
    driver_cuda = driver()
    yield from gpu(driver_cuda)
    yield from operators(devices())
    yield from compilers()
    yield from shared_memory()
    directory = _existing(Path(work_dir))
    yield from disk(directory)
    yield from locks(directory)


def devices() -> list[str]:
    """The devices that torch can use, the CPU first."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ['cpu', *(f'cuda:{i}' for i in range(gpus))]


def driver() -> str | None:
    """The newest CUDA that the NVIDIA driver runs, e.g. ``13.0``; None where there is no driver."""
    found = re.search(r'CUDA Version: *([\d.]+)', _output('nvidia-smi'))
    return found[1] if found else None


def _output(*command: str) -> str:
    """What a program prints, or nothing where it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ''
    return done.stdout


def gpu(driver_cuda: str | None) -> Iterator[Finding]:
    """A GPU that torch does not see."""
    import torch

    if driver_cuda is None or torch.cuda.is_available():
        return
    built_for = torch.version.cuda
    if built_for is None:
        yield Finding(
            f'the machine has a GPU, but torch {torch.__version__} is built for the CPU alone',
            'rm -rf .venv && bash tools/setup_env.sh',
        )
    elif _number(driver_cuda) < _number(built_for):
        yield Finding(
            f'torch is built for CUDA {built_for}, the driver runs up to {driver_cuda}: '
            'torch sees no GPU',
            'update the NVIDIA driver, or: pip install torch==2.9.1 torchvision==0.24.1  '
            '(built for CUDA 12.8)',
        )
    else:
        hidden = os.environ.get('CUDA_VISIBLE_DEVICES')
        why = '' if hidden is None else f'; CUDA_VISIBLE_DEVICES is {hidden!r}'
        yield Finding(
            f'the driver runs CUDA {driver_cuda}, but torch sees no GPU{why}',
            'unset CUDA_VISIBLE_DEVICES' if why else 'nvidia-smi  (does it list a healthy GPU?)',
        )


def _number(version: str) -> tuple[int, ...]:
    """The major version: a driver runs every minor version of the CUDA it is made for."""
    return tuple(int(part) for part in version.split('.')[:1])


def operators(on: list[str]) -> Iterator[Finding]:
    """The operators of mmcv that RetinaNet calls, called once on each device."""
    for device in on:
        for name, call in _RETINANET.items():
            try:
                call(device)
            except Exception as error:  # whatever a broken kernel raises is the finding
                text = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
                yield Finding(
                    f"RetinaNet's operator {name} fails on {device}: {text}",
                    'pip uninstall -y mmcv && pip install mmcv-lite==2.1.0',
                )


def _nms(device: str) -> None:
    import torch
    from mmcv.ops import batched_nms

    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [9, 9, 12, 12]], device=device)
    scores, classes = torch.tensor([0.5, 0.9, 0.7]), torch.zeros(3, dtype=torch.long)
    settings = {'type': 'nms', 'iou_threshold': 0.5}
    _, kept = batched_nms(boxes, scores.to(device), classes.to(device), settings)
    if kept.tolist() != [1, 2]:
        raise ArithmeticError(f'kept boxes {kept.tolist()}, right are [1, 2]')


def _focal_loss(device: str) -> None:
    import torch
    from mmcv.ops import sigmoid_focal_loss

    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x = torch.zeros(2, 3, device=device, dtype=dtype, requires_grad=True)
        target = torch.tensor([0, 3], device=device)
        loss = sigmoid_focal_loss(x, target, 2.0, 0.25, None, 'sum')
        loss.backward()
        # p = 1/2 everywhere: (1/2)^2 log(2), 1/4 of it once and 3/4 five times.
        if abs(loss.item() - math.log(2)) > 0.01 or x.grad is None:
            raise ArithmeticError(f'{loss.item():.4f} in {dtype}, right is {math.log(2):.4f}')


_RETINANET: dict[str, Callable[[str], None]] = {'nms': _nms, 'sigmoid_focal_loss': _focal_loss}


def compilers() -> Iterator[Finding]:
    """What is missing where something is compiled: torch.compile, and mmcv for a GPU."""
    if not any(shutil.which(name) for name in ('g++', 'c++', 'clang++')):
        yield Finding(
            'no C++ compiler on PATH: compile=True of an optimizer and torch.compile cannot run '
            '(nothing else needs one)',
            'apt-get install g++',
            fatal=False,
        )
    yield from mmcv_cuda()


def mmcv_cuda() -> Iterator[Finding]:
    """A compiled mmcv that does not know the GPU."""
    import torch
    from mmcv.ops import get_compiler_version, get_compiling_cuda_version

    if not torch.cuda.is_available() or get_compiling_cuda_version() != 'not available':
        return
    if 'stand-ins' in get_compiler_version():
        return
    nvcc = nvcc_version()
    fits = nvcc is not None and _number(nvcc) == _number(str(torch.version.cuda))
    yield Finding(
        'mmcv was compiled without CUDA: the stand-ins of docs/install.md serve the GPU, other '
        f'operators fail there (nvcc: {nvcc or "none on PATH"}; for torch: {torch.version.cuda})',
        ('' if fits else f'install nvcc {torch.version.cuda}, then: ')
        + 'rm -rf .venv && MMCV_OPS=1 bash tools/setup_env.sh',
        fatal=False,
    )


def nvcc_version() -> str | None:
    """The version of the CUDA compiler in ``CUDA_HOME`` or on ``PATH``."""
    home = os.environ.get('CUDA_HOME')
    found = re.search(
        r'release ([\d.]+)', _output(f'{home}/bin/nvcc' if home else 'nvcc', '--version')
    )
    return found[1] if found else None


def shared_memory(where: str = '/dev/shm') -> Iterator[Finding]:
    """Too little memory for data loaders' workers to hand their batches over in."""
    if not Path(where).is_dir():
        return
    free = shutil.disk_usage(where).free
    if free < SHARED_MEMORY:
        yield Finding(
            f'{where} has {free / GIB:.2f} GiB free, data loader workers need '
            f'{SHARED_MEMORY / GIB} GiB: they die with "Bus error"',
            f'mount -o remount,size=8g {where}  (a container: docker run --shm-size 8g)',
        )


def disk(directory: Path) -> Iterator[Finding]:
    """Too little room for the checkpoints of a run."""
    free = shutil.disk_usage(directory).free
    if free < DISK:
        yield Finding(
            f'{directory} has {free / GIB:.1f} GiB free: a run keeps up to {DISK / GIB:.0f} GiB of '
            'checkpoints',
            f'free some of it (du -sh {directory}/*), or give another --work-dir',
        )


def locks(directory: Path) -> Iterator[Finding]:
    """A file system that cannot lock or write the files of a run."""
    import fcntl

    try:
        with tempfile.NamedTemporaryFile(dir=directory, prefix='.doctor') as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                yield Finding(
                    f'files in {directory} cannot be locked ({error.strerror}): two trainings in '
                    'one directory would not notice each other',
                    'start the NFS lock service (rpc.statd), or give a --work-dir on another disk',
                    fatal=False,
                )
    except OSError as error:
        yield Finding(
            f'{directory} cannot be written ({error.strerror})',
            'give a --work-dir that you can write to',
        )


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that is there."""
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path
