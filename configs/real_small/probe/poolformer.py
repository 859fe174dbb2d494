# PoolFormer, a MetaFormer: 1-1-2-1 blocks, 16 to 128 wide; layer scale as in its small ones.
_base_ = './resnet.py'
model = dict(
    backbone=dict(
        _delete_=True, type='mmpretrain.PoolFormer',
        arch=dict(
            layers=[1, 1, 2, 1], embed_dims=[16, 32, 64, 128], mlp_ratios=[4, 4, 4, 4],
            layer_scale_init_value=1e-5,
        ),
    ),
    head=dict(in_channels=128),
)  # fmt: skip
default_hooks = dict(run_record=dict(backbone='PF-XS'))
