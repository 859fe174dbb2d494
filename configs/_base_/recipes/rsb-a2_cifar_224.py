# Table A3, "RSB A2 / CIFAR": the A2 recipe on images enlarged to 224 x 224, batch 100, 200 epochs.
_base_ = [
    '../datasets/cifar100.py',
    'mmpretrain::_base_/default_runtime.py',
    '../hooks.py',
]
recipe = 'rsb-a2-cifar'
model = dict(
    backbone=dict(drop_path_rate=0.05),
    head=dict(loss=dict(type='CrossEntropyLoss', use_sigmoid=True)),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.1), dict(type='CutMix', alpha=1.0)]),
)
train_dataloader = dict(
    sampler=dict(type='RepeatAugSampler'),
    dataset=dict(
        pipeline=[
            *_base_.crop_and_flip_224,
            dict(**_base_.rand_augment, magnitude_level=7),
            dict(type='PackInputs'),
        ]
    ),
)
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline_224))
test_dataloader = val_dataloader
optim_wrapper = dict(
    constructor='bocb_mm.OptimWrapperConstructor',
    optimizer=dict(type='bocb_mm.LAMB', lr=5e-3, betas=(0.9, 0.999), weight_decay=0.02),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=2e-4, by_epoch=True, begin=5),
]
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=100)
env_cfg = dict(cudnn_benchmark=True)  # images of one size
default_hooks = {{_base_.bocb_hooks}}
