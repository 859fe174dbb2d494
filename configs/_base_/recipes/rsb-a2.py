# Table A3, "RSB A2 / IN-1K" (ResNet strikes back, arXiv 2110.00476): LAMB 5e-3 / 0.02, cosine over 300
# epochs after 5 of warm-up, binary cross-entropy. Batch 2048: 8 processes x 256.
_base_ = [
    '../datasets/imagenet.py',
    'mmpretrain::_base_/default_runtime.py',
    '../hooks.py',
]
recipe = 'rsb-a2'
model = dict(
    backbone=dict(drop_path_rate=0.05),
    head=dict(loss=dict(type='CrossEntropyLoss', use_sigmoid=True)),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.1), dict(type='CutMix', alpha=1.0)]),
)
train_dataloader = dict(
    batch_size=256,
    sampler=dict(type='RepeatAugSampler'),
    dataset=dict(
        pipeline=[
            *_base_.crop_and_flip,
            dict(**_base_.rand_augment, magnitude_level=7),
            dict(type='PackInputs'),
        ]
    ),
)
val_dataloader = dict(
    batch_size=256,
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='ResizeEdge', scale=236, edge='short', **_base_.bicubic),  # 224 / 0.95
            dict(type='CenterCrop', crop_size=224),
            dict(type='PackInputs'),
        ]
    ),
)
test_dataloader = val_dataloader
optim_wrapper = dict(
    constructor='bocb_mm.OptimWrapperConstructor',
    optimizer=dict(type='bocb_mm.LAMB', lr=5e-3, betas=(0.9, 0.999), weight_decay=0.02),
)
# RSB's ends of the schedule as mmpretrain has them, the lower one (1e-6) as part of the rate.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=2e-4, by_epoch=True, begin=5),
]
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=2048)
env_cfg = dict(cudnn_benchmark=True)  # images of one size
default_hooks = {{_base_.bocb_hooks}}
