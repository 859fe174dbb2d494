# ConvNeXt: 1-1-2-1 blocks, 16 to 128 wide: two thirds of the one in the search of docs/sweep.md, as
# depthwise convolutions are slow on a processor.
_base_ = './resnet.py'
model = dict(
    backbone=dict(
        _delete_=True, type='mmpretrain.ConvNeXt',
        arch=dict(depths=[1, 1, 2, 1], channels=[16, 32, 64, 128]),
    ),
    neck=None,  # the network pools by itself
    head=dict(in_channels=128),
)  # fmt: skip
default_hooks = dict(run_record=dict(backbone='CNX-3XS'))
