"""Pre-trained weights into a network, ours or any other, or a line that says what does not fit."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn

from bocb_mm.backbones.conversions import Weights
from bocb_mm.backbones.matching import Match, best_match, some, trained
from bocb_mm.backbones.tables import resize_tables
from bocb_mm.checkpoints.contents import parameters_of
from bocb_mm.checkpoints.read import load_checkpoint
from bocb_mm.errors import UserError

LEAST_SHARE = 0.9  # of a network's numbers, below which a file is of another network

# What a checkpoint may hold beside a backbone of the catalog.
_BESIDE = re.compile(
    r'^(?:fc|head|head_dist|classifier|linear|last_linear|pre_logits|neck|decoder\w*|mask_token|'
    r'data_preprocessor|\w*_head|target_generator|teacher|stage4\.\w*aux)(?:\.|$)'
    r'|num_batches_tracked$|^aux\w*\.'
)
# What a checkpoint may lack: made by the code, ours, or for other classes.
_OWN = re.compile(
    r'^(?:pyramid|classifier|head)\.|(?:num_batches_tracked|relative_position_index)$'
)
# A norm that some families add for each returned map, or in front of the classifier.
_MAP_NORM = re.compile(r'norm[0-3]?\.')


@runtime_checkable
class CatalogNetwork(Protocol):
    """What loading asks of a network of the catalog; the adapters have it."""

    options: Any
    norm_per_map: bool

    def dropped_parts(self) -> Sequence[str]:
        """Names of the parts that it was built without, for no returned map needs them."""


@dataclass(frozen=True)
class Loaded:
    """What loading did.

    Attributes:
        source: The file or name.
        prefix: What stands in the file before the network's names.
        n_loaded: Number of tensors taken over.
        n_tensors: Number of tensors that the network has, buffers that the code makes left out.
        share: Share of the network's numbers that came from the file, 0 to 1.
        fresh: Names in the network that keep their initial values, such as a new classifier.
        left: Names in the file that were not needed.
        resized: Tables that were resized, with both shapes.
    """

    source: str
    prefix: str
    n_loaded: int
    n_tensors: int
    share: float
    fresh: tuple[str, ...]
    left: tuple[str, ...]
    resized: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.n_loaded:
            return (
                f'nothing in {self.source} fits, so it starts from random weights; it has '
                f'{some(self.fresh)}, the file has {some(self.left)}'
            )
        percent = math.floor(1e4 * self.share) / 100  # 100 is all, and nothing less
        text = (
            f'{self.n_loaded} of {self.n_tensors} tensors, {percent:g} % of the parameters, from '
            f'{Path(self.source).name}'
        )
        if self.prefix:
            text += f' (prefix {self.prefix!r})'
        if self.fresh:
            text += f'; freshly drawn: {some(self.fresh)}'
        if self.resized:
            text += f'; resized: {some(self.resized)}'
        return text


def load_pretrained(
    network: nn.Module, checkpoint: str, prefix: str | None = None, least: float = LEAST_SHARE
) -> Loaded:
    """Load pre-trained weights into a backbone of the catalog, of a toolbox, or any module.

    Args:
        network: The module.
        checkpoint: A file, an address, or a name: ``torchvision://resnet50``,
            ``timm://convnext_tiny.fb_in1k``, ``mmpretrain://swin-tiny_16xb64_in1k``,
            ``open-mmlab://...``. Names of torchvision, timm, OpenMMLab and of the authors' own
            files are understood, and whatever stands in front of them.
        prefix: What stands before the backbone's names; found by itself if None.
        least: Share of the parameters that must be in the file. Of a network of the catalog,
            everything must be that a file of it can have.

    Returns:
        What was done; it is also logged.

    Raises:
        UserError: The checkpoint is of another network or variant; the line names the weights.

    Example:
        >>> net = build_backbone('R-50')  # doctest: +SKIP
        >>> load_pretrained(net, 'torchvision://resnet50').n_loaded  # doctest: +SKIP
        265
    """
    loaded = load_weights(network, load_checkpoint(checkpoint), str(checkpoint), prefix, least)
    log_loaded(_name(network), loaded)
    return loaded


def log_loaded(name: str, loaded: Loaded) -> None:
    """One line in the log of the run; a warning where much keeps its initial values."""
    from mmengine.logging import print_log

    level = logging.INFO if loaded.share >= LEAST_SHARE else logging.WARNING
    print_log(f'{name}: {loaded}', logger='current', level=level)


def load_weights(
    network: nn.Module,
    content: dict[str, Any],
    source: str = 'weights',
    prefix: str | None = None,
    least: float = LEAST_SHARE,
) -> Loaded:
    """As :func:`load_pretrained`, of what a checkpoint file holds."""
    own = network.state_dict()
    match = best_match(network, parameters_of(content, source), source, prefix)
    weights, resized = resize_tables(network, match.weights, own)
    if isinstance(network, CatalogNetwork):
        weights = _without_other_classifier(weights, own)
        _check_catalog_network(network, source, trained(own), weights)
    match = replace(match, weights=weights)
    loaded = report(network, match, source, resized)
    if loaded.share < least and not isinstance(network, CatalogNetwork):
        raise UserError(_too_little(network, loaded, match, least))
    fitting = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
    network.load_state_dict(fitting, strict=False)
    return loaded


def report(network: nn.Module, match: Match, source: str, resized: Sequence[str] = ()) -> Loaded:
    """What of a network is in a file, by tensors and by parameters."""
    own = trained(network.state_dict())
    fitting = {k for k, v in match.weights.items() if k in own and own[k].shape == v.shape}
    numbers = sum(v.numel() for v in own.values())
    return Loaded(
        source=source,
        prefix=match.prefix,
        n_loaded=len(fitting),
        n_tensors=len(own),
        share=sum(own[k].numel() for k in fitting) / max(1, numbers),
        fresh=tuple(k for k in own if k not in fitting),
        left=tuple(k for k in match.weights if k not in own),
        resized=tuple(resized),
    )


def _name(network: nn.Module) -> str:
    if isinstance(network, CatalogNetwork):
        return network.options.spec.name
    return type(network).__name__


def _too_little(network: nn.Module, loaded: Loaded, match: Match, least: float) -> str:
    """One line with the names of both sides."""
    own = trained(network.state_dict())
    behind = f'behind the prefix {match.prefix!r} ' if match.prefix else ''
    return (
        f'{loaded.source}: has {100 * loaded.share:.3g} % of the parameters of this '
        f'{_name(network)} ({loaded.n_loaded} of {len(own)} tensors), {100 * least:g} % are '
        'needed. The network '
        f'has {some(own)}; the file has {behind}{some(match.weights)}. Give a checkpoint of the '
        'same network and variant, or prefix= in init_cfg if it has a name of its own'
    )


def _check_catalog_network(
    network: CatalogNetwork, source: str, own: Weights, weights: Weights
) -> None:
    """Refuse a file that lacks a tensor, has too many, or others: it is of another variant."""
    missing = [
        k for k in own if k not in weights and not _OWN.search(k) and not _is_map_norm(network, k)
    ]
    dropped = tuple(f'{part}.' for part in network.dropped_parts())
    strange = [
        k
        for k in weights
        if k not in own
        and not (_BESIDE.search(k) or _is_map_norm(network, k) or k.startswith(dropped))
    ]
    shapes = [k for k in weights if k in own and weights[k].shape != own[k].shape]
    name, reasons = network.options.spec.name, []
    if missing:
        reasons.append(f'{len(missing)} of {len(own)} weights are missing, such as {some(missing)}')
    if strange:
        reasons.append(f'it has {len(strange)} that {name} lacks, such as {some(strange)}')
    if shapes:
        k = shapes[0]
        reasons.append(
            f'{len(shapes)} have another shape, such as {k} '
            f'{tuple(weights[k].shape)} for {tuple(own[k].shape)}'
        )
    if reasons:
        raise UserError(
            f'{source}: not a checkpoint of this {name}: {"; ".join(reasons)}. Give one of the '
            'same network and variant (cifar, classifier, img_size), or prefix= if it has a name '
            'of its own'
        )


def _is_map_norm(network: CatalogNetwork, name: str) -> bool:
    return network.norm_per_map and _MAP_NORM.match(name) is not None


def _without_other_classifier(weights: Weights, own: Weights) -> Weights:
    """Leave out classifier layers of another size, which is to say for other classes."""
    other = {
        name.rpartition('.')[0]
        for name, value in weights.items()
        if re.match(r'(?:classifier|head)\.', name)
        and name in own
        and own[name].shape != value.shape
    }
    return {k: v for k, v in weights.items() if k.rpartition('.')[0] not in other}
