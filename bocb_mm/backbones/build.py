"""From a row of the catalog and the user's arguments to a network."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import nn

from bocb_mm.backbones import families
from bocb_mm.backbones.adapters import Adapter, Options
from bocb_mm.backbones.catalog import list_backbones
from bocb_mm.backbones.spec import BackboneSpec
from bocb_mm.errors import UserError, nearest

_COMMON = tuple(f.name for f in fields(Options) if f.name not in ('spec', 'img_size'))


def build(spec: BackboneSpec, **kwargs: Any) -> Adapter:
    """Build the backbone of a row; its weights are drawn by ``init_weights``.

    Args:
        spec: The row.
        **kwargs: ``out_indices`` (ascending; default: strides 4 to 32), ``frozen_stages`` (-1 none,
            0 the stem, k the stem and k stages), ``norm_eval``, ``with_cp``, ``drop_path_rate``,
            ``init_cfg``, ``cifar`` and ``stem_stride`` (1 as in the paper's code base, which is
            the default, or 2 as the paper's text says), ``classifier`` (the form that
            :meth:`BackboneSpec.classifier` needs), ``num_classes`` (networks with the classifier
            inside), and what the row's ``tunable`` lists.

    Returns:
        The network, an instance of the source class with the :class:`Adapter` mixed in.

    Raises:
        UserError: An argument that the network does not know or cannot have.
    """
    given = _without_fixed(spec, kwargs)
    own = {k: given.pop(k) for k in spec.tunable if k in given and k != 'img_size'}
    options = _options(spec, given)
    family = getattr(families, spec.family)
    arguments = {**spec.kwargs, **family.arguments(options), **own}
    network = _class(family, family.source(options))(**arguments)
    network.adopt(options)
    return network


@functools.cache
def _class(family: type[Adapter], source: type[nn.Module]) -> Any:
    return type(source.__name__, (family, source), {'__module__': __name__})


def _without_fixed(spec: BackboneSpec, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments but for those that repeat what the row fixes; others are refused."""
    left = {}
    known = (*_COMMON, *spec.tunable)
    for key, value in kwargs.items():
        if key in spec.kwargs and key not in spec.tunable:
            if value != spec.kwargs[key]:
                raise UserError(
                    f'{spec.name} has {key}={spec.kwargs[key]!r}, got {value!r}: '
                    f'leave {key} out, or take another backbone'
                )
        elif key in known:
            left[key] = value
        else:
            near = nearest(key, known)
            hint = f'did you mean {", ".join(near)}?' if near else f'it knows {", ".join(known)}'
            raise UserError(f'{spec.name} has no argument {key!r}; {hint}')
    return left


def _options(spec: BackboneSpec, given: dict[str, Any]) -> Options:
    """The checked common arguments."""
    given = dict(given)
    _check_classifier(spec, given)
    given['out_indices'] = _indices(spec, given.get('out_indices'), given.get('classifier', False))
    _check_cifar(spec, given)
    _check_numbers(spec, given)
    init_cfg = given.get('init_cfg')
    if isinstance(init_cfg, Mapping):
        given['init_cfg'] = dict(init_cfg)
        if init_cfg.get('type') == 'Pretrained' and not init_cfg.get('checkpoint'):
            raise UserError(
                f"{spec.name}: init_cfg=dict(type='Pretrained') names no checkpoint=<path>"
            )
    if 'img_size' in given:
        given['img_size'] = _pair(spec, given['img_size'])
    return Options(spec=spec, **given)


def _check_classifier(spec: BackboneSpec, given: dict[str, Any]) -> None:
    classes = given.get('num_classes')
    if classes is not None and classes <= 0:  # mmpretrain's way to say none
        given['num_classes'] = classes = None
    if classes is not None and spec.head != 'inside':
        raise UserError(f'{spec.name}: num_classes goes to the head, not to the backbone')
    if classes is not None:
        given['classifier'] = True
    elif given.get('classifier') and spec.head == 'inside':
        raise UserError(f'{spec.name} has its classifier inside: give num_classes')
    if given.get('classifier') and given.get('out_indices') is not None:
        raise UserError(f'{spec.name}: classifier=True has one output, leave out_indices out')


def _indices(spec: BackboneSpec, out_indices: Any, classifier: bool) -> tuple[int, ...]:
    n = len(spec.channels)
    if classifier:
        return (n - 1,)
    if out_indices is None:
        return spec.out_indices
    given = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
    chosen = tuple(i + n if isinstance(i, int) and i < 0 else i for i in given)
    listed = ', '.join(f'{i} (stride {s})' for i, s in enumerate(spec.strides))
    if not chosen or any(not isinstance(i, int) or not 0 <= i < n for i in chosen):
        raise UserError(f'{spec.name}: out_indices={out_indices!r}, its maps are {listed}')
    if any(b <= a for a, b in itertools.pairwise(chosen)):
        raise UserError(
            f'{spec.name}: out_indices={out_indices!r} must ascend; its maps are {listed}'
        )
    return chosen


def _check_cifar(spec: BackboneSpec, given: dict[str, Any]) -> None:
    from bocb_mm.backbones.catalog import get_spec

    if given.get('cifar') and spec.cifar is None:
        have = [n for n in list_backbones() if get_spec(n).cifar is not None]
        raise UserError(
            f'{spec.name} has no CIFAR variant (it trains on {spec.input_size}x{spec.input_size} '
            f'there): leave cifar out; {", ".join(have)} have one'
        )
    if 'stem_stride' in given:
        if not given.get('cifar'):
            raise UserError(f'{spec.name}: stem_stride is for the CIFAR variant, add cifar=True')
        if given['stem_stride'] not in (1, 2):
            raise UserError(f'{spec.name}: stem_stride={given["stem_stride"]!r}, expected 1 or 2')


def _check_numbers(spec: BackboneSpec, given: dict[str, Any]) -> None:
    rate = given.get('drop_path_rate', 0.0)
    if not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise UserError(f'{spec.name}: drop_path_rate={rate!r}, expected a number in [0, 1)')
    if rate and not spec.droppable:
        raise UserError(
            f'{spec.name} has no residual branch to drop: drop_path_rate={rate} must be 0'
        )
    stages = len(getattr(families, spec.family).groups) - 1
    frozen = given.get('frozen_stages', -1)
    if not isinstance(frozen, int) or not -1 <= frozen <= stages:
        raise UserError(
            f'{spec.name}: frozen_stages={frozen!r}, expected -1 (none) to {stages} (all stages)'
        )


def _pair(spec: BackboneSpec, size: Any) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or any(not isinstance(s, int) or s < 16 or s % 16 for s in pair):
        raise UserError(
            f'{spec.name}: img_size={size!r}, expected one or two multiples of 16 (height, width)'
        )
    return pair
