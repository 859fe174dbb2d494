"""Whole networks: loss against the CPU, training in three number formats, images a second."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bocb_mm.compat import read_bfloat16_in_mmpose
from bocb_mm.gpu_check.report import Report, Settings

#: Of the loss, relative; float16 and bfloat16 round to 11 and 8 bits.
BOUNDS = {'float32': 1e-3, 'float16': 1e-2, 'bfloat16': 5e-2}
Data = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """A network, made-up images for it, and how many are compared and trained.

    Attributes:
        scope: Toolbox.
        model: Its config, from the checkout.
        images: Makes a batch of a size.
        batch: Images of a training step.
        predicts: Whether predictions are looked at too.
    """

    scope: str
    model: Callable[[Path], Any]
    images: Callable[[int], Data]
    batch: int
    predicts: bool = False


def run(report: Report, settings: Settings) -> None:
    """Every network of the device's size."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for name, network in (_SMALL if settings.small else _LARGE).items():
        with report.guard(name):
            model = _build(network, settings.root)
            _compare(report, settings, name, network, model)
            for dtype in BOUNDS:
                _train(report, settings, name, network, model, dtype)


def _build(network: Network, root: Path) -> Any:
    import importlib

    from mmengine.registry import MODELS, init_default_scope
    from mmengine.runner import set_random_seed

    importlib.import_module(f'{network.scope}.models')
    read_bfloat16_in_mmpose()
    init_default_scope(network.scope)
    set_random_seed(0)
    config = network.model(root)
    _drop_weights(config)
    model = MODELS.build(config)
    model.init_weights()
    return model


def _drop_weights(config: Any) -> None:
    """No published weights: there may be no network."""
    for key, value in list(config.items()):
        if key == 'init_cfg' and isinstance(value, dict) and value.get('type') == 'Pretrained':
            config[key] = None
        elif isinstance(value, dict):
            _drop_weights(value)


def _loss(model: Any, data: Data, dtype: str) -> float:
    """The loss in evaluation mode, where nothing is random."""
    device = next(model.parameters()).device.type
    model.eval()
    batch = model.data_preprocessor(copy.deepcopy(data), False)
    half = dtype != 'float32'
    with torch.no_grad(), torch.autocast(device, getattr(torch, dtype), enabled=half):
        losses = model(**batch, mode='loss')
    return model.parse_losses(losses)[0].item()


def _compare(report: Report, settings: Settings, name: str, network: Network, model: Any) -> None:
    data = network.images(2)
    expected = _loss(model, data, 'float32')
    moved = copy.deepcopy(model).to(settings.device)
    for dtype, bound in BOUNDS.items():
        if settings.small and dtype == 'float16':
            report.skip(f'{name}, loss in {dtype}', 'a CPU computes in bfloat16')
            continue
        gap = abs(_loss(moved, data, dtype) - expected) / abs(expected)
        report.check(f'{name}, loss in {dtype} against the CPU', gap, bound)
    if network.predicts:
        _predict(report, name, moved, data)


def _predict(report: Report, name: str, model: Any, data: Data) -> None:
    model.eval()
    model.test_cfg.score_thr = 0.0  # an untrained network is sure of nothing
    with torch.no_grad():
        found = model.test_step(copy.deepcopy(data))
    for sample in found:
        boxes, scores = sample.pred_instances.bboxes, sample.pred_instances.scores
        right = len(boxes) == model.test_cfg.max_per_img and bool(boxes.isfinite().all())
        report.holds(f'{name}, predictions', right, f'{len(boxes)} boxes, finite or not')
        report.holds(f'{name}, best first', bool((scores.diff() <= 0).all()), str(scores[:5]))


