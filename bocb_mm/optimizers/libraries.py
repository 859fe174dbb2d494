"""Every other optimizer: ``bocb_mm.timm.<name>`` and ``bocb_mm.pytorch_optimizer.<name>``.

Names are those the libraries list (``timm.optim.list_optimizers()``,
``pytorch_optimizer.get_supported_optimizers()``), without regard to case. Arguments are those of
the library's class, checked strictly. An optimizer that a training loop without closure, without
second derivatives and without access to the model cannot run is refused with the reason.
adashift, conda, scalableshampoo, scion and scionlight hold Python objects in their state, which is
refused after the first iteration, unless checkpoints are trusted.
Schedule-free optimizers have ``train()`` and ``eval()``, which the optimizer wrapper calls.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim.optimizer import required as REQUIRED

from bocb_mm.errors import UserError, unknown_name
from bocb_mm.optimizers.halves import Halves
from bocb_mm.optimizers.loading import check_library_state
from bocb_mm.optimizers.spec import OptimizerSpec
from bocb_mm.optimizers.strict import SettingError, check_keywords, check_numbers, checked_params

CLOSURE = 'it needs a closure that evaluates the loss again'
SECOND_ORDER = 'it needs a backward pass with create_graph=True'
MODEL = 'it needs the model itself, not its parameters'
REFUSED = {
    'timm': {'adahessian': SECOND_ORDER},
    'pytorch_optimizer': {
        'adahessian': SECOND_ORDER,
        'sophiah': f'{SECOND_ORDER}; bocb_mm.Sophia is Sophia-G',
        'lbfgs': CLOSURE,
        'alig': CLOSURE,
        'bsam': CLOSURE,
        'lomo': MODEL,
        'adalomo': MODEL,
        'adammini': MODEL,
        'demo': 'it replaces the gradient exchange of DDP by its own',
        'distributedmuon': 'it shards its work over processes by itself; take muon',
        'lorarite': 'it takes pairs of LoRA factors, which a network does not have',
        'spectralsphere': 'it takes matrices only, a network has norms and biases too',
    },
}
"""What cannot work, by library, with the reason (timm 1.0.31, pytorch_optimizer 4.1.0)."""

BASES = {'magma': 'adamw'}
"""pytorch_optimizer classes around another one, whose arguments they take too."""

SPLIT_BY_DIMENSION = {'muon', 'adamuon', 'adago', 'muonclip', 'normuon'}
"""pytorch_optimizer classes whose groups say ``use_muon``; matrices get True, the rest False, where
nobody says what belongs where."""

TIMM_HALVES = Halves(
    {'use_muon': True},
    {'use_fallback': True, 'fallback_lr_scale': 1.0},
    lambda s: (s['lr'] * s['fallback_lr_scale'], s['weight_decay']),
)
OTHER_HALVES = Halves(
    {'use_muon': True},
    {'use_muon': False},
    lambda s: (s['adamw_lr'], s['adamw_wd']),
)
"""The rates of the auxiliary half are those of the library's own arguments."""


class LibraryError(UserError, ImportError):
    """The library of an optimizer is not installed, or lacks what the optimizer needs."""


class RefusedError(UserError, NotImplementedError):
    """An optimizer that cannot run in this training loop."""


def timm_optimizer(name: str) -> Callable[..., torch.optim.Optimizer]:
    """What builds timm's optimizer ``name``; timm's defaults, momentum 0.9 as its factory sets it.

    Raises:
        UnknownNameError: timm has no such optimizer.
        RefusedError: It cannot run here.
        LibraryError: timm is not installed, or the optimizer needs CUDA, bitsandbytes or apex.

    Example:
        >>> p = torch.nn.Parameter(torch.zeros(2, 2))
        >>> type(timm_optimizer('muon')(params=[p], lr=0.1)).__name__
        'Muon'
    """
    try:
        from timm.optim import get_optimizer_class, list_optimizers
    except ImportError as error:
        raise LibraryError(_install('timm', error)) from None
    key = _known('timm', name, list_optimizers())
    try:
        target = get_optimizer_class(key, bind_defaults=True)
    except (AssertionError, ImportError) as error:
        raise LibraryError(f'timm optimizer {key!r} cannot be built here: {error}') from None
    defaults = {}
    momentum = inspect.signature(target).parameters.get('momentum')
    if momentum is not None and momentum.default == 0:
        defaults['momentum'] = 0.9
    halves = TIMM_HALVES if 'fallback_lr_scale' in inspect.signature(target).parameters else None
    return _builder(f'timm.{key}', target, defaults, halves=halves)


