"""Stand-ins for two compiled packages, so that nothing has to be compiled.

====================  ==============================================================================
``mmcv._ext``         mmcv's operators, on kernels that torchvision's wheels bring for CPU and CUDA
``xtcocotools``       what mmpose imports of it, on faster-coco-eval
====================  ==============================================================================

:func:`install` adds a finder to ``sys.meta_path`` and imports nothing, neither torch nor mmcv: a
stand-in is loaded when the module is first asked for and is not installed. Where mmcv's compiled
operators are installed they are used; an operator of ours steps in at a call that the compiled one
refuses because it was built without this device or this number format.

``import bocb_mm`` installs the finder, and so does every start of a Python that has the package
installed (``bocb_mm_stand_ins.pth``), for scripts of other packages that know nothing of us.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_HERE = Path(__file__).resolve().parent
EXTENSION = 'mmcv._ext'
STAND_INS = {EXTENSION: _HERE / 'mmcv_ext.py', 'xtcocotools': _HERE / 'xtcocotools'}


def install() -> None:
    """Let ``mmcv._ext`` and ``xtcocotools`` be found where they are not installed.

    Example:
        >>> install()  # a second call does nothing
        >>> import importlib.util
        >>> importlib.util.find_spec('xtcocotools') is not None
        True
    """
    if any(isinstance(finder, StandInFinder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, StandInFinder())
    if EXTENSION in sys.modules:
        _complete(sys.modules[EXTENSION])


class StandInFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of :data:`STAND_INS`: the installed one first, ours where there is none."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's spec, or ``None`` for every name that is none of ours."""
        ours = STAND_INS.get(fullname)
        if ours is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None:
            return _spec_of(fullname, ours)
        if fullname == EXTENSION and spec.loader is not None:
            spec.loader = _CompletingLoader(spec.loader)
        return spec


def _spec_of(name: str, path: Path) -> importlib.machinery.ModuleSpec | None:
    if path.is_dir():
        return importlib.util.spec_from_file_location(
            name, path / '__init__.py', submodule_search_locations=[str(path)]
        )
    return importlib.util.spec_from_file_location(name, path)


class _CompletingLoader(importlib.abc.Loader):
    """Loads the compiled module as its own loader does, then completes it."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        _complete(module)


def _complete(module: ModuleType) -> None:
    from bocb_mm.stand_ins.operators import complete

    if getattr(module, '__file__', None) != str(STAND_INS[EXTENSION]):
        complete(module)
