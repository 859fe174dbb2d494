r"""Depth of each parameter, for the layer-wise decay of the learning rate.

With rate :math:`r` and depths :math:`0 \dots D`, depth :math:`d` learns at
:math:`r^{D - d}` times the base rate: the stem (0) slowest, final norm and head (:math:`D`) fully.

- ViT, DeiT: the stem with class token and position embedding is 0, block i is i + 1.
- Swin: the same over all blocks of all stages; a merging layer belongs to the stage it ends.
- ConvNeXt: stages 0 and 1 are one layer each, stage 2 one layer per three blocks, stage 3 one.
- Any other: one layer a block, in the order of the modules; what stands between blocks (a merging
  layer) is one too, and vectors belong to what precedes them.

Sources: BEiT and MAE (ViT), ConvNeXt's ``optim_factory.py``; the depths equal mmpretrain 1.2.0's
``get_layer_depth`` for its own names. timm's names are mapped onto the same depths.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from torch import nn

from bocb_mm.errors import UserError
from bocb_mm.optim_wrappers.roles import head_of

#: A depth function and the largest depth: ``depth(local name)``, D.
Depths = tuple[Callable[[str], int], int]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_WRAPPED = ('timm_model', 'model', 'net')

_STEM = re.compile(
    r'^(patch_embed|(absolute_)?pos_embed|(cls|dist|mask|reg)_token|pre_norm|norm_pre|stem)'
)


def layer_depths(model: nn.Module) -> tuple[dict[str, int], int]:
    """Depth of every parameter of ``model`` and the largest depth.

    Args:
        model: A backbone of mmpretrain, mmdet, mmpose, timm or this package, bare or anywhere
            inside a model (``backbone``, ``backbone.timm_model`` ...), or any other network.

    Returns:
        Full parameter name to depth in ``0..D``, and ``D``. Parameters outside the backbone
        (neck, head) have depth D.

    Raises:
        UserError: The backbone has fewer than two layers.

    Example:
        >>> from timm import create_model  # doctest: +SKIP
        >>> depths, top = layer_depths(create_model('deit_small_patch16_224'))  # doctest: +SKIP
        >>> depths['blocks.0.norm1.weight'], top  # doctest: +SKIP
        (1, 13)
    """
    names = [n for n, _ in model.named_parameters()]
    for prefix, module in model.named_modules():
        dot = f'{prefix}.' if prefix else ''
        local = [n[len(dot) :] for n in names if n.startswith(dot)]
        found = _rule(module, local)
        if found is not None:
            depth, top = found
            return {n: depth(n[len(dot) :]) if n.startswith(dot) else top for n in names}, top
    return _by_order(model, names)


def _by_order(model: nn.Module, names: list[str]) -> tuple[dict[str, int], int]:
    """Depths by the order of the backbone's modules; those of a network that no rule knows."""
    prefix = next((n for n, _ in model.named_modules() if n.split('.')[-1] == 'backbone'), '')
    layers = _layers(model.get_submodule(prefix), f'{prefix}.' if prefix else '')
    weights = {n for n, p in model.named_parameters() if p.ndim > 1}
    depths: dict[str, int] = {}
    depth = -1
    for layer in layers:
        inside = [n for n in names if n.startswith(f'{layer}.') and not head_of(n)]
        depth += bool(weights & {*inside})
        if depth >= 0:  # norms that stand before every layer are those of the outputs
            depths |= dict.fromkeys(inside, depth)
    if depth < 1:
        raise UserError(
            f'layer_decay_rate: {type(model).__name__} has no layers to tell apart; leave '
            'layer_decay_rate out or use custom_keys with lr_mult'
        )
    known = tuple(f'{layer}.' for layer in layers)
    for name in names:  # a bare parameter of the backbone: position embeddings and the like
        bare = name.startswith(prefix) and not name.startswith(known) and not head_of(name)
        depths.setdefault(name, 0 if bare else depth + 1)
    return depths, depth + 1


