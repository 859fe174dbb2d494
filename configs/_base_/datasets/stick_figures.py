# Stick figures with COCO's 17 keypoints, COCO keypoints JSON (bocb_mm.datasets.stick_figures).
dataset_name = 'figures'
dataset_type = 'CocoDataset'
data_root_variable = 'BOCB_DATA_ROOT'
data_command = 'python -m bocb_mm.datasets'
data_root = '{{$BOCB_DATA_ROOT:data}}/quickstart/figures/'
codec = dict(type='MSRAHeatmap', input_size=(96, 128), heatmap_size=(24, 32), sigma=1.5)

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='RandomFlip', direction='horizontal'),
    dict(type='RandomBBoxTransform', scale_factor=(0.8, 1.2), rotate_factor=30),
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
    batch_size=32,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type, data_root=data_root, data_mode='topdown',
        ann_file='annotations/train.json', data_prefix=dict(img='train/'),
        pipeline=train_pipeline,
    ),
)  # fmt: skip
# The boxes are the true ones: there is no person detector here.
val_dataloader = dict(
    batch_size=50,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type=dataset_type, data_root=data_root, data_mode='topdown', test_mode=True,
        ann_file='annotations/val.json', data_prefix=dict(img='val/'), pipeline=test_pipeline,
    ),
)  # fmt: skip
val_evaluator = dict(type='CocoMetric', ann_file=data_root + 'annotations/val.json')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
