r"""Parameter groups from a model: few, readable, the same for every optimizer.

For a parameter with role :math:`\rho`, depth :math:`d` of :math:`D` and multipliers :math:`m`:

.. math::

    \eta = \eta_0 \, m_\text{part} \, m_\text{role} \, m_\text{custom} \, r^{D-d},
    \qquad \lambda = \lambda_0 \, m^\text{decay}_\rho

Parameters with equal settings share one group, so that foreach and fused kernels see long lists.
Plain PyTorch: :func:`param_groups` needs neither a config nor a runner.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from bocb_mm.errors import UserError, nearest
from bocb_mm.optim_wrappers.layer_decay import layer_depths
from bocb_mm.optim_wrappers.roles import (
    EXCLUDED_ROLES,
    PARTS,
    ROLES,
    RoledParameter,
    parameters_with_roles,
)
from bocb_mm.optimizers.halves import Halves
from bocb_mm.optimizers.muon import Muon

FUSED = ('parts', 'heads', 'whole')


@dataclass(frozen=True)
class Half:
    """The auxiliary half of a matrix optimizer's groups (Muon): its base values, and its keys.

    Attributes:
        lr: Base rate of the auxiliary half.
        weight_decay: Base decay of the auxiliary half.
        keys: What the optimizer's groups say of their half; default: those of ours.
    """

    lr: float
    weight_decay: float
    keys: Halves = Muon.halves


@dataclass(frozen=True)
class GroupRules:
    """How parameters are grouped; every field is a key of ``paramwise_cfg``.

    A decay multiplier of None takes ``excluded_decay_mult``. Keys and meaning follow mmengine's
    ``paramwise_cfg`` where it has them, so that a stock config's ``paramwise_cfg`` is accepted;
    the differences: multipliers combine by product instead of one replacing the others, a
    ``custom_keys`` entry without ``decay_mult`` leaves the decay to the parameter's role, and
    shared parameters are always taken once.

    Attributes:
        norm_decay_mult: Decay multiplier of role ``norm``.
        bias_decay_mult: ... of role ``bias``.
        pos_embed_decay_mult: ... of role ``pos_embed``.
        rel_pos_decay_mult: ... of role ``rel_pos``.
        cls_token_decay_mult: ... of role ``cls_token``.
        layer_scale_decay_mult: ... of role ``layer_scale``.
        declared_decay_mult: ... of role ``declared``.
        flat_decay_mult: ... of role ``flat``, the other vectors and scalars.
        excluded_decay_mult: For the roles above that have no value of their own; 1 decays all.
        official_decay: Decay what the network's own code decays although its role does not
            (:attr:`~bocb_mm.optim_wrappers.roles.RoledParameter.decays_officially`).
        dwconv_decay_mult: ... of depthwise kernels (role ``weight``).
        backbone_lr_mult: Multiplies the rate of parameters under ``backbone.``.
        head_lr_mult: Multiplies the rate under top-level modules named ``head`` or ``*_head``
            (``bbox_head``, ``roi_head``, ``keypoint_head``), ``fc`` or ``classifier``.
        bias_lr_mult: Multiplies the rate of role ``bias``.
        dcn_offset_lr_mult: Multiplies the rate of ``conv_offset`` in deformable convolutions.
        layer_decay_rate: Layer-wise rate decay (:mod:`~bocb_mm.optim_wrappers.layer_decay`).
        fused: How an optimizer with a matrix update sees query, key and value in one layer:
            ``'parts'`` three matrices, ``'heads'`` three a head, ``'whole'`` one.
        no_adapt: Roles whose groups get ``adapt=False`` from an optimizer with a layer-wise trust
            ratio (LARS, LAMB): no adaptation. Default: the same roles that do not decay.
        bypass_duplicate: Accepted for mmengine's sake; sharing is always handled.
        custom_keys: Substring of a parameter's name to ``dict(lr_mult=, decay_mult=, ...)``; the
            longest matching key wins. Other entries go to the group as they are (``betas=...``);
            ``matrix=`` chooses the half of a matrix optimizer, others do not see it.
    """

    norm_decay_mult: float | None = None
    bias_decay_mult: float | None = None
    pos_embed_decay_mult: float | None = None
    rel_pos_decay_mult: float | None = None
    cls_token_decay_mult: float | None = None
    layer_scale_decay_mult: float | None = None
    declared_decay_mult: float | None = None
    flat_decay_mult: float | None = None
    excluded_decay_mult: float = 0.0
    official_decay: bool = False
    dwconv_decay_mult: float = 1.0
    backbone_lr_mult: float = 1.0
    head_lr_mult: float = 1.0
    bias_lr_mult: float = 1.0
    dcn_offset_lr_mult: float = 1.0
    layer_decay_rate: float = 1.0
    fused: str = 'parts'
    no_adapt: tuple[str, ...] = EXCLUDED_ROLES
    bypass_duplicate: bool = True
    custom_keys: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def from_cfg(cls, cfg: Mapping[str, Any] | None) -> GroupRules:
        """Rules from a ``paramwise_cfg``; refuses a key, role or value that means nothing.

        Raises:
            UserError: Names the key, what was expected and the nearest known one.

        Example:
            >>> GroupRules.from_cfg({'norm_decay_mult': 0.0}).norm_decay_mult
            0.0
        """
        cfg = dict(cfg or {})
        fields = [f.name for f in dataclasses.fields(cls)]
        for key, value in cfg.items():
            if key not in fields:
                raise _unknown('paramwise_cfg key', key, fields)
            if (key.endswith(('_mult', '_rate'))) and value is not None:
                cfg[key] = _multiplier(key, value)
        if not isinstance(cfg.get('official_decay', False), bool):
            raise UserError(f'official_decay={cfg["official_decay"]!r}: expected True or False')
        if cfg.get('fused', 'parts') not in FUSED:
            raise UserError(f'fused={cfg["fused"]!r}: expected one of {", ".join(FUSED)}')
        if 'no_adapt' in cfg:
            cfg['no_adapt'] = _checked_roles(cfg['no_adapt'])
        cfg['custom_keys'] = _checked_custom_keys(cfg.get('custom_keys') or {})
        return cls(**cfg)

    def decay_mult(self, parameter: RoledParameter) -> float:
        """Decay multiplier of a parameter by its role alone."""
        if parameter.role == 'weight':
            return self.dwconv_decay_mult if parameter.depthwise else 1.0
        if self.official_decay and parameter.decays_officially:
            return 1.0
        own = getattr(self, f'{parameter.role}_decay_mult')
        return self.excluded_decay_mult if own is None else own

    def lr_mult(self, parameter: RoledParameter) -> float:
        """Rate multiplier of a parameter by its place and role, without custom keys and depth."""
        mult = 1.0
        top = parameter.name.split('.')[0]
        if top == 'backbone':
            mult *= self.backbone_lr_mult
        elif is_head(top):
            mult *= self.head_lr_mult
        if 'conv_offset' in parameter.name:
            return mult * self.dcn_offset_lr_mult
        return mult * (self.bias_lr_mult if parameter.role == 'bias' else 1.0)

    def custom(self, name: str) -> Mapping[str, Any]:
        """The settings of the longest custom key that is part of ``name``."""
        keys = [k for k in self.custom_keys if k in name]
        return self.custom_keys[min(keys, key=lambda k: (-len(k), k))] if keys else {}


def is_head(top: str) -> bool:
    """Whether a top-level module of this name is a head."""
    return top.endswith('head') or top in ('fc', 'classifier')


def _unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    near = nearest(str(name), known, n=1)
    hint = f'did you mean {near[0]!r}?' if near else f'known: {", ".join(known)}'
    return UserError(f'unknown {kind} {name!r}; {hint}')


def _checked_roles(roles: Any) -> tuple[str, ...]:
    if isinstance(roles, str):
        raise UserError(f'no_adapt={roles!r}: expected a list of roles, e.g. [{roles!r}]')
    for role in roles:
        if role not in ROLES:
            raise _unknown('role in no_adapt', role, ROLES)
    return tuple(roles)


def _checked_custom_keys(custom: Any) -> dict[str, Mapping[str, Any]]:
    if not isinstance(custom, Mapping) or not all(isinstance(v, Mapping) for v in custom.values()):
        raise UserError(f'custom_keys={custom!r}: expected name -> dict(lr_mult=, decay_mult=)')
    for pattern, settings in custom.items():
        for key in ('lr_mult', 'decay_mult'):
            if key in settings:
                _multiplier(f'custom_keys[{pattern!r}][{key!r}]', settings[key])
    return dict(custom)


def _multiplier(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise UserError(f'{key}={value!r}: expected a number of at least 0')
    return float(value)


def param_groups(
    model: nn.Module,
    lr: float | None = None,
    weight_decay: float | None = None,
    *,
    adapt: bool = False,
    auxiliary: Half | None = None,
    **rules: Any,
) -> list[dict[str, Any]]:
    """Parameter groups of ``model`` for any ``torch.optim`` optimizer.

    Args:
        model: The model, without DDP around it.
        lr: Base rate; needed only when a multiplier is not 1.
        weight_decay: Base decay; needed only when a multiplier is neither 0 nor 1.
        adapt: Whether the optimizer reads the boolean group key ``adapt`` (LARS, LAMB); if so,
            groups say which parameters the trust ratio applies to.
        auxiliary: For a matrix optimizer, rate and decay of all but the weights of the body;
            ``lr`` and ``weight_decay`` are then those of the body's.
        **rules: Fields of :class:`GroupRules`.

    Returns:
        Groups ``{'params', 'name', 'role', ...}`` with ``lr`` and ``weight_decay`` where they
        differ from the base. ``role`` lists the roles in the group, ``name`` is unique and
        readable, e.g. ``'norm+bias, no decay'``.

    Raises:
        UserError: An unknown rule, a rule that matches nothing, no trainable parameter, or a
            multiplier without its base value.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        >>> groups = param_groups(net, lr=0.1, weight_decay=1e-4)
        >>> [(g['name'], len(g['params'])) for g in groups]
        [('weight', 1), ('norm+bias, no decay', 3)]
        >>> optimizer = torch.optim.SGD(groups, lr=0.1, weight_decay=1e-4)
    """
    parsed = GroupRules.from_cfg(rules)
    parameters = list(parameters_with_roles(model))
    _check_lr_parts(parsed, parameters)
    depths, top = layer_depths(model) if parsed.layer_decay_rate != 1 else ({}, 0)
    groups: dict[Any, dict[str, Any]] = {}
    for p in parameters:
        if not p.parameter.requires_grad:
            continue
        custom = dict(parsed.custom(p.name))
        scale = parsed.layer_decay_rate ** (top - depths[p.name]) if depths else 1.0
        settings = {
            'lr_mult': parsed.lr_mult(p) * custom.pop('lr_mult', 1.0) * scale,
            'decay_mult': custom.pop('decay_mult', parsed.decay_mult(p)),
            # A rate or decay that is given itself is meant as it stands.
            **({'lr_mult': 1.0} if 'lr' in custom else {}),
            **({'decay_mult': 1.0} if 'weight_decay' in custom else {}),
            **({'adapt': p.role not in parsed.no_adapt} if adapt else {}),
            **_half(p, custom.pop('matrix', p.is_matrix), auxiliary, parsed.fused),
            **custom,
        }
        key = tuple(sorted((k, repr(v)) for k, v in settings.items()))
        group = groups.setdefault(key, {'params': [], 'role': [], **settings})
        group['params'].append(p.parameter)
        role = p.part if auxiliary and p.role == 'weight' and p.part in PARTS[:-2] else p.role
        if role not in group['role']:
            group['role'].append(role)
    if not groups:
        raise UserError(
            f'{type(model).__name__} has no trainable parameter: all are frozen; train some'
        )
    named = _named(list(groups.values()))
    if auxiliary is None:
        return [_finished(g, lr, weight_decay) for g in named]
    of_rest = [auxiliary.keys.auxiliary.items() <= g.items() for g in named]
    if all(of_rest):
        raise UserError(
            f'{type(model).__name__} has no hidden matrix that is trained (stems, heads, depthwise '
            'kernels and embeddings are none): take AdamW'
        )
    # written out, as the optimizer's own rate and decay are those of the matrices
    return [
        {'lr': auxiliary.lr, 'weight_decay': auxiliary.weight_decay}
        | _finished(g, auxiliary.lr, auxiliary.weight_decay)
        if rest
        else _finished(g, lr, weight_decay)
        for g, rest in zip(named, of_rest)
    ]


def _half(p: RoledParameter, matrix: bool, half: Half | None, fused: str) -> Mapping[str, Any]:
    """What the group of a parameter says of its half, where there are two."""
    if half is None:
        return {}
    keys = half.keys
    if not matrix or p.parameter.ndim < 2:
        return keys.auxiliary
    matrices = p.matrices(fused) if keys.splits else 1
    return {**keys.matrix, 'split': matrices} if matrices > 1 else keys.matrix


def _check_lr_parts(rules: GroupRules, parameters: list[RoledParameter]) -> None:
    """A rate multiplier for a part that the model does not have is a mistake."""
    tops = {p.name.split('.')[0] for p in parameters}
    for key, present in (
        ('backbone_lr_mult', 'backbone' in tops),
        ('head_lr_mult', any(map(is_head, tops))),
    ):
        if getattr(rules, key) != 1 and not present:
            parts = ', '.join(sorted(tops)[:8])
            raise UserError(
                f'{key}: the model has no such part (its parts: {parts}); use custom_keys'
            )


def unmatched_custom_keys(model: nn.Module, rules: GroupRules) -> list[str]:
    """Custom keys that are part of no parameter's name; stock configs do have such."""
    names = [n for n, _ in model.named_parameters()]
    return [k for k in rules.custom_keys if not any(k in n for n in names)]


