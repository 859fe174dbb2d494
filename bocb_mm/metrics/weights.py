"""Which weights of a model are measured, under which name, and as which matrices."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch
from torch import nn

from bocb_mm.checkpoints.contents import parameters_of
from bocb_mm.checkpoints.read import load_checkpoint
from bocb_mm.errors import UserError

Source: TypeAlias = nn.Module | Mapping[str, Any] | str | os.PathLike[str]

KINDS = (
    'conv', 'transposed', 'depthwise', 'linear', 'bilinear', 'qkv', 'embedding', 'parameter',
)  # fmt: skip
_FUSED = {'qkv': 'qkv', 'in_proj_weight': 'qkv', 'Wqkv': 'qkv', 'to_qkv': 'qkv', 'kv': 'kv'}
# Names of transposed convolutions: mmpose's deconv_layers, mmdet's mask heads, torch's class.
_TRANSPOSED = re.compile(
    r'deconv|conv_?transpose|transposed?_?conv|up_?conv|(^|\.)upsample$', re.IGNORECASE
)
# Constant tables that some state dicts carry between the weights.
_BUFFERS = ('attn_mask', 'relative_coords_table', 'relative_position_index', 'num_batches_tracked')


@dataclass(frozen=True)
class Weight:
    """One weight to measure.

    Attributes:
        layer: Name, without ``.weight`` and without what DDP and ``torch.compile`` add.
        kind: One of :data:`KINDS`.
        tensor: The weight, two or more dimensions; not copied.
        groups: Of a transposed convolution, whose weight is (inputs, outputs / groups, ...).
    """

    layer: str
    kind: str
    tensor: torch.Tensor
    groups: int = 1

    def matrices(self) -> torch.Tensor:
        """The weight as ``(slices, rows, columns)``, rows the outputs.

        A convolution has a slice for each of its k*k kernel positions; a depthwise one is a single
        matrix with a filter a row (its slices would have one column); a bilinear layer is linear in
        the products of its inputs; a bare parameter loses its dimensions of size 1 and becomes
        first dimension times the rest.
        """
        w = self.tensor.detach()
        if self.kind in ('depthwise', 'bilinear'):
            return w.reshape(1, w.shape[0], -1)
        if self.kind == 'transposed':  # (groups, inputs, outputs, ...) as a convolution's weight
            w = w.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1)
            return w.flatten(2).permute(2, 0, 1)
        if self.kind == 'conv':
            return w.flatten(2).permute(2, 0, 1)
        if self.kind == 'parameter':
            w = w.squeeze()
            w = w.reshape(1, -1) if w.dim() < 2 else w.flatten(1)
        return w[None]


def iter_weights(
    source: Source,
    layers: str | Iterable[str] | None = None,
    split_qkv: bool = True,
    trust: bool = False,
) -> Iterator[Weight]:
    """Every weight with two or more dimensions, in the order of the model, shared ones once.

    Args:
        source: A module (bare, or wrapped by DDP, DataParallel or ``torch.compile``), a state dict,
            a checkpoint that holds one, or the path or URL of a checkpoint.
        layers: Shell patterns; a layer is kept if its name matches one, e.g. ``'backbone.*'``.
        split_qkv: Split a fused projection into its query, key and value matrices
            (``'attn.qkv[q]'`` and so on).
        trust: As in :func:`bocb_mm.checkpoints.read.load_checkpoint`.

    Raises:
        UserError: Nothing in ``source`` is a weight, or the weights are on the meta device.

    Example:
        >>> [w.layer for w in iter_weights(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))]
        ['0']
    """
    if isinstance(source, nn.Module):
        found = _of_module(source)
    else:
        found = _of_state_dict(state_dict_of(source, trust))
    patterns = [layers] if isinstance(layers, str) else layers and list(layers)
    for weight in found:
        if weight.tensor.is_meta:
            raise UserError(f'{weight.layer}: on the meta device; give the model its weights first')
        for part in _split(weight) if split_qkv else [weight]:
            if not patterns or any(fnmatchcase(part.layer, p) for p in patterns):
                yield part


def state_dict_of(source: Any, trust: bool = False) -> dict[str, torch.Tensor]:
    """The weights by name in a state dict, a checkpoint or a checkpoint's file.

    Raises:
        UserError: There are none.
    """
    where = 'the dict'
    if isinstance(source, str | os.PathLike):
        where = os.fspath(source)
        source = load_checkpoint(source, trust=trust, map_location='cpu')
    if not isinstance(source, Mapping):
        raise UserError(
            f'layer_metrics: {type(source).__name__} given, expected a model, a state dict, '
            'or the path of a checkpoint'
        )
    return parameters_of(source, where)


def _of_module(model: nn.Module) -> Iterator[Weight]:
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    while isinstance(model, wrappers) or hasattr(model, '_orig_mod'):  # the mark of torch.compile
        model = model.module if isinstance(model, wrappers) else model._orig_mod
    modules = dict(model.named_modules())
    computed: set[tuple[str, str]] = set()
    for name, tensor in model.named_parameters():
        owner, _, leaf = name.rpartition('.')
        above, parametrized, inside = f'.{owner}'.partition('.parametrizations.')
        if parametrized:  # what the layer uses, not what it is made of; once
            owner, leaf = above[1:], inside.partition('.')[0]
            if (owner, leaf) in computed:
                continue
            computed.add((owner, leaf))
            name, tensor = f'{owner}.{leaf}'.lstrip('.'), _parametrized(modules[owner], leaf)
        if _measurable(tensor):
            kind = _kind_in_module(modules[owner], leaf, tensor)
            groups = modules[owner].groups if kind == 'transposed' else 1
            yield Weight(_layer(name), kind, tensor, int(groups))


def _parametrized(module: nn.Module, name: str) -> torch.Tensor:
    """The weight of ``torch.nn.utils.parametrizations``, without moving a power iteration."""
    parts = list(module.parametrizations[name].modules())  # type: ignore[index,union-attr]
    training = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        with torch.no_grad():
            return getattr(module, name)
    finally:
        for part, was in zip(parts, training):
            part.training = was


def _of_state_dict(tensors: Mapping[str, torch.Tensor]) -> Iterator[Weight]:
    seen = set()
    for name, tensor in tensors.items():
        if not _measurable(tensor) or name.endswith(_BUFFERS):
            continue
        identity = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.data_ptr() and identity in seen:
            continue
        seen.add(identity)
        yield Weight(_layer(name), _kind_by_name(name, tensor), tensor)


def _measurable(tensor: torch.Tensor) -> bool:
    if isinstance(tensor, nn.parameter.UninitializedTensorMixin):
        return False
    plain = tensor.layout == torch.strided and tensor.is_floating_point()
    return plain and tensor.dim() >= 2 and tensor.numel() > 0


def _layer(name: str) -> str:
    return re.sub(r'(^|\.)_orig_mod\.', r'\1', name).removesuffix('.weight')


def _kind_in_module(owner: nn.Module, leaf: str, tensor: torch.Tensor) -> str:
    if leaf == 'weight':
        if isinstance(owner, nn.modules.conv._ConvNd):
            if owner.groups > 1 and tensor.shape[1] == 1:
                return 'depthwise'
            return 'transposed' if owner.transposed else 'conv'
        if isinstance(owner, nn.Bilinear):
            return 'bilinear'
        if isinstance(owner, nn.Embedding | nn.EmbeddingBag):
            return 'embedding'
        if isinstance(owner, nn.Linear):
            return 'linear'
    return _kind_by_name(leaf if leaf != 'weight' else '.weight', tensor)


def _kind_by_name(name: str, tensor: torch.Tensor) -> str:
    """What a state dict lets one tell: a ``.weight`` of 3 or more dimensions is a convolution.

    That it is transposed, or that it is none, only its name can say.
    """
    path, _, leaf = name.rpartition('.')
    if leaf == 'weight' and tensor.dim() > 2:
        if tensor.shape[1] == 1 and tensor.shape[0] > 1:
            return 'depthwise'
        if tensor.dim() == 3 and re.search('bilinear', path, re.IGNORECASE):
            return 'bilinear'
        return 'transposed' if _TRANSPOSED.search(path) else 'conv'
    if leaf == 'weight':
        return 'embedding' if 'embed' in path.rpartition('.')[2] else 'linear'
    return 'linear' if leaf.endswith('proj_weight') else 'parameter'


def _split(weight: Weight) -> list[Weight]:
    """The query, key and value matrices of a fused projection, or the weight as it is."""
    parts = _FUSED.get(weight.layer.rpartition('.')[2], '')
    rows = weight.tensor.shape[0]
    if not parts or weight.tensor.dim() != 2 or rows % len(parts):
        return [weight]
    blocks = weight.tensor.detach().split(rows // len(parts))
    return [Weight(f'{weight.layer}[{p}]', 'qkv', b) for p, b in zip(parts, blocks)]
