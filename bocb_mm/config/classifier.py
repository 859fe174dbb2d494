"""From the name of a network and a folder of images to a config: there is none to write."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bocb_mm.datasets.class_folders import Images
from bocb_mm.errors import UnknownNameError, UserError, unknown_name

WARM_UP = 0.1  # share of the schedule


@dataclass(frozen=True)
class Network:
    """A network by its name.

    Attributes:
        name: As given, without arguments: ``'R-50'``, ``'timm.resnet18'``, ``'mine.MyNet'``.
        arguments: Of its constructor.
    """

    name: str
    arguments: Mapping[str, Any]

    @property
    def label(self) -> str:
        """For tables: the name with the arguments."""
        inside = ', '.join(f'{k}={v!r}' for k, v in self.arguments.items())
        return f'{self.name}({inside})' if inside else self.name


def parse(text: str) -> Network:
    """``'mmpretrain.ResNet(depth=18)'`` as a network.

    Raises:
        UserError: Not a name, or arguments that are no plain values.

    Example:
        >>> parse('mmpretrain.ResNet(depth=18)').arguments
        {'depth': 18}
    """
    name, bracket, inside = text.strip().partition('(')
    try:
        call = ast.parse(f'f({inside}' if bracket else 'f()', mode='eval').body
        assert isinstance(call, ast.Call) and not call.args
        arguments = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise UserError(
            f'--backbone {text!r}: a name, or a name with arguments as in '
            "'mmpretrain.ResNet(depth=18)' is expected"
        ) from None
    if not name:
        raise UserError("--backbone '': a name such as R-50, timm.resnet18 or MyNet is expected")
    return Network(name, arguments)


def model_of(network: Network, n_classes: int, side: int) -> dict[str, Any]:
    """The ``model`` of an mmpretrain config; the network is built once and shown a batch.

    Args:
        network: A backbone of the catalog, ``timm.<name>``, or a registered class.
        n_classes: Classes to tell apart.
        side: Side of the square images, in px.

    Raises:
        UserError: No such network, arguments it does not take, or it cannot take such images.
    """
    import torch
    from mmpretrain.registry import MODELS
    from mmpretrain.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    kind = _timm if network.name.startswith('timm.') else _ours
    model = kind(network, n_classes, side)
    if model is None:
        model = _registered(network, n_classes, side)
    images = torch.zeros(2, 3, side, side)
    built = _attempt(network, lambda: MODELS.build(model))
    built.eval()  # mmpretrain's returns None
    _attempt(network, lambda: built(images), f' on images of {side}x{side}')
    return model


def _attempt(network: Network, build: Callable[[], Any], where: str = '') -> Any:
    """Call ``build``; what it raises becomes one line."""
    import torch

    try:
        with torch.no_grad():
            return build()
    except UserError:
        raise
    except Exception as error:  # a network is a program: it may raise anything
        text = ' '.join(str(error).split())[:300]
        raise UserError(
            f'--backbone {network.label}: cannot be built or run{where} ({type(error).__name__}: '
            f'{text}); give its arguments in brackets, or another --size'
        ) from error


def _timm(network: Network, n_classes: int, side: int) -> dict[str, Any]:
    try:
        import timm
    except ImportError:
        raise UserError(f'--backbone {network.name}: timm is missing; pip install timm') from None
    name = network.name.removeprefix('timm.')
    if not timm.is_model(name):
        raise unknown_name('timm network', name, timm.list_models(), 'timm.list_models()')
    given = dict(num_classes=n_classes, **network.arguments)
    if 'img_size' not in given:
        try:  # networks with weights for each place need it, the others do not know it
            timm.create_model(name, **given, img_size=side)
        except TypeError:
            pass
        else:
            given['img_size'] = side
    return dict(type='mmpretrain.TimmClassifier', model_name=name, **given)


def _ours(network: Network, n_classes: int, side: int) -> dict[str, Any] | None:
    """The catalog's, by any of its names; None for a name that it has not."""
    from bocb_mm.backbones import get_spec

    try:
        spec = get_spec(network.name.removeprefix('bocb_mm.'))
    except UnknownNameError:
        return None
    given = {'img_size': (side, side), **network.arguments}
    if 'img_size' not in spec.tunable:
        given.pop('img_size')
    return spec.classifier(n_classes, **given)


def _registered(network: Network, n_classes: int, side: int) -> dict[str, Any]:
    """A registered backbone with a linear classifier on its last map."""
    import torch
    from mmpretrain.registry import MODELS

    from bocb_mm.backbones import list_backbones

    if MODELS.get(network.name) is None:
        raise unknown_name(
            'backbone', network.name, [*list_backbones(extras=True), *MODELS.module_dict],
            'the catalog, timm.<name>, or a registered class; --import names its module',
        )  # fmt: skip
    body = dict(type=network.name, **network.arguments)
    built = _attempt(network, lambda: MODELS.build(dict(body)))
    images = torch.zeros(2, 3, side, side)
    built.eval()
    out = _attempt(network, lambda: built(images), f' on images of {side}x{side}')
    if not isinstance(out, list | tuple):
        raise UserError(
            f'--backbone {network.label}: returns a {type(out).__name__}; the backbones of '
            'OpenMMLab return a tuple of feature maps, with a single one: return (x,)'
        )
    last: Any = out[-1] if out else None
    if not hasattr(last, 'dim') or last.dim() not in (2, 4):
        shape = tuple(getattr(last, 'shape', ()))
        raise UserError(
            f'--backbone {network.label}: its last output has shape {shape}; maps (N, C, H, W) or '
            'vectors (N, C) are expected: write a config with the neck it needs and give that'
        )
    neck = dict(type='mmpretrain.GlobalAveragePooling') if last.dim() == 4 else None
    head = dict(
        type='mmpretrain.LinearClsHead', num_classes=n_classes, in_channels=int(last.shape[1])
    )
    return dict(type='mmpretrain.ImageClassifier', backbone=body, neck=neck, head=head)


