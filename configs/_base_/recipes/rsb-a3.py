# Table A3, "RSB A3 / IN-1K": A2 for 100 epochs on images of 160 x 160 (tested at 224), with rate
# 8e-3, RandAugment 6 and neither repeated augmentation nor stochastic depth. mmpretrain 1.2.0's config
# of that name trains at 224.
_base_ = './rsb-a2.py'
recipe = 'rsb-a3'
model = dict(backbone=dict(drop_path_rate=0.0))
train_dataloader = dict(
    sampler=dict(type='DefaultSampler'),
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomResizedCrop', scale=160, **_base_.bicubic),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(**_base_.rand_augment, magnitude_level=6),
            dict(type='PackInputs'),
        ]
    ),
)
optim_wrapper = dict(optimizer=dict(lr=8e-3))
train_cfg = dict(max_epochs=100)
