"""What a whole model starts from: the weights that its parts and its config ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from bocb_mm.backbones.conversions import Weights
from bocb_mm.backbones.matching import Match, best_match, is_made
from bocb_mm.backbones.weights import (
    CatalogNetwork,
    Loaded,
    load_pretrained,
    log_loaded,
    report,
)
from bocb_mm.checkpoints.contents import parameters_of


@dataclass(frozen=True)
class Wanted:
    """Pre-trained weights that a part of a model asks for in its ``init_cfg``.

    Attributes:
        part: Name of the module in the model, ``''`` for the whole.
        module: The module.
        checkpoint: File, address or published name.
        prefix: As the config gives it.
    """

    part: str
    module: nn.Module
    checkpoint: str
    prefix: str | None

    def load(self, least: float) -> Loaded:
        """Load them; see :func:`bocb_mm.backbones.weights.load_pretrained`."""
        return load_pretrained(self.module, self.checkpoint, self.prefix, least)


def is_pretrained(init_cfg: Any) -> bool:
    """Whether one entry of an ``init_cfg`` loads a checkpoint.

    It is registered as Pretrained; the class, which lazy configs hold, is PretrainedInit.

    Example:
        >>> is_pretrained(dict(type='Pretrained', checkpoint='a.pth')), is_pretrained(None)
        (True, False)
    """
    kind = init_cfg.get('type') if isinstance(init_cfg, Mapping) else None
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return name.rpartition('.')[2] in ('Pretrained', 'PretrainedInit')


def split_init_cfg(init_cfg: Any) -> tuple[list[Any], Any]:
    """The entries of an ``init_cfg`` that load a checkpoint, and the rest of it.

    Example:
        >>> pretrained, rest = split_init_cfg([dict(type='Pretrained'), dict(type='Normal')])
        >>> len(pretrained), rest
        (1, [{'type': 'Normal'}])
    """
    if isinstance(init_cfg, list | tuple):
        rest = [part for part in init_cfg if not is_pretrained(part)]
        return [part for part in init_cfg if is_pretrained(part)], rest or None
    return ([init_cfg], None) if is_pretrained(init_cfg) else ([], init_cfg)


def take_wanted(model: nn.Module) -> list[Wanted]:
    """Take the pre-trained weights out of the ``init_cfg`` of every part of a model.

    mmengine would load what happens to have the network's own names, and mmdet's and mmpose's Swin
    have a loader of their own; without them, the parts draw their parameters at random.

    Args:
        model: A model of any toolbox, its parameters not drawn yet.
    """
    found = []
    for name, module in model.named_modules():
        ours = isinstance(module, CatalogNetwork)
        init_cfg = module.options.init_cfg if ours else getattr(module, 'init_cfg', None)
        wanted, rest = split_init_cfg(init_cfg)
        if wanted and ours:
            module.options = replace(module.options, init_cfg=rest)
        elif wanted:
            module.init_cfg = rest
        for part in wanted:
            found.append(Wanted(name, module, str(part.get('checkpoint')), part.get('prefix')))
    return found


def loaded_by_itself(model: nn.Module, weights: Weights, source: str) -> Loaded | None:
    """Load weights as the model does: toolboxes translate names of their own earlier releases.

    Args:
        model: The model; it takes what it can.
        weights: Of a file, under the file's names.
        source: The file's name.

    Returns:
        What it took, ``None`` where it refuses them.
    """
    try:
        missing = model.load_state_dict(weights, strict=False).missing_keys
    except RuntimeError:  # another shape
        return None
    taken = {k: v for k, v in model.state_dict().items() if k not in set(missing)}
    return report(model, Match('', taken, 0), source)


def rename_for(model: nn.Module, checkpoint: dict[str, Any], source: str) -> Loaded:
    """Put the tensors of a checkpoint under a whole model's names, for mmengine to load.

    Args:
        model: The model, without DDP around it.
        checkpoint: What a file holds; its ``state_dict`` is replaced, unless it has the model's
            names already, or those that the model itself translates: then the versions of layers
            that it may carry stay with it.
        source: The file's name.

    Returns:
        What fits; it is also logged.
    """
    weights = parameters_of(checkpoint, source)
    match = best_match(model, weights, source)
    loaded = report(model, match, source)
    own = loaded_by_itself(model, weights, source) if loaded.fresh else None
    if own is not None and len(own.fresh) < len(loaded.fresh):
        loaded = own
        checkpoint.setdefault('state_dict', weights)
    elif not match.weights.keys() <= checkpoint.get('state_dict', {}).keys():
        made = {k: v for k, v in model.state_dict().items() if is_made(k)}
        checkpoint['state_dict'] = {**made, **match.weights}
    log_loaded(type(model).__name__, loaded)
    return loaded
