"""Child registries of mmengine, scope ``bocb_mm``.

``type='bocb_mm.LARS'`` resolves in any MM config without ``custom_imports``: mmengine imports
``bocb_mm.registry`` when it meets the scope, and ``locations`` says which module of ours to import
when a name is first asked for. Nothing is registered under a bare name of another package.
Names are looked up without regard to case; an unknown one raises with the nearest names.
"""

from __future__ import annotations

from typing import Any

from mmengine import registry as mmengine_registry
from mmengine.registry import Registry

from bocb_mm.errors import UnknownNameError, unknown_name

SCOPE = 'bocb_mm'


class CatalogRegistry(Registry):
    """A registry that ignores case, asks ``bocb_mm.<library>.<name>`` of its libraries, and raises.

    A library is a function that takes the name behind ``<library>.`` and returns what builds it,
    so that e.g. ``bocb_mm.timm.muon`` works without a row for every name timm has.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.libraries: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        """What ``key`` names: ours first, then a library's, then mmengine's own.

        Raises:
            UnknownNameError: Nobody knows the name.
        """
        self.import_from_location()
        key = key.removeprefix(f'{SCOPE}.')  # asked by our own registry's build
        if key in self.module_dict:
            return self.module_dict[key]
        for name, entry in self.module_dict.items():
            if name.lower() == key.lower():
                return entry
        library, dot, rest = key.partition('.')
        if dot and library in self.libraries:
            return self.libraries[library](rest)
        found = super().get(key)
        if found is None and dot:  # a class by its path, as in any registry of mmengine
            found = super().get(f'{SCOPE}.{key}')
        if found is None:
            raise unknown_name(self.name, key, self.module_dict, self._where_they_are())
        return found

    def _where_they_are(self) -> str:
        """The names there are, or the command that lists them where they are many."""
        if len(self.module_dict) < 15:
            return f'{SCOPE} has {", ".join(self.module_dict) or "none"}'
        return f'python -m {self._locations[0].removesuffix(".register")} lists them'

    def __contains__(self, key: str) -> bool:
        try:
            return self.get(key) is not None
        except UnknownNameError:
            return False


def _child(name: str, parent: Registry, *locations: str) -> CatalogRegistry:
    return CatalogRegistry(name, parent=parent, scope=SCOPE, locations=list(locations))


OPTIMIZERS = _child(
    'optimizer',
    mmengine_registry.OPTIMIZERS,
    'bocb_mm.optimizers.register',
    'bocb_mm.optim_wrappers.zero',
)
OPTIM_WRAPPERS = _child('optim wrapper', mmengine_registry.OPTIM_WRAPPERS, 'bocb_mm.optim_wrappers')
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    'optim wrapper constructor',
    mmengine_registry.OPTIM_WRAPPER_CONSTRUCTORS,
    'bocb_mm.optim_wrappers',
)
MODELS = _child(
    'model', mmengine_registry.MODELS, 'bocb_mm.backbones.register', 'bocb_mm.datasets.register'
)
HOOKS = _child('hook', mmengine_registry.HOOKS, 'bocb_mm.hooks')
TRANSFORMS = _child('transform', mmengine_registry.TRANSFORMS, 'bocb_mm.datasets')
