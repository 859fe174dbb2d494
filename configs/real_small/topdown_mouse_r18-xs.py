# Top-down pose of a mouse seen from above (4 keypoints), SimpleBaseline head, 128x128.
_base_ = '../_base_/runtime.py'
default_scope = 'mmpose'
dataset_name = 'mouse'
data_root_variable = 'BOCB_REAL_DATA'
data_root = '{{$BOCB_REAL_DATA:../shared/data}}/mouse_pose/'
metainfo = dict(from_file=data_root + 'metainfo.py')
codec = dict(type='MSRAHeatmap', input_size=(128, 128), heatmap_size=(32, 32), sigma=2)
model = dict(
    type='TopdownPoseEstimator',
    data_preprocessor=dict(
        type='PoseDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(type='bocb_mm.R-18-XS', out_indices=(3,)),
    head=dict(
        type='HeatmapHead', in_channels=128, out_channels=4,
        deconv_out_channels=(64, 64, 64), deconv_kernel_sizes=(4, 4, 4),
        loss=dict(type='KeypointMSELoss', use_target_weight=True),
        decoder=codec,
    ),
    test_cfg=dict(flip_test=False),
)  # fmt: skip
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='RandomFlip', direction='horizontal'),
    dict(type='RandomBBoxTransform', scale_factor=(0.8, 1.2), rotate_factor=60),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset', data_root=data_root, data_mode='topdown', metainfo=metainfo,
        ann_file='annotations/train.json', data_prefix=dict(img='images/'),
        pipeline=train_pipeline,
    ),
)  # fmt: skip
val_dataloader = dict(
    batch_size=24,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='CocoDataset', data_root=data_root, data_mode='topdown', metainfo=metainfo,
        test_mode=True, ann_file='annotations/val.json', data_prefix=dict(img='images/'),
        pipeline=test_pipeline,
    ),
)  # fmt: skip
val_evaluator = dict(type='CocoMetric', ann_file=data_root + 'annotations/val.json')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
max_epochs = 60
train_cfg = dict(max_epochs=max_epochs, val_interval=20)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=30),  # five epochs
    dict(type='CosineAnnealingLR', begin=5, end=max_epochs, convert_to_iter_based=True),
]
