# MogaNet: 1-1-1 blocks, 16 to 64 wide (its gates are slow on a processor), start as in the paper's Moga-S.
_base_ = './resnet.py'
model = dict(
    backbone=dict(
        _delete_=True, type='bocb_mm.backbones.moganet.MogaNet', channels=[16, 32, 64],
        depths=[1, 1, 1], mlp_ratios=[4, 4, 4], out_indices=[2],
    ),
    head=dict(in_channels=64),
)  # fmt: skip
default_hooks = dict(run_record=dict(backbone='Moga-XS'))
