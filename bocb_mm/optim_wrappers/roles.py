"""What each parameter is for: its role decides whether it decays and which update it takes.

=============  ====================================================================================
role           parameters
=============  ====================================================================================
norm           every parameter of a normalisation layer (batch, layer, group, RMS, GRN ...)
bias           ``bias`` and one-dimensional ``*_bias`` elsewhere
pos_embed      position embeddings: ``pos_embed``, ``absolute_pos_embed``, ``query_embedding`` ...
rel_pos        relative-position tables and what makes them: ``relative_position_bias_table``,
               ``rel_pos_h``, ``relative_pos_bias_local``, ``attention_biases``, ``cpb_*`` ...
cls_token      ``cls_token``, ``dist_token``, ``mask_token``, ``reg_token`` ...
layer_scale    LayerScale and ResScale: ``gamma``, ``gamma_1``, ``layer_scale_1``, ``res_scale`` ...
flat           other vectors and scalars: ``temperature``, ``logit_scale``, StarReLU's ``scale`` ...
declared       what the network itself names in ``no_weight_decay()`` (the timm convention)
weight         everything else: the matrices and kernels
=============  ====================================================================================

A weight has a part, which decides for optimizers with a matrix update (Muon):

=============  ====================================================================================
part           weights
=============  ====================================================================================
stem           what reads the input: the model's first kernel, and others of as few input channels
head           under modules named ``head``, ``*_head``, ``heads``, ``fc``, ``classifier``: all
               weights of a head beside a backbone, the last one of a head inside; in a model with
               no head and no backbone, its last kernel
depthwise      kernels of one filter a channel
embedding      ``nn.Embedding``
other          what is no matrix of a layer: a bare parameter, a matrix of one row or column
body           the rest
=============  ====================================================================================

The rule looks at the module's type and at names as mmpretrain, mmdet, mmpose, timm and this
package spell them, never at the optimizer, so a backbone's groups are the same for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

#: All roles but ``weight``; in this order the first that fits wins (``declared`` before ``flat``).
EXCLUDED_ROLES = (
    'norm',
    'pos_embed',
    'rel_pos',
    'cls_token',
    'layer_scale',
    'bias',
    'declared',
    'flat',
)
ROLES = (*EXCLUDED_ROLES, 'weight')

_KERNELS = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.Embedding,
    nn.Bilinear,
    nn.MultiheadAttention,
)
_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    *([nn.RMSNorm] if hasattr(nn, 'RMSNorm') else []),  # torch >= 2.4
)
_NORM_CLASS = re.compile(r'norm|grn', re.IGNORECASE)
_SCALE_CLASS = re.compile(r'^(Layer|Res|Element)?Scale(2d)?$')
# Matched against the last name of the path, or the last two when the leaf is just `weight`/`scale`.
_NAMES = (
    ('rel_pos', re.compile(r'^(rel(ative)?_pos|attention_bias(es)?$|cpb_?)')),
    ('pos_embed', re.compile(r'(^|_)pos(ition(al)?)?_?emb(ed(ding)?s?)?$|^query_embedding$')),
    ('cls_token', re.compile(r'^(cls|class|dist|mask|reg|register|prompt|storage)_?(token|emb)')),
    ('layer_scale', re.compile(r'^(gamma(_?\d+)?|(layer|res)_?scale(_?\d+)?|ls_?\d*)$')),
)


PARTS = ('stem', 'head', 'depthwise', 'embedding', 'other', 'body')
_FUSED = {'qkv': 3, 'to_qkv': 3, 'qkv_proj': 3, 'kv': 2}
_WRAPPERS = ('backbone', 'timm_model', 'model', 'module', 'net', 'network')
_HEAD = re.compile(r'(^|_)heads?(_|$)|^(fc|classifier|last_linear)$')


def is_depthwise(module: nn.Module) -> bool:
    """Whether it is a convolution with one filter a channel."""
    return isinstance(module, nn.modules.conv._ConvNd) and 1 < module.groups == module.in_channels


@dataclass(frozen=True)
class RoledParameter:
    """One parameter of a model with what the grouping needs to know about it.

    Attributes:
        name: Full dotted name.
        parameter: The tensor itself.
        role: One of :data:`ROLES`.
        module: The module that owns it.
        part: Of a weight, one of :data:`PARTS`.
        parent: The module around ``module``.
    """

    name: str
    parameter: nn.Parameter
    role: str
    module: nn.Module
    part: str = 'body'
    parent: nn.Module | None = None

    @property
    def is_matrix(self) -> bool:
        """Whether an optimizer with a matrix update may take it: a weight of the body."""
        return self.role == 'weight' and self.part == 'body'

    def matrices(self, fused: str = 'parts') -> int:
        """How many matrices stand below one another in a weight.

        Those of grouped convolutions, and of query, key and value in one layer.

        Args:
            fused: ``'parts'`` for 3 in a ``qkv``, ``'heads'`` for 3 a head, ``'whole'`` for 1.
        """
        if isinstance(self.module, nn.modules.conv._ConvNd) and self.module.groups > 1:
            return self.module.groups
        owner, leaf = ['', *self.name.split('.')][-2:]
        parts = 3 if leaf == 'in_proj_weight' else _FUSED.get(owner, 1)
        if fused == 'whole' or parts == 1:
            return 1
        around = self.module if leaf == 'in_proj_weight' else self.parent
        heads = getattr(around, 'num_heads', 1) if fused == 'heads' else 1
        return parts * heads if len(self.parameter) % (parts * heads) == 0 else 1

    @property
    def depthwise(self) -> bool:
        """Whether it belongs to a depthwise convolution (one filter per channel)."""
        return is_depthwise(self.module)

    @property
    def decays_officially(self) -> bool:
        """Whether the network's own code decays it although its role does not.

        MogaNet's layer scales and ``sigma.scale`` and the response norms of ConvNeXt V2 and
        UniRepLKNet have more than one dimension there, which its rule goes by; RepVGG names its
        identity norm.

        Source: MogaNet ``main.py`` (timm's rule), ConvNeXt V2 and UniRepLKNet
        ``optim_factory.py``, RepVGG ``train/optimizer.py``.
        """
        kind = type(self.module).__name__
        if kind in ('MogaBlock', 'Decomposition'):
            return self.role in ('layer_scale', 'flat')
        return kind in ('GRN', 'GlobalResponseNorm') or self.name.endswith('branch_norm.weight')


def parameters_with_roles(model: nn.Module) -> Iterator[RoledParameter]:
    """Every parameter of ``model`` once, frozen and shared ones included, with its role.

    Args:
        model: Any module; a wrapper such as DDP should be taken off first.

    Yields:
        One :class:`RoledParameter` per parameter, in the order of ``model.named_parameters()``.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        >>> [(p.name, p.role) for p in parameters_with_roles(net)]
        [('0.weight', 'weight'), ('0.bias', 'bias'), ('1.weight', 'norm'), ('1.bias', 'norm')]
    """
    declared = _declared_names(model)
    modules = dict(model.named_modules())
    part = _parts(model)
    seen: set[int] = set()
    for prefix, module in modules.items():
        for leaf, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            name = f'{prefix}.{leaf}' if prefix else leaf
            role = _role(name, parameter, module, name in declared)
            parent = modules.get(prefix.rpartition('.')[0])
            yield RoledParameter(name, parameter, role, module, part(name, parameter), parent)


def head_of(name: str) -> str:
    """The head that a parameter of this name belongs to, of the model or of its backbone, or ''.

    Example:
        >>> head_of('backbone.classifier.6.weight'), head_of('backbone.layer4.0.se.fc.weight')
        ('backbone.classifier', '')
    """
    path = name.split('.')
    place = next((i for i, part in enumerate(path) if part not in _WRAPPERS), 0)
    return '.'.join(path[: place + 1]) if _HEAD.search(path[place]) else ''


def _outputs(kernels: Iterable[str], has_backbone: bool) -> set[str]:
    """Names of the kernels that are heads."""
    names = list(kernels)
    beside = {n for n in names if has_backbone and '.' not in head_of(n) != ''}
    inside = {head_of(n): n for n in names if head_of(n) and n not in beside}
    if not beside and not inside and not has_backbone and len(names) > 1:
        return {names[-1]}
    return beside | set(inside.values())


def _parts(model: nn.Module) -> Callable[[str, Tensor], str]:
    """What tells the part of a weight from its name."""
    owners = dict(model.named_modules())
    kernels = {
        f'{prefix}.weight' if prefix else 'weight': module
        for prefix, module in owners.items()
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
    }
    first = _channels(next(iter(kernels.values()))) if kernels else 0
    stems = set([*kernels][:1])
    heads = _outputs(kernels, 'backbone' in owners)
    stems |= {n for n, m in kernels.items() if _channels(m) == first <= 4} - heads

    def part(name: str, parameter: Tensor) -> str:
        module = owners[name.rpartition('.')[0]]
        if name in heads or (name not in kernels and head_of(name)):
            return 'head'
        if isinstance(module, nn.Embedding):
            return 'embedding'
        if is_depthwise(module):
            return 'depthwise'
        if name in stems:
            return 'stem'
        sides = (parameter.shape[0], parameter[0].numel()) if parameter.dim() > 1 else (1, 1)
        return 'body' if min(sides) > 1 and name.endswith('weight') else 'other'

    return part


def _channels(module: nn.Module) -> int:
    """Input channels of a kernel; of a linear layer, its inputs."""
    return getattr(module, 'in_channels', None) or module.in_features  # type: ignore[return-value]


def _declared_names(model: nn.Module) -> set[str]:
    """Full names of what the network and its parts list in ``no_weight_decay()``."""
    names: set[str] = set()
    for prefix, module in model.named_modules():
        method = getattr(module, 'no_weight_decay', None)
        if callable(method):
            names.update(f'{prefix}.{n}' if prefix else n for n in method())
    return names


def _role(name: str, parameter: Tensor, module: nn.Module, declared: bool) -> str:
    path = name.split('.')
    leaf = path[-1]
    kernel = isinstance(module, _KERNELS)
    vector = parameter.ndim <= 1 or (not kernel and parameter.numel() == max(parameter.shape))
    if isinstance(module, _NORMS):
        return 'norm'
    if vector and not kernel and _NORM_CLASS.search(type(module).__name__):
        return 'norm'
    # An embedding table, and nothing else, may take its name from the module: `pos_embed.weight`.
    names = [leaf]
    if len(path) > 1 and (isinstance(module, nn.Embedding) or not kernel):
        names.append(path[-2])
    if any(part.startswith('cpb') for part in path):  # the small network that makes the table
        return 'rel_pos'
    for role, pattern in _NAMES:
        if any(pattern.search(n) for n in names) and (role != 'layer_scale' or vector):
            return role
    if vector and _SCALE_CLASS.match(type(module).__name__):
        return 'layer_scale'
    if leaf == 'bias' or (leaf.endswith('_bias') and parameter.ndim <= 1):
        return 'bias'
    if declared:
        return 'declared'
    return 'flat' if vector else 'weight'
