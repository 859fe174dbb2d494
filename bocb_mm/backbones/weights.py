"""Published weights into a network of the catalog, or a line that says why they do not fit."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bocb_mm.backbones.conversions import Weights, to_our_names
from bocb_mm.checkpoints.contents import parameters_of
from bocb_mm.checkpoints.read import load_checkpoint
from bocb_mm.errors import UserError, nearest

if TYPE_CHECKING:
    from bocb_mm.backbones.adapters import Adapter

# Prefixes that training code puts before a backbone's names; `encoder.` is MAE's and FCMAE's.
_PREFIXES = ('module.', 'model.', 'backbone.', 'encoder.', '_orig_mod.')
# Made by the code, not trained.
_BUFFER = re.compile(r'(?:attn_mask|relative_position_index|relative_coords_table)$')
# What a checkpoint may hold beside the backbone.
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


@dataclass(frozen=True)
class Loaded:
    """What loading did.

    Attributes:
        source: The file or name.
        n_loaded: Number of tensors taken over.
        fresh: Names in the network that keep their initial values, such as a new classifier.
        left: Names in the file that were not needed.
        resized: Tables that were resized, with both shapes.
    """

    source: str
    n_loaded: int
    fresh: tuple[str, ...]
    left: tuple[str, ...]
    resized: tuple[str, ...]


def load_pretrained(network: Adapter, checkpoint: str, prefix: str | None = None) -> Loaded:
    """Load published weights into a backbone.

    Args:
        network: A backbone of the catalog.
        checkpoint: A file, an address, or a name: ``torchvision://resnet50``,
            ``timm://convnext_tiny.fb_in1k``, ``mmpretrain://swin-tiny_16xb64_in1k``,
            ``open-mmlab://...``. Names of torchvision, timm, OpenMMLab and of the authors' own
            files are understood.
        prefix: What stands before the backbone's names; found by itself if None.

    Returns:
        What was done; it is also logged.

    Raises:
        UserError: The checkpoint is of another network or variant; the line names the weights.

    Example:
        >>> net = build_backbone('R-50')  # doctest: +SKIP
        >>> load_pretrained(net, 'torchvision://resnet50').n_loaded  # doctest: +SKIP
        265
    """
    content = load_checkpoint(resolve(checkpoint))
    loaded = load_weights(network, content, str(checkpoint), prefix)
    _log(network, loaded)
    return loaded


def load_weights(
    network: Adapter, content: dict[str, Any], source: str = 'weights', prefix: str | None = None
) -> Loaded:
    """As :func:`load_pretrained`, of what a checkpoint file holds."""
    spec = network.options.spec
    weights = to_our_names(spec.family, backbone_weights(content, source, prefix))
    weights = {k: v for k, v in weights.items() if not _BUFFER.search(k)}
    own = network.state_dict()
    weights, resized = _resize_tables(network, weights, own)
    weights = _without_other_classifier(weights, own)
    missing = [
        k for k in own if k not in weights and not _OWN.search(k) and not _is_map_norm(network, k)
    ]
    unneeded = [k for k in weights if k not in own]
    strange = [
        k
        for k in unneeded
        if not (_BESIDE.search(k) or _is_map_norm(network, k) or _of_dropped_stage(network, k))
    ]
    shapes = [k for k in weights if k in own and weights[k].shape != own[k].shape]
    if missing or strange or shapes:
        raise UserError(_refusal(spec.name, source, own, weights, missing, strange, shapes))
    network.load_state_dict(weights, strict=False)
    fresh = tuple(
        k
        for k in own
        if k not in weights and not (_BUFFER.search(k) or k.endswith('num_batches_tracked'))
    )
    return Loaded(source, len(weights) - len(unneeded), fresh, tuple(unneeded), tuple(resized))


def backbone_weights(content: dict[str, Any], source: str, prefix: str | None = None) -> Weights:
    """The backbone's weights in what a file holds, without prefixes."""
    weights: Weights = parameters_of(content, source)
    if prefix is not None:
        prefix = prefix.rstrip('.') + '.'
        inside = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        if not inside:
            raise UserError(f'{source}: no name begins with {prefix!r}, names are {_some(weights)}')
        return inside
    found = True
    while found:
        found = False
        for candidate in _PREFIXES:
            inside = {
                k.removeprefix(candidate): v for k, v in weights.items() if k.startswith(candidate)
            }
            # a backbone beside other parts, or a wrapper around everything
            if inside and (candidate == 'backbone.' or _mostly(inside, weights)):
                weights, found = inside, True
    return weights


def _mostly(inside: Weights, weights: Weights) -> bool:
    beside = sum(bool(_BESIDE.search(k)) for k in weights)
    return len(inside) >= len(weights) - beside


def resolve(name: str) -> str:
    """The address behind ``timm://`` and ``mmpretrain://`` names; others pass unchanged.

    Raises:
        UserError: The library has no published weights of that name.
    """
    scheme, separator, model = str(name).partition('://')
    if scheme == 'timm' and separator:
        return _timm_address(model)
    if scheme == 'mmpretrain' and separator:
        return _mmpretrain_address(model)
    return str(name)


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
    from mmpretrain.apis.model import ModelHub, list_models

    list_models()  # fills the hub
    entry = ModelHub._models_dict.get(model.lower())
    if entry is None or not entry.weights:
        raise _unpublished('mmpretrain', model, ModelHub._models_dict)
    return entry.weights


