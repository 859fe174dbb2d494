"""Stock configs of toolboxes beyond the three, on tiny generated data: what changes, and what not.

Only what a test without a network or a GPU must change is changed: where the data lie, their size,
the length of the training, and weights that would be downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 64


@dataclass(frozen=True)
class Stock:
    """A stock config, how its data are made, and what the record of its training must say."""

    config: str
    write: Callable[[Path], None]
    shrink: Callable[[Any, Path], None]
    ours: Callable[[Any], None]
    task: str
    dataset: str
    backbone: str
    metric: str


def write_cityscapes(root: Path) -> None:
    """Cityscapes' folders: a rectangle of class i mod 3 on class 8."""
    import cv2

    rng = np.random.default_rng(0)
    for split, n in (('train', 4), ('val', 2)):
        images, labels = (root / kind / split for kind in ('leftImg8bit', 'gtFine'))
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for i in range(n):
            image = rng.integers(90, 160, (SIZE, SIZE, 3), dtype=np.uint8)
            label = np.full((SIZE, SIZE), 8, np.uint8)
            label[16:48, 16:48] = i % 3
            image[16:48, 16:48, i % 3] = 255
            cv2.imwrite(str(images / f'{i}_leftImg8bit.png'), image)
            cv2.imwrite(str(labels / f'{i}_gtFine_labelTrainIds.png'), label)


def shrink_cityscapes(cfg: Any, root: Path) -> None:
    size = (SIZE, SIZE)
    cfg.model.data_preprocessor.size = size
    for name in ('train', 'val', 'test'):
        dataset = cfg[f'{name}_dataloader'].dataset
        dataset.data_root = str(root)
        for step in dataset.pipeline:
            if 'Resize' in step['type']:
                step['scale'] = size
            elif step['type'] == 'RandomCrop':
                step['crop_size'] = size
    cfg.train_cfg.update(max_iters=4, val_interval=2)
    cfg.default_hooks.logger.interval = 1


def our_segmentor(cfg: Any) -> None:
    """CNX-XS under the stock head: its type and its channels, nothing else."""
    from bocb_mm.backbones import get_spec

    channels = list(get_spec('CNX-XS').channels)
    cfg.model.backbone = dict(type='bocb_mm.CNX-XS')
    cfg.model.decode_head.in_channels = channels[3]
    cfg.model.auxiliary_head.in_channels = channels[2]


def write_videos(root: Path) -> None:
    """Videos of nine frames, class = colour, and their list as Kinetics has it."""
    import cv2

    rng = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(6):
        out = cv2.VideoWriter(str(root / f'{i}.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 5, (80, 64))
        assert out.isOpened()
        for _ in range(9):
            frame = rng.integers(90, 160, (64, 80, 3), dtype=np.uint8)
            frame[16:48, 16:64, i % 3] = 255
            out.write(frame)
        out.release()
        lines.append(f'{i}.mp4 {i % 3}')
    (root / 'list.txt').write_text('\n'.join(lines) + '\n')


def shrink_videos(cfg: Any, root: Path) -> None:
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        loader.batch_size = 2
        loader.dataset.update(ann_file=str(root / 'list.txt'), data_prefix=dict(video=str(root)))
        for step in loader.dataset.pipeline:
            if step['type'] == 'Resize':
                step['scale'] = (SIZE, SIZE) if step['scale'] == (224, 224) else (-1, SIZE)
            elif 'Crop' in step['type']:
                step['input_size' if 'input_size' in step else 'crop_size'] = SIZE
    cfg.train_cfg.max_epochs = 2
    cfg.default_hooks.logger.interval = 1


def our_recognizer(cfg: Any) -> None:
    """CNX-XS as mmaction takes mmpretrain's networks: one map, and the scope of mmpretrain before it."""
    from bocb_mm.backbones import get_spec

    cfg.model.backbone = dict(type='mmpretrain.bocb_mm.CNX-XS', out_indices=(3,))
    cfg.model.cls_head.in_channels = get_spec('CNX-XS').channels[3]


STOCK = {
    'mmseg': Stock(
        'fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py', write_cityscapes, shrink_cityscapes,
        our_segmentor, 'segmentation', 'cityscapes', 'ResNetV1c-18', 'mIoU',
    ),
    'mmaction': Stock(
        'recognition/tsn/tsn_imagenet-pretrained-r50_8xb32-1x1x3-100e_kinetics400-rgb.py',
        write_videos, shrink_videos, our_recognizer,
        'action recognition', 'video', 'R-50', 'acc/top1',
    ),
}  # fmt: skip
