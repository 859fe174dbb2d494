# Table A3, "PyTorch / IN-1K": random resized crop and flip only, SGD 0.1 / 0.9 / 1e-4, cosine over
# 100 epochs without warm-up, cross-entropy. Batch 256: 8 processes x 32.
_base_ = [
    '../datasets/imagenet.py',
    'mmpretrain::_base_/default_runtime.py',
    '../hooks.py',
]
recipe = 'pytorch'
model = dict(head=dict(loss=dict(type='CrossEntropyLoss')))
optim_wrapper = dict(
    constructor='bocb_mm.OptimWrapperConstructor',
    optimizer=dict(type='bocb_mm.SGD', lr=0.1, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True)]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=256)
env_cfg = dict(cudnn_benchmark=True)  # images of one size
default_hooks = {{_base_.bocb_hooks}}
