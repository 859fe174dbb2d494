"""Stock configs of the toolboxes on tiny generated data: what changes, and what not.

Only what a test without a network or a GPU must change is changed: where the data lie, sizes of
images and batches, the length of the training, downloads, and steps that need another package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny_data import write_coco, write_imagenet

SIDE = 64


@dataclass(frozen=True)
class Stock:
    """A stock config, how its data are made, and what the record of its training must say.

    ``shrink`` makes the config small, ``ours`` puts a backbone of this package in.
    """

    config: str
    write: Callable[[Path], Any]
    shrink: Callable[[Any, Path], None]
    task: str
    dataset: str
    backbone: str
    metric: str
    ours: Callable[[Any], None] | None = None

    @property
    def toolbox(self) -> str:
        return self.config.partition('::')[0]


def parts(tree: Any) -> Iterator[Any]:
    """Every dict at any depth."""
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, (list, tuple)):
        for branch in tree:
            yield from parts(branch)


def at(root: Path, tree: Any, old: str = 'data/coco/') -> None:
    """Let every path below ``old`` lie below ``root``."""
    for part in parts([value for _, value in tree.items()]):
        for key, value in part.items():
            if isinstance(value, str) and value.startswith(old):
                part[key] = f'{root}/{value.removeprefix(old)}'


def short(cfg: Any, batch_size: int = 2) -> None:
    """Two epochs, evaluated each."""
    cfg.train_dataloader.batch_size = batch_size
    cfg.train_cfg.update(max_epochs=2, val_interval=1)


def write_cityscapes(root: Path) -> None:
    """Cityscapes' folders: a rectangle of class i mod 3 on class 8."""
    import cv2

    rng = np.random.default_rng(0)
    for split, n in (('train', 4), ('val', 2)):
        images, labels = (root / kind / split for kind in ('leftImg8bit', 'gtFine'))
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for i in range(n):
            image = rng.integers(90, 160, (SIDE, SIDE, 3), dtype=np.uint8)
            label = np.full((SIDE, SIDE), 8, np.uint8)
            label[16:48, 16:48] = i % 3
            image[16:48, 16:48, i % 3] = 255
            cv2.imwrite(str(images / f'{i}_leftImg8bit.png'), image)
            cv2.imwrite(str(labels / f'{i}_gtFine_labelTrainIds.png'), label)


def small_segmentor(cfg: Any, root: Path) -> None:
    size = (SIDE, SIDE)
    cfg.model.data_preprocessor.size = size
    at(root, cfg, 'data/cityscapes/')
    for step in parts([cfg[f'{name}_dataloader'].dataset.pipeline for name in ('train', 'val')]):
        if 'Resize' in step['type']:
            step['scale'] = size
        elif step['type'] == 'RandomCrop':
            step['crop_size'] = size
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.update(max_iters=4, val_interval=2)


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


def small_recognizer(cfg: Any, root: Path) -> None:
    for name in ('train', 'val', 'test'):
        dataset = cfg[f'{name}_dataloader'].dataset
        dataset.update(ann_file=str(root / 'list.txt'), data_prefix=dict(video=str(root)))
        for step in dataset.pipeline:
            if step['type'] == 'Resize':
                step['scale'] = (SIDE, SIDE) if step['scale'] == (224, 224) else (-1, SIDE)
            elif 'Crop' in step['type']:
                step['input_size' if 'input_size' in step else 'crop_size'] = SIDE
    short(cfg)


def our_recognizer(cfg: Any) -> None:
    """CNX-XS as mmaction takes mmpretrain's networks: one map, and mmpretrain's scope before it."""
    from bocb_mm.backbones import get_spec

    cfg.model.backbone = dict(type='mmpretrain.bocb_mm.CNX-XS', out_indices=(3,))
    cfg.model.cls_head.in_channels = get_spec('CNX-XS').channels[3]


