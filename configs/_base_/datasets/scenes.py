# Scenes of digits on textured grounds, COCO detection JSON (bocb_mm.datasets.scenes).
dataset_name = 'scenes'
dataset_type = 'CocoDataset'
data_root_variable = 'BOCB_DATA_ROOT'
data_command = 'python -m bocb_mm.datasets'
data_root = '{{$BOCB_DATA_ROOT:data}}/quickstart/scenes/'
metainfo = dict(classes=tuple('0123456789'))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    # No flips: a mirrored digit is another sign. The scenes have the network's size already.
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    # CocoMetric scales boxes back by a factor that only a resizing step writes down.
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
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
        type=dataset_type, data_root=data_root, metainfo=metainfo,
        ann_file='annotations/train.json', data_prefix=dict(img='train/'),
        pipeline=train_pipeline,
    ),
)  # fmt: skip
val_dataloader = dict(
    batch_size=20,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type, data_root=data_root, metainfo=metainfo, test_mode=True,
        ann_file='annotations/val.json', data_prefix=dict(img='val/'), pipeline=test_pipeline,
    ),
)  # fmt: skip
val_evaluator = dict(type='CocoMetric', ann_file=data_root + 'annotations/val.json', metric='bbox')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