def _train(
    report: Report, settings: Settings, name: str, network: Network, model: Any, dtype: str
) -> None:
    """Some steps; the loss stays finite, and how many images a second they take."""
    from mmengine.optim import build_optim_wrapper

    label = f'{name}, training in {dtype}'
    if settings.small and dtype == 'float16':
        report.skip(label, 'a CPU computes in bfloat16')
        return
    model = copy.deepcopy(model).to(settings.device)
    model.train()
    wrapper: dict[str, Any] = {'optimizer': {'type': 'bocb_mm.AdamW', 'lr': 1e-5}}
    if dtype != 'float32':
        wrapper |= {'type': 'bocb_mm.AmpOptimWrapper', 'dtype': dtype}
    optim_wrapper = build_optim_wrapper(model, wrapper)
    batch = network.batch // (4 if _little_memory(settings.device) else 1)
    data = network.images(batch)
    losses, start = [], 0.0
    warm, steps = (1, 2) if settings.small else (3, 10)
    for i in range(warm + steps):
        if i == warm:
            _wait(settings.device)
            start = time.perf_counter()
        losses.append(model.train_step(copy.deepcopy(data), optim_wrapper)['loss'].detach())
    _wait(settings.device)
    speed = steps * batch / (time.perf_counter() - start)
    values = [loss.item() for loss in losses]
    report.holds(label, all(map(math.isfinite, values)), f'losses {values}')
    report.measure(f'{label}: images a second, batch {batch}', round(speed, 1))


def _little_memory(device: str) -> bool:
    """Whether ResNet-50 at batch 128 in float32 is too much for the GPU."""
    return device == 'cuda' and torch.cuda.get_device_properties(0).total_memory < 20 * 2**30


def _wait(device: str) -> None:
    if device == 'cuda':
        torch.cuda.synchronize()


def _classifier(backbone: str) -> Callable[[Path], Any]:
    def model(root: Path) -> Any:
        from mmengine.config import ConfigDict

        from bocb_mm.backbones import get_spec

        return ConfigDict(get_spec(backbone).classifier(1000))

    return model


def _model_of(config: str) -> Callable[[Path], Any]:
    def model(root: Path) -> Any:
        from bocb_mm.config.edit import load_config

        return load_config(root / 'configs' / config).model

    return model


def _labelled(size: int, classes: int) -> Callable[[int], Data]:
    def images(n: int) -> Data:
        from mmpretrain.structures import DataSample

        generator = torch.Generator().manual_seed(0)
        shape = (3, size, size)
        pixels = [
            torch.randint(256, shape, generator=generator, dtype=torch.uint8) for _ in range(n)
        ]
        samples = [DataSample().set_gt_label(i % classes) for i in range(n)]
        return {'inputs': pixels, 'data_samples': samples}

    return images


def _boxed(height: int, width: int, classes: int) -> Callable[[int], Data]:
    def images(n: int) -> Data:
        from mmdet.testing import demo_mm_inputs

        return demo_mm_inputs(n, [(3, height, width)] * n, num_items=[5] * n, num_classes=classes)

    return images


def _posed(height: int, width: int) -> Callable[[int], Data]:
    def images(n: int) -> Data:
        from mmpose.testing import get_packed_inputs

        return get_packed_inputs(
            n,
            img_shape=(height, width),
            input_size=(width, height),
            heatmap_size=(width // 4, height // 4),
        )

    return images


_LARGE = {
    'R-50': Network('mmpretrain', _classifier('R-50'), _labelled(224, 1000), 128),
    'DeiT-S': Network('mmpretrain', _classifier('DeiT-S'), _labelled(224, 1000), 128),
    'CNX-T': Network('mmpretrain', _classifier('CNX-T'), _labelled(224, 1000), 128),
    'RetinaNet': Network(
        'mmdet', _model_of('retinanet_r50_lars_pretrain.py'), _boxed(800, 1333, 80), 4, True
    ),
    'pose': Network('mmpose', _model_of('topdown_r50_sgd_pretrain.py'), _posed(256, 192), 64),
}
_SMALL = {
    'R-18-XS': Network(
        'mmpretrain', _model_of('quickstart/digits_r18-xs.py'), _labelled(32, 10), 8
    ),
    'RetinaNet': Network(
        'mmdet', _model_of('quickstart/retinanet_r18-xs.py'), _boxed(128, 128, 10), 2, True
    ),
    'pose': Network('mmpose', _model_of('quickstart/topdown_r18-xs.py'), _posed(128, 96), 4),
}