def _layers(module: nn.Module, dot: str) -> list[str]:
    """Prefixes of the layers of a network, in the order of their work."""
    children = list(module.named_children())
    lists = {n: len(c) for n, c in children if isinstance(c, nn.ModuleList) and n.isidentifier()}
    sizes = [size for n, size in lists.items() if not n[-1].isdigit()]
    rows: dict[int, list[str]] = {}
    found: list[str] = []
    for name, child in children:
        if not name[-1].isdigit() and sizes.count(lists.get(name, 0)) > 1:
            # lists of equal length take turns: downsample_layers[i], then stages[i]
            for inner, part in child.named_children():
                rows.setdefault(int(inner), []).extend(_inside(part, f'{dot}{name}.{inner}'))
            continue
        found += _inside(child, f'{dot}{name}')
    together = [layer for row in rows.values() for layer in row]
    first = next((i for i, layer in enumerate(found) if head_of(layer)), len(found))
    return [*found[:first], *together, *found[first:]] if together else found


def _inside(module: nn.Module, name: str) -> list[str]:
    """The layers in a container or a stage; any other module is one layer."""
    holds = {n for n, c in module.named_children() if isinstance(c, _CONTAINERS)}
    stage = re.search('stage|denseblock', type(module).__name__, re.IGNORECASE) is not None
    wrapped = bool(holds & {'blocks', 'layers'}) or name.split('.')[-1] in _WRAPPED
    if isinstance(module, _CONTAINERS) or stage or wrapped:
        return _layers(module, f'{name}.')
    return [name]


def _rule(module: nn.Module, names: Iterable[str]) -> Depths | None:
    """The depth rule for the parameters ``names`` of ``module``, if it is a known network."""
    names = list(names)
    kind = type(module).__name__.lower()
    stages = {m[1] for n in names if (m := _CONVNEXT_BLOCK.match(n))}
    if 'convnext' in kind and stages == {'0', '1', '2', '3'}:
        return _convnext(names)
    blocks = [_swin_block(n) for n in names]
    if 'swin' in kind and any(b is not None for b in blocks):
        return _swin([b for b in blocks if b is not None])
    own = getattr(module, 'get_layer_depth', None)
    if callable(own):
        top = own('head.weight', 'backbone.')[1] - 1
        return lambda n: own(n)[0], top
    isotropic = [int(m[1]) for n in names if (m := re.match(r'(?:blocks|layers)\.(\d+)\.', n))]
    if isotropic and re.search(r'vit|visiontransformer|deit|beit|eva', kind):
        return _isotropic(max(isotropic) + 1)
    return None


def _isotropic(n_blocks: int) -> Depths:
    def depth(name: str) -> int:
        if match := re.match(r'(?:blocks|layers)\.(\d+)\.', name):
            return int(match[1]) + 1
        return 0 if _STEM.match(name) else n_blocks + 1

    return depth, n_blocks + 1


def _swin_block(name: str) -> tuple[int, int] | None:
    match = re.match(r'(?:stages|layers)\.(\d+)\.blocks\.(\d+)\.', name)
    return (int(match[1]), int(match[2])) if match else None


def _swin(blocks: list[tuple[int, int]]) -> Depths:
    n_stages = max(s for s, _ in blocks) + 1
    sizes = [max(b for s, b in blocks if s == stage) + 1 for stage in range(n_stages)]

    def depth(name: str) -> int:
        if block := _swin_block(name):
            return sum(sizes[: block[0]]) + block[1] + 1
        if match := re.match(r'(stages|layers)\.(\d+)\.downsample\.', name):
            # timm's `layers` begin with their merging layer, the others' `stages` end with it.
            ended = int(match[2]) - (match[1] == 'layers')
            return sum(sizes[: ended + 1])
        return 0 if _STEM.match(name) else sum(sizes) + 1

    return depth, sum(sizes) + 1


_CONVNEXT_BLOCK = re.compile(r'stages\.(\d+)\.(?:blocks\.)?(\d+)\.')


def _convnext(names: list[str]) -> Depths:
    block = _CONVNEXT_BLOCK
    down = re.compile(r'(?:stages\.(\d)\.downsample|downsample_layers\.(\d))\.')
    last = max(int(m[2]) for n in names if (m := block.match(n)) and m[1] == '2')
    deepest = 12 if last + 1 > 9 else 6

    def depth(name: str) -> int:
        if match := down.match(name):
            stage = int(match[1] or match[2])
            is_stem = match[2] == '0'
            return 0 if is_stem else (deepest if stage == 3 else stage + 1)
        if match := block.match(name):
            stage = int(match[1])
            return (1, 2, 3 + int(match[2]) // 3, deepest)[stage]
        return 0 if _STEM.match(name) else deepest + 1

    return depth, deepest + 1