def import_modules(names: Sequence[str]) -> None:
    """Import the modules that register the user's classes; the working directory is searched too.

    Raises:
        UserError: One cannot be imported.
    """
    here = str(Path.cwd())
    if names and here not in sys.path:
        sys.path.append(here)
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # a module is a program: it may raise anything
            text = ' '.join(str(error).split())[:300]
            raise UserError(
                f'--import {name}: {type(error).__name__}: {text}; it is looked for here and on '
                'PYTHONPATH, by its name without .py'
            ) from error


def config_text(
    network: Network, model: Mapping[str, Any], images: Images, lists: tuple[str, str], *,
    iterations: int, batch: int, digits: bool, name: str, imports: Sequence[str] = (),
) -> str:  # fmt: skip
    """A whole config as text: the network on the images, warm-up and a cosine to zero.

    Args:
        network: For the name in tables.
        model: Of :func:`model_of`.
        images: To train on.
        lists: Of :meth:`Images.write_lists`.
        iterations: Length of the schedule.
        batch: Images a batch.
        digits: The images are the embedded digits: no flips, and textures as in the quickstart,
            without which every optimizer reaches 97 %.
        name: Of the data in tables.
        imports: Modules that register classes.
    """
    side = images.side
    load: dict[str, Any] = dict(type='LoadImageFromFile')
    crop: dict[str, Any] = dict(type='RandomResizedCrop', scale=side, crop_ratio_range=(0.5, 1.0))
    change: list[dict[str, Any]] = [dict(type='RandomFlip', prob=0.5)]
    if digits:
        turn = dict(type='Rotate', angle=12.0, prob=0.5, pad_val=0)
        change = [turn, dict(type='bocb_mm.OnTexture', prob=0.7)]
    resize = [load, dict(type='Resize', scale=(side, side)), dict(type='PackInputs')]

    def loader(ann_file: str, size: int, pipeline: list[dict[str, Any]]) -> dict[str, Any]:
        data = dict(
            type='CustomDataset', ann_file=ann_file, data_prefix=str(images.folder.resolve()),
            metainfo=dict(classes=images.classes), pipeline=pipeline,
        )  # fmt: skip
        sampler = dict(type='DefaultSampler', shuffle=pipeline is not resize)
        return dict(batch_size=size, num_workers=0, sampler=sampler, dataset=data)

    warm_up = max(1, round(WARM_UP * iterations))
    parts: dict[str, Any] = dict(
        default_scope='mmpretrain',
        dataset_name=name,
        model=dict(model),
        data_preprocessor=dict(
            num_classes=len(images.classes), mean=[127.5] * 3, std=[64.0] * 3, to_rgb=True
        ),
        train_dataloader=loader(lists[0], batch, [load, crop, *change, dict(type='PackInputs')]),
        val_dataloader=loader(lists[1], 256, resize),
        val_evaluator=dict(type='Accuracy', topk=(1,)),
        val_cfg=dict(),
        train_cfg=dict(by_epoch=False, max_iters=iterations, val_interval=iterations),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=warm_up),
            dict(
                type='CosineAnnealingLR', by_epoch=False, begin=warm_up, end=iterations,
                T_max=iterations - warm_up,
            ),
        ],
        optim_wrapper=dict(
            constructor='bocb_mm.OptimWrapperConstructor',
            optimizer=dict(type='bocb_mm.AdamW', lr=1e-3, weight_decay=0.05),
        ),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=100),
            checkpoint=dict(
                type='bocb_mm.SafeCheckpointHook', by_epoch=False, interval=iterations,
                max_keep_ckpts=1,
            ),
            divergence=dict(type='bocb_mm.DivergenceHook'),
            signals=dict(type='bocb_mm.SignalHook'),
            run_record=dict(type='bocb_mm.RunRecordHook', backbone=network.label),
        ),
        log_processor=dict(by_epoch=False),
        log_level='WARNING',
    )  # fmt: skip
    parts['test_dataloader'], parts['test_evaluator'] = (
        parts['val_dataloader'],
        parts['val_evaluator'],
    )
    parts['test_cfg'] = dict()
    if imports:
        parts['custom_imports'] = dict(imports=list(imports), allow_failed_imports=False)
    head = f'# Written by bocb probe: {network.label} on {images.folder.name}, {images.split}.\n'
    return head + ''.join(f'{key} = {value!r}\n' for key, value in parts.items())
