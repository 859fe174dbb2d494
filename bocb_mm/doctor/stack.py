"""Versions of the installed packages, and the conflicts known between them."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from packaging.version import Version

# name -> what does not work without it; '' marks what everything needs
PACKAGES = {
    'torch': '',
    'mmengine': '',
    'numpy': '',
    'pandas': '',
    'torchvision': 'pre-training and detection',
    'mmcv': 'mmpretrain, mmdet and mmpose',
    'mmpretrain': 'pre-training',
    'mmdet': 'RetinaNet',
    'mmpose': 'top-down pose',
    'timm': 'bocb_mm.timm.* and the MetaFormer backbones',
    'pytorch_optimizer': 'bocb_mm.pytorch_optimizer.*',
    'matplotlib': 'figures of the report',
    'ray': '`bocb sweep` and `bocb probe`',
    'scikit-learn': 'the quickstart',
}


@dataclass(frozen=True)
class Finding:
    """Something that will not work: ``problem`` in words, ``fix`` as a command."""

    problem: str
    fix: str
    fatal: bool = True


def versions() -> dict[str, str | None]:
    """Version of each package in :data:`PACKAGES`, ``None`` where it is not installed."""
    found = {name: _version(name) for name in PACKAGES}
    found['mmcv'] = found['mmcv'] or _version('mmcv-lite')  # the same modules, without operators
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def findings(found: dict[str, str | None], probe: bool = True) -> Iterator[Finding]:
    """Every known conflict of an installation.

    Args:
        found: Package name to version, as :func:`versions` returns it.
        probe: Also import what only fails at import (mmcv's operators, opencv).

    Yields:
        Conflicts, those that keep something from working first to last as the table lists them.
    """
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        yield Finding(
            f'Python {sys.version_info[0]}.{sys.version_info[1]}: 3.10 to 3.13 are supported',
            'PYTHON=python3.11 bash tools/setup_env.sh',
        )
    for name, use in PACKAGES.items():
        if found.get(name) is None:
            what = f'{name} is not installed' + (f': no {use}' if use else '')
            yield Finding(what, _INSTALL.get(name, f'pip install {name}'), fatal=not use)
    for check in _CONFLICTS:
        finding = check(found)
        if finding is not None:
            yield finding
    if probe:
        yield from _probes(found)


_INSTALL = {
    'torch': 'bash tools/setup_env.sh',
    'mmcv': 'pip install mmcv-lite==2.1.0 torchvision',
    'mmpretrain': 'pip install mmpretrain==1.2.0',
    'mmdet': 'pip install mmdet==3.3.0',
    'mmpose': 'pip install --no-deps mmpose==1.3.2 && pip install faster-coco-eval==1.8.0 '
    'json-tricks munkres  (its dependencies chumpy and xtcocotools no longer build)',
    'ray': 'pip install "ray>=2.60,<3"',
}


def _between(found: dict[str, str | None], name: str, low: str, high: str) -> bool:
    """Whether the package is installed with ``low <= version < high``."""
    text = found.get(name)
    return text is not None and Version(low) <= Version(text) < Version(high)


def _torch(found: dict[str, str | None]) -> Finding | None:
    if _between(found, 'torch', '0', '2.6'):
        return Finding(
            f'torch {found["torch"]}: 2.6 or newer is needed', 'pip install "torch>=2.6"'
        )
    return None


def _mmcv_mmdet(found: dict[str, str | None]) -> Finding | None:
    if _between(found, 'mmdet', '3.0', '3.4') and _between(found, 'mmcv', '2.2.0', '3'):
        return Finding(
            f'mmdet {found["mmdet"]} refuses mmcv {found["mmcv"]}: it wants < 2.2.0',
            'pip uninstall -y mmcv && pip install mmcv-lite==2.1.0',
        )
    return None


def _mmcv_twice(found: dict[str, str | None]) -> Finding | None:
    if _version('mmcv') is not None and _version('mmcv-lite') is not None:
        return Finding(
            'mmcv and mmcv-lite are both installed: they overwrite each other',
            'pip uninstall -y mmcv-lite mmcv && pip install mmcv-lite==2.1.0',
        )
    return None


def _setuptools(found: dict[str, str | None]) -> Finding | None:
    text = _version('setuptools')
    if text is not None and Version(text) < Version('81'):
        return None
    what = f'setuptools {text}' if text else 'setuptools is missing'
    return Finding(
        f'{what}: configs with mmdet:: or mmpose:: bases import pkg_resources, gone since 81',
        'pip install "setuptools<81"',
    )


def _ray(found: dict[str, str | None]) -> Finding | None:
    text = found.get('ray')
    if text is None or _between(found, 'ray', '2.60', '3'):
        return None
    return Finding(f'ray {text}: `bocb sweep` was run with 2.60', _INSTALL['ray'], fatal=False)


def _keypoint_evaluation(found: dict[str, str | None]) -> Finding | None:
    packages = ('faster-coco-eval', 'xtcocotools')
    if found.get('mmpose') is None or any(_version(name) for name in packages):
        return None
    return Finding(
        'mmpose without faster-coco-eval: pose data sets cannot be read',
        'pip install faster-coco-eval==1.8.0',
    )


def _opencv_twice(found: dict[str, str | None]) -> Finding | None:
    both = [n for n in ('opencv-python', 'opencv-python-headless') if _version(n)]
    if len(both) < 2:
        return None
    return Finding(
        'opencv-python and opencv-python-headless are both installed: they share files',
        'pip uninstall -y opencv-python && pip install --force-reinstall opencv-python-headless',
        fatal=False,
    )


_CONFLICTS: tuple[Callable[[dict[str, str | None]], Finding | None], ...] = (
    _torch,
    _mmcv_mmdet,
    _mmcv_twice,
    _setuptools,
    _ray,
    _keypoint_evaluation,
    _opencv_twice,
)


def _probes(found: dict[str, str | None]) -> Iterator[Finding]:
    """Conflicts that show only when a module is loaded."""
    probes = (
        ('torchvision', 'torchvision', 'fits torch', 'bash tools/setup_env.sh'),
        ('mmcv', 'mmcv._ext', 'operators', 'pip uninstall -y mmcv && pip install mmcv-lite==2.1.0'),
        ('mmpose', 'xtcocotools.cocoeval', 'evaluation of keypoints',
         'pip uninstall -y xtcocotools && pip install faster-coco-eval==1.8.0'),
    )  # fmt: skip
    for package, module, what, fix in probes:
        if found.get(package) is None:
            continue
        try:
            importlib.import_module('torch')
            importlib.import_module(module)
        except Exception as error:  # whatever a broken binary raises is the finding
            text = ' '.join(str(error).split())[:200]
            yield Finding(f'{package} ({what}): {type(error).__name__}: {text}', fix)
