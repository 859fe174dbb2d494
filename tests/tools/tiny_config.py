"""A config that trains two iterations an epoch on a tiny ImageNet-style folder."""

from __future__ import annotations

from pathlib import Path

from tests.tiny_data import write_imagenet

TEXT = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(mean=[127.5] * 3, std=[64.0] * 3),
    backbone=dict(
        type='mmpretrain.ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8, norm_eval={norm_eval}),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=4, in_channels=64, topk=(1, 2),
              loss=dict(type='CrossEntropyLoss')))
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=32),
    dict(type='PackInputs')]
train_dataloader = dict(
    batch_size={batch_size}, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root={data!r}, data_prefix='train', pipeline=pipeline))
val_dataloader = dict(
    batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root={data!r}, data_prefix='val', pipeline=pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
train_cfg = dict(by_epoch=True, max_epochs=1, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='bocb_mm.SGD', lr=0.05, momentum=0.9, weight_decay=1e-4))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=1, by_epoch=True, convert_to_iter_based=True)]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='bocb_mm.SafeCheckpointHook', interval=1),
    divergence=dict(type='bocb_mm.DivergenceHook'),
    layer_metrics=dict(type='bocb_mm.LayerMetricsHook'),
    signals=dict(type='bocb_mm.SignalHook'))
log_level = 'WARNING'
"""


def write_tiny_config(folder: Path, batch_size: int = 8, norm_eval: bool = False) -> Path:
    """Write data and config into ``folder`` and return the config's path."""
    data = write_imagenet(folder / 'data', n_train=16, n_val=8, size=32)
    path = folder / 'tiny.py'
    path.write_text(TEXT.format(data=str(data), batch_size=batch_size, norm_eval=norm_eval))
    return path
