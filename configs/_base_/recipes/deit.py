# Table A3, "DeiT / IN-1K": strong augmentation, AdamW 1e-3 / 0.05, cosine over 300 epochs after 5 of
# warm-up, smoothed cross-entropy, stochastic depth, EMA. Batch 1024: 8 processes x 128.
_base_ = [
    '../datasets/imagenet.py',
    'mmpretrain::_base_/default_runtime.py',
    '../hooks.py',
]
recipe = 'deit'
model = dict(
    backbone=dict(drop_path_rate=0.1),
    head=dict(loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
train_dataloader = dict(
    batch_size=128,
    sampler=dict(type='RepeatAugSampler'),
    dataset=dict(
        pipeline=[
            *_base_.crop_and_flip,
            dict(**_base_.rand_augment, magnitude_level=9),
            _base_.random_erasing,
            dict(type='PackInputs'),
        ]
    ),
)
val_dataloader = dict(
    batch_size=128,
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='ResizeEdge', scale=256, edge='short', **_base_.bicubic),  # 224 / 0.875
            dict(type='CenterCrop', crop_size=224),
            dict(type='PackInputs'),
        ]
    ),
)
test_dataloader = val_dataloader
optim_wrapper = dict(
    constructor='bocb_mm.OptimWrapperConstructor',
    optimizer=dict(type='bocb_mm.AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
)
# DeiT's ends of the schedule, 1e-6 and 1e-5, as parts of its rate: any optimizer's rate takes the
# same course.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-2, by_epoch=True, begin=5),
]
custom_hooks = [dict(type='EMAHook', momentum=4e-5, priority='ABOVE_NORMAL')]  # DeiT's 0.99996
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=1024)
env_cfg = dict(cudnn_benchmark=True)  # images of one size
default_hooks = {{_base_.bocb_hooks}}
