# VGG: 8 plain 3x3 convolutions, no shortcuts and, as in the first VGG, no batch norm; a quarter of its
# width, strides in place of pooling (a RepVGG whose branches are merged is just that).
_base_ = './resnet.py'
model = dict(
    backbone=dict(
        _delete_=True, type='mmpretrain.RepVGG', deploy=True,
        arch=dict(
            num_blocks=[1, 2, 2, 2], width_factor=[0.25, 0.25, 0.25, 0.25], stem_channels=16,
            group_layer_map=None, se_cfg=None,
        ),
    ),
    head=dict(in_channels=128),
)  # fmt: skip
default_hooks = dict(run_record=dict(backbone='VGG-XS'))
