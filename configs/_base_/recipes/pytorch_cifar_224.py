# Table A3, "PyTorch / CIFAR": random resized crop and flip only, SGD 0.1 / 0.9 / 1e-4, cosine over
# 200 epochs without warm-up, cross-entropy.
_base_ = [
    '../datasets/cifar100.py',
    'mmpretrain::_base_/default_runtime.py',
    '../hooks.py',
]
recipe = 'pytorch-cifar'
model = dict(head=dict(loss=dict(type='CrossEntropyLoss')))
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.crop_and_flip_224, dict(type='PackInputs')]),
)
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline_224))
test_dataloader = val_dataloader
optim_wrapper = dict(
    constructor='bocb_mm.OptimWrapperConstructor',
    optimizer=dict(type='bocb_mm.SGD', lr=0.1, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True)]
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=100)
env_cfg = dict(cudnn_benchmark=True)  # images of one size
default_hooks = {{_base_.bocb_hooks}}
