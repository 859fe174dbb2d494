# The ConvNeXt setting on ImageNet-1K, for the pre-trainings of Swin-T and ConvNeXt-T. Table A3 has its
# CIFAR column only: its ingredients, with the size, crop and batch of ImageNet. AdamW 4e-3 / 0.05 at
# batch 4096 over 300 epochs is ConvNeXt's own and mmpretrain's (convnext-tiny_32xb128_in1k).
# Batch 4096: 32 processes x 128; with 8, let optim_wrapper.accumulative_counts be 4.
_base_ = './deit.py'
recipe = 'convnext'
optim_wrapper = dict(optimizer=dict(lr=4e-3), clip_grad=None)
# The ends of the schedule: mmpretrain's start, ConvNeXt's 1e-6 as part of its rate.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=2.5e-4, by_epoch=True, begin=20),
]
custom_hooks = [dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL')]  # 0.9999
auto_scale_lr = dict(base_batch_size=4096)
