# Table A3, "PyTorch" on CIFAR-100: random crop and flip only, SGD 0.1 / 0.9 / 1e-4, cosine over 200
# epochs without warm-up, batch 100, cross-entropy, pictures of 32 x 32.
_base_ = [
    'mmpretrain::_base_/datasets/cifar100_bs16.py',
    'mmpretrain::_base_/default_runtime.py',
    '../hooks.py',
]
recipe = 'pytorch-cifar'
gamma = 3  # threshold of eq. 1 on CIFAR-100 (A.1)
data_root_variable = 'BOCB_DATA_ROOT'
data_root = '{{$BOCB_DATA_ROOT:data}}/cifar100'
train_dataloader = dict(batch_size=100, dataset=dict(data_root=data_root))
val_dataloader = dict(batch_size=100, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
optim_wrapper = dict(
    constructor='bocb_mm.OptimWrapperConstructor',
    optimizer=dict(type='bocb_mm.SGD', lr=0.1, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = dict(type='CosineAnnealingLR', T_max=200, by_epoch=True)
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=100)
default_hooks = {{_base_.bocb_hooks}}