def _unpublished(library: str, model: str, known: Iterable[str]) -> UserError:
    near = nearest(model, known)
    hint = f'; did you mean {", ".join(f"{library}://{n}" for n in near)}?' if near else ''
    return UserError(f'{library}://{model}: {library} has no published weights of that name{hint}')


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


def _is_map_norm(network: Adapter, name: str) -> bool:
    return network.norm_per_map and _MAP_NORM.match(name) is not None


def _of_dropped_stage(network: Adapter, name: str) -> bool:
    """Whether the name is of a stage, or of a map's norm, that this network was built without."""
    last = max(network.options.out_indices)
    if network.options.classifier or len(network.options.spec.strides) == last + 1:
        dropped: tuple[tuple[str, ...], ...] = ()
    else:
        first = 1 if network.first_map_group is None else network.first_map_group
        dropped = network.groups[first + last + 1 :]
    parts = [part for group in dropped for part in group]
    if network.options.spec.family == 'SwinTransformer':
        parts.append(f'stages.{last}.downsample')
    return any(name.startswith(f'{part}.') for part in parts)


def _resize_tables(network: Adapter, weights: Weights, own: Weights) -> tuple[Weights, list[str]]:
    """Fit position tables to another picture size and relative ones to another window."""
    out, resized = dict(weights), []
    for name, value in weights.items():
        goal = own.get(name)
        if goal is None or goal.shape == value.shape:
            continue
        if name == 'pos_embed' and value.shape[-1] == goal.shape[-1]:
            new = resize_positions(value, network.patch_embed.init_out_size)  # type: ignore[union-attr]
        elif name.endswith('relative_position_bias_table') and value.shape[-1] == goal.shape[-1]:
            new = resize_relative(value, goal.shape[0])
        else:
            continue
        if new is not None and new.shape == goal.shape:
            out[name] = new
            resized.append(f'{name} {tuple(value.shape)} -> {tuple(new.shape)}')
    return out, resized


def resize_positions(table: Tensor, size: tuple[int, int], extra: int = 1) -> Tensor | None:
    """Bicubic resizing of a table of positions.

    Args:
        table: (1, extra + h * h, C), the first ``extra`` rows for class tokens.
        size: Rows and columns of the grid to come.
        extra: Number of tokens without a place.

    Returns:
        (1, extra + size[0] * size[1], C); None if the table's grid is not square.
    """
    side = round((table.shape[1] - extra) ** 0.5)
    if side * side != table.shape[1] - extra:
        return None
    tokens, grid = table[:, :extra], table[:, extra:]
    grid = grid.unflatten(1, (side, side)).permute(0, 3, 1, 2).float()
    grid = F.interpolate(grid, tuple(size), mode='bicubic', align_corners=False)
    return torch.cat((tokens, grid.flatten(2).transpose(1, 2).to(table.dtype)), 1)


def resize_relative(table: Tensor, length: int) -> Tensor | None:
    """Bicubic resizing of a table of relative positions ((2 w - 1)², heads) to ``length`` rows."""
    before, after = round(table.shape[0] ** 0.5), round(length**0.5)
    if before**2 != table.shape[0] or after**2 != length:
        return None
    grid = table.T.reshape(1, -1, before, before).float()
    grid = F.interpolate(grid, (after, after), mode='bicubic', align_corners=False)
    return grid.reshape(-1, length).T.to(table.dtype).contiguous()


def _refusal(
    name: str, source: str, own: Weights, weights: Weights, missing: list[str],
    strange: list[str], shapes: list[str],
) -> str:  # fmt: skip
    """One line that says what does not fit."""
    reasons = []
    if missing:
        reasons.append(
            f'{len(missing)} of {len(own)} weights are missing, such as {_some(missing)}'
        )
    if strange:
        reasons.append(f'it has {len(strange)} that {name} lacks, such as {_some(strange)}')
    if shapes:
        k = shapes[0]
        reasons.append(
            f'{len(shapes)} have another shape, such as {k} '
            f'{tuple(weights[k].shape)} for {tuple(own[k].shape)}'
        )
    return (
        f'{source}: not a checkpoint of this {name}: {"; ".join(reasons)}. Give one of the same '
        f'network and variant (cifar, classifier, img_size), or prefix= if it has a name of its own'
    )


def _some(names: Iterable[str], n: int = 3) -> str:
    names = list(names)
    return ', '.join(names[:n]) + (', ...' if len(names) > n else '')


def _log(network: Adapter, loaded: Loaded) -> None:
    from mmengine.logging import print_log

    text = f'{network.options.spec.name}: {loaded.n_loaded} weights from {Path(loaded.source).name}'
    if loaded.fresh:
        text += f'; freshly drawn: {_some(loaded.fresh)}'
    if loaded.resized:
        text += f'; resized: {_some(loaded.resized)}'
    print_log(text, logger='current')
