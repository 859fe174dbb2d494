# Table A3, "DeiT / CIFAR": the DeiT recipe on images enlarged to 224 x 224, batch 100, 200 epochs.
_base_ = [
    '../datasets/cifar100.py',
    'mmpretrain::_base_/default_runtime.py',
    '../hooks.py',
]
recipe = 'deit-cifar'
model = dict(
    backbone=dict(drop_path_rate=0.1),
    head=dict(loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
train_dataloader = dict(
    sampler=dict(type='RepeatAugSampler'),
    dataset=dict(
        pipeline=[
            *_base_.crop_and_flip_224,
            dict(**_base_.rand_augment, magnitude_level=9),
            _base_.random_erasing,
            dict(type='PackInputs'),
        ]
    ),
)
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline_224))
test_dataloader = val_dataloader
optim_wrapper = dict(
    constructor='bocb_mm.OptimWrapperConstructor',
    optimizer=dict(type='bocb_mm.AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-2, by_epoch=True, begin=5),
]
# Not DeiT's 0.99996: after the 100,000 iterations here 1.8 % of the weights at the start would still
# be in the mean (0.99996^100000); with 0.9999, ConvNeXt's, 0.005 % are.
custom_hooks = [dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL')]
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=100)
env_cfg = dict(cudnn_benchmark=True)  # images of one size
default_hooks = {{_base_.bocb_hooks}}
