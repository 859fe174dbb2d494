# Where random erasing and CIFAR's cubic upsampling run: 'worker' or 'device' (docs/configs.md).
augment_on = 'worker'
# What the recipes of DeiT, ConvNeXt and RSB choose from, but for the colours that a data set fills with.
rand_augment = dict(
    type='RandAugment',
    policies='timm_increasing',
    num_policies=2,
    total_level=10,
    magnitude_std=0.5,
    hparams=dict(interpolation='bicubic'),
)
random_erasing = dict(
    type='RandomErasing', erase_prob=0.25, mode='rand', min_area_ratio=0.02, max_area_ratio=1 / 3
)
