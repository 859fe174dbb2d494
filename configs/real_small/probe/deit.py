# DeiT: 4 blocks of 64. Patches of 8 px, of which there are 16: with 4 px it would take four times as
# long.
_base_ = './resnet.py'
model = dict(
    backbone=dict(
        _delete_=True, type='mmpretrain.VisionTransformer', img_size=32, patch_size=8, qkv_bias=True,
        arch=dict(embed_dims=64, num_layers=4, num_heads=2, feedforward_channels=256),
    ),
    neck=None,  # the class token
    head=dict(in_channels=64),
)  # fmt: skip
default_hooks = dict(run_record=dict(backbone='DeiT-XS'))