def small_detector(cfg: Any, root: Path) -> None:
    at(root, cfg)
    side = 2 * SIDE
    for step in parts([cfg.train_dataloader, cfg.val_dataloader, cfg.get('custom_hooks', [])]):
        for key in ('scale', 'img_scale', 'crop_size', 'size', 'scales'):
            if key in step:
                step[key] = [(side, side)] if key == 'scales' else (side, side)
        if 'border' in step:  # YOLOv5RandomAffine cuts its mosaic back to the image
            step['border'] = (-side // 2, -side // 2)
        if 'switch_epoch' in step:
            step['switch_epoch'] = 1
        if 'pipeline' in step:
            step['pipeline'] = [s for s in step['pipeline'] if s['type'] != 'mmdet.Albu']
    for part in parts(cfg.model):  # some detection from the first evaluation on
        if 'score_thr' in part:
            part['score_thr'] = 0.0
    short(cfg)


def small_pose(cfg: Any, root: Path) -> None:
    at(root, cfg)
    for part in parts([cfg.train_dataloader, cfg.get('custom_hooks', [])]):
        for key in ('pipeline', 'switch_pipeline'):
            if key in part:
                part[key] = [s for s in part[key] if s['type'] != 'Albumentation']
        if 'switch_epoch' in part:
            part['switch_epoch'] = 1
    short(cfg)


def small_classifier(cfg: Any, root: Path) -> None:
    for name in ('train', 'val'):
        dataset = cfg[f'{name}_dataloader'].dataset
        dataset.update(data_root=str(root), ann_file=f'meta/{name}.txt', data_prefix=name)
    if cfg.model.backbone.type == 'VisionTransformer':  # 86 million parameters
        cfg.model.backbone.arch, cfg.model.head.in_channels = 'deit-tiny', 192
    cfg.model.backbone.pop('init_cfg', None)
    short(cfg, 8)


def write_coco_80(root: Path) -> None:
    """Tiny COCO whose files name all 80 classes, so that any of a stock head's can be predicted."""
    import json

    from mmdet.datasets import CocoDataset

    write_coco(root, n_train=4, n_val=2)
    for file in root.glob('annotations/instances_*.json'):
        content = json.loads(file.read_text())
        named = {c['name'] for c in content['categories']}
        rest = [name for name in CocoDataset.METAINFO['classes'] if name not in named]
        content['categories'] += [{'id': 200 + i, 'name': name} for i, name in enumerate(rest)]
        file.write_text(json.dumps(content))


COCO = dict(write=write_coco_80)
DETECTION = dict(
    **COCO, shrink=small_detector, task='detection', dataset='coco', metric='coco/bbox_mAP'
)
POSE = dict(**COCO, shrink=small_pose, task='pose', dataset='coco', metric='coco/AP')
IMAGES = dict(
    write=write_imagenet, shrink=small_classifier, task='classification', dataset='imagenet',
    metric='accuracy/top1',
)  # fmt: skip
_POSE_FOLDER = 'mmpose::body_2d_keypoint/'

STOCK = {
    'FCN': Stock(
        'mmseg::fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py',
        write_cityscapes, small_segmentor, 'segmentation', 'cityscapes', 'ResNetV1c-18', 'mIoU',
        our_segmentor,
    ),
    'TSN': Stock(
        'mmaction::recognition/tsn/tsn_imagenet-pretrained-r50_8xb32-1x1x3-100e_kinetics400-rgb.py',
        write_videos, small_recognizer, 'action recognition', 'video', 'R-50', 'acc/top1',
        our_recognizer,
    ),
    'YOLOv5': Stock(
        'mmyolo::yolov5/yolov5_n-v61_syncbn_fast_8xb16-300e_coco.py',
        backbone='YOLOv5CSPDarknet', **(DETECTION | dict(dataset='yolov5coco')),
    ),
    'RetinaNet': Stock('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', backbone='R-18', **DETECTION),
    'Faster R-CNN': Stock('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', backbone='R-50', **DETECTION),
    'RTMDet': Stock('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', backbone='CSPNeXt-P5', **DETECTION),
    'DETR': Stock('mmdet::detr/detr_r50_8xb2-150e_coco.py', backbone='R-50', **DETECTION),
    'RTMPose': Stock(
        f'{_POSE_FOLDER}rtmpose/coco/rtmpose-t_8xb256-420e_coco-256x192.py', backbone='CSPNeXt-P5', **POSE
    ),
    'heatmap': Stock(
        f'{_POSE_FOLDER}topdown_heatmap/coco/td-hm_shufflenetv2_8xb64-210e_coco-256x192.py',
        backbone='ShuffleNetV2', **POSE,
    ),
    'R-18': Stock('mmpretrain::resnet/resnet18_8xb32_in1k.py', backbone='R-18', **IMAGES),
    'ViT': Stock(
        'mmpretrain::mae/benchmarks/vit-base-p16_8xb128-coslr-100e_in1k.py',
        backbone='VisionTransformer-deit-tiny', **IMAGES,
    ),
}  # fmt: skip
