# The search of docs/sweep.md, modern network: a ConvNeXt of 1-1-2-1 blocks, 24 to 192 wide; half
# of CNX-XS, because depthwise convolutions are slow on a processor.
_base_ = './search_resnet.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ConvNeXt',
        arch=dict(depths=[1, 1, 2, 1], channels=[24, 48, 96, 192]),
    ),
    neck=None,  # the network pools by itself
    head=dict(in_channels=192),
)
default_hooks = dict(run_record=dict(backbone='CNX-XXS'))
