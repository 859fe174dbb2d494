# RetinaNet on BCCD (red cells, white cells, platelets), images at three quarters of their size.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/runtime.py',
]
default_scope = 'mmdet'
dataset_name = 'bccd'
data_root_variable = 'BOCB_REAL_DATA'
data_root = '{{$BOCB_REAL_DATA:../shared/data}}/bccd/'
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'))
model = dict(
    # Not frozen, and normalised by the batch: blood cells are far from CIFAR.
    backbone=dict(
        _delete_=True, type='bocb_mm.R-18-XS', out_indices=(1, 2, 3), frozen_stages=-1,
        norm_eval=False,
    ),
    neck=dict(in_channels=[32, 64, 128], out_channels=64, start_level=0, num_outs=4),
    bbox_head=dict(
        num_classes=3, in_channels=64, feat_channels=64, stacked_convs=2,
        # Platelets are about 15 px wide, red cells 40, white cells 80 and more; all are round.
        anchor_generator=dict(octave_base_scale=2, ratios=[1.0], strides=[8, 16, 32, 64]),
    ),
)  # fmt: skip
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(240, 180), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5, direction=['horizontal', 'vertical']),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(240, 180), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset', data_root=data_root, metainfo=metainfo,
        ann_file='annotations/train.json', data_prefix=dict(img='images/'),
        pipeline=train_pipeline,
    ),
)  # fmt: skip
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset', data_root=data_root, metainfo=metainfo, test_mode=True,
        ann_file='annotations/val.json', data_prefix=dict(img='images/'), pipeline=test_pipeline,
    ),
)  # fmt: skip
val_evaluator = dict(type='CocoMetric', ann_file=data_root + 'annotations/val.json', metric='bbox')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=10))
max_epochs = 10
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=37),  # one epoch
    dict(type='CosineAnnealingLR', begin=1, end=max_epochs, convert_to_iter_based=True),
]
