# The search of docs/sweep.md, classical network: images of CIFAR-10 at their own 32 x 32, and as
# many iterations of 100 images as half a minute on one core allows.
_base_ = './cifar10_r18-xs.py'
pad_and_flip = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=100, dataset=dict(pipeline=pad_and_flip))
val_dataloader = dict(
    dataset=dict(pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')])
)
test_dataloader = val_dataloader
max_epochs = 2
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=20),
    dict(type='CosineAnnealingLR', T_max=180, by_epoch=False, begin=20, end=200),
]
default_hooks = dict(logger=dict(interval=100))
