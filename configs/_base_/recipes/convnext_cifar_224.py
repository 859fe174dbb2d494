# The ConvNeXt recipe on CIFAR at 224 x 224, for the networks that Table A1 trains at that size: as
# DeiT's there, with a warm-up of 20 epochs and no clipping.
_base_ = './deit_cifar_224.py'
recipe = 'convnext-cifar'
optim_wrapper = dict(clip_grad=None)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=2.5e-4, by_epoch=True, begin=20),
]
