# scikit-learn's digits as class folders, written by bocb_mm.datasets (prepare_quickstart).
dataset_name = 'digits'
dataset_type = 'CustomDataset'
data_root_variable = 'BOCB_DATA_ROOT'
data_command = 'python -m bocb_mm.datasets'
data_root = '{{$BOCB_DATA_ROOT:data}}/quickstart/digits/'
data_preprocessor = dict(num_classes=10, mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    # Digits of several sizes and colours on textures wait in the detection scenes. No flips: a
    # mirrored digit is another sign.
    dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.5, 1.0)),
    dict(type='Rotate', angle=12.0, prob=0.5, pad_val=0),
    dict(type='bocb_mm.OnTexture', prob=0.7),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]

# No worker processes: a image takes well under a millisecond, handing it over takes longer.
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type=dataset_type, data_root=data_root, data_prefix='train', with_label=True,
        pipeline=train_pipeline,
    ),
)  # fmt: skip
val_dataloader = dict(
    batch_size=256,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type=dataset_type, data_root=data_root, data_prefix='val', with_label=True,
        pipeline=test_pipeline,
    ),
)  # fmt: skip
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
