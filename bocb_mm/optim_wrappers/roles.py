"""What each parameter is for: its role decides whether it decays and whether it is adapted.

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

The rule looks at the module's type and at names as mmpretrain, mmdet, mmpose, timm and this
package spell them, never at the optimizer, so a backbone's groups are the same for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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


@dataclass(frozen=True)
class RoledParameter:
    """One parameter of a model with what the grouping needs to know about it.

    Attributes:
        name: Full dotted name.
        parameter: The tensor itself.
        role: One of :data:`ROLES`.
        module: The module that owns it.
    """

    name: str
    parameter: nn.Parameter
    role: str
    module: nn.Module

    @property
    def depthwise(self) -> bool:
        """Whether it belongs to a depthwise convolution (one filter per channel)."""
        m = self.module
        return isinstance(m, nn.modules.conv._ConvNd) and 1 < m.groups == m.in_channels

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
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            name = f'{prefix}.{leaf}' if prefix else leaf
            role = _role(name, parameter, module, name in declared)
            yield RoledParameter(name, parameter, role, module)


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