def pytorch_optimizer(name: str) -> Callable[..., torch.optim.Optimizer]:
    """What builds pytorch_optimizer's ``name``.

    Raises:
        UnknownNameError: The library has no such optimizer.
        RefusedError: It cannot run here.
        LibraryError: The library is not installed.

    Example:
        >>> p = torch.nn.Parameter(torch.zeros(2, 2))
        >>> type(pytorch_optimizer('prodigy')(params=[p], lr=1.0)).__name__
        'Prodigy'
    """
    try:
        from pytorch_optimizer import get_supported_optimizers, load_optimizer
    except ImportError as error:
        raise LibraryError(_install('pytorch_optimizer', error)) from None
    key = _known('pytorch_optimizer', name, get_supported_optimizers())
    return _builder(
        f'pytorch_optimizer.{key}',
        load_optimizer(key),
        prepare=_split_by_dimension if key in SPLIT_BY_DIMENSION else list,
        base=load_optimizer(BASES[key]) if key in BASES else None,
        halves=OTHER_HALVES if key in SPLIT_BY_DIMENSION else None,
    )


LIBRARIES = {'timm': timm_optimizer, 'pytorch_optimizer': pytorch_optimizer}


def library_spec(library: str, key: str) -> OptimizerSpec:
    """A row like the catalog's for a library's optimizer, whose defaults are the library's own.

    Args:
        library: Key of :data:`LIBRARIES`.
        key: The optimizer's name there.

    Raises:
        UserError: As :func:`timm_optimizer` and :func:`pytorch_optimizer`.
    """
    build: Any = LIBRARIES[library](key)
    own = {n: v for n in ('lr', 'weight_decay') if type(v := build.defaults.get(n)) in (int, float)}
    taken = 'its own defaults are taken' if 'lr' in own else 'the rate of its family is taken'
    return OptimizerSpec(
        name=f'{library}.{key}',
        in_paper=False,
        category='',
        decay='decoupled',
        paper='',
        reference='',
        aliases=(),
        implementation=library,
        class_path='',
        cls=build,
        fixed={},
        anchor='' if 'lr' in own else ('SGD' if 'sgd' in key else 'AdamW'),
        ratio=own.get('lr', 1.0),
        weight_decay=own.get('weight_decay', 0.0),
        why=f'{library} states no rate for a task; {taken}',
        elementwise=False,
        needs='',
    )


def _known(library: str, name: str, names: Iterable[str]) -> str:
    key = name.lower()
    if key in REFUSED[library]:
        raise RefusedError(f'{library} optimizer {name!r} cannot run here: {REFUSED[library][key]}')
    names = sorted(names)
    if key not in names:
        raise unknown_name(f'{library} optimizer', name, names)
    return key


def _builder(
    label: str,
    target: Callable[..., torch.optim.Optimizer],
    defaults: dict[str, Any] | None = None,
    prepare: Callable[[Any], Any] = list,
    base: Callable[..., torch.optim.Optimizer] | None = None,
    halves: Halves | None = None,
) -> Callable[..., torch.optim.Optimizer]:
    own = inspect.signature(target).parameters
    required = [n for n, p in own.items() if p.default is p.empty or p.default is REQUIRED]
    inherited = inspect.signature(base).parameters if base is not None else {}
    known = [
        n
        for n, p in {**inherited, **own}.items()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]

    def build(params: Any, **kwargs: Any) -> torch.optim.Optimizer:
        check_keywords(label, known, kwargs)
        check_numbers(kwargs)
        missing = [n for n in required[1:] if n in known and n not in kwargs]
        if missing:
            raise SettingError(f'{label} has no default for {", ".join(missing)}: give a value')
        entries = prepare(checked_params(params))
        try:
            optimizer = target(entries, **(defaults or {}) | kwargs)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise SettingError(f'{label}: {error}') from error
        wrapped = getattr(optimizer, 'optimizer', optimizer)
        wrapped.register_load_state_dict_pre_hook(check_library_state)
        return optimizer

    build.__name__ = label
    build.known = known  # type: ignore[attr-defined]
    build.defaults = {n: p.default for n, p in own.items()} | (defaults or {})  # type: ignore[attr-defined]
    if halves is not None:
        build.halves = halves  # type: ignore[attr-defined]
        build.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [own[n].replace(kind=inspect.Parameter.KEYWORD_ONLY) for n in own if n in known]
        )
    return build


def _split_by_dimension(entries: list[Any]) -> list[dict[str, Any]]:
    """Groups with ``use_muon``: True for two or more dimensions, False for norms and biases."""
    groups = entries if isinstance(entries[0], dict) else [{'params': entries}]
    split = []
    for group in groups:
        if 'use_muon' in group:
            split.append(group)
            continue
        for flag in (True, False):
            chosen = [p for p in group['params'] if (p.dim() > 1) == flag]
            if chosen:
                split.append({**group, 'params': chosen, 'use_muon': flag})
    return split


def _install(package: str, error: ImportError) -> str:
    return f'{package} is needed for this optimizer: pip install "bocb_mm[zoo]" ({error})'