def _named(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each group a unique readable name and its roles as one string."""
    taken: dict[str, int] = {}
    for group in groups:
        group['role'] = '+'.join(sorted(group['role'], key=(*ROLES, *PARTS).index))
        parts = [group['role']]
        if group.get('split', 1) > 1:
            parts.append(f'in {group["split"]}')
        if group['lr_mult'] != 1:
            parts.append(f'lr x {group["lr_mult"]:.4g}')
        if group['decay_mult'] != 1:
            parts.append(
                f'decay x {group["decay_mult"]:.4g}' if group['decay_mult'] else 'no decay'
            )
        if group.get('adapt') is False:
            parts.append('not adapted')
        name = ', '.join(parts)
        taken[name] = taken.get(name, 0) + 1
        group['name'] = name if taken[name] == 1 else f'{name} ({taken[name]})'
    return groups


def _finished(group: dict[str, Any], lr: float | None, decay: float | None) -> dict[str, Any]:
    """Turn the multipliers into absolute values; a multiplier of 1 leaves the optimizer's own."""
    for key, mult, base in (
        ('lr', group.pop('lr_mult'), lr),
        ('weight_decay', group.pop('decay_mult'), decay),
    ):
        if mult == 0:
            group[key] = 0.0
        elif mult != 1:
            if base is None:
                raise UserError(
                    f'group {group["name"]!r}: a multiplier of {key} needs {key} itself; set it'
                )
            group[key] = base * mult
    return group
