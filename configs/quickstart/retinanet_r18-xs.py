# RetinaNet on scenes of digits, 128x128. mmdet's RetinaNet with a narrow pyramid and head.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/scenes.py',
    '../_base_/runtime.py',
]
default_scope = 'mmdet'
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # as in pre-training
    # Not frozen, and normalised by the batch: digits on black are far from scenes.
    backbone=dict(
        _delete_=True, type='bocb_mm.R-18-XS', out_indices=(2, 3), frozen_stages=-1,
        norm_eval=False,
    ),
    neck=dict(in_channels=[64, 128], out_channels=64, start_level=0, num_outs=2),
    bbox_head=dict(
        # One convolution: with a second one, which has no normalisation, AP50 was 0.67 instead of 0.78.
        num_classes=10, in_channels=64, feat_channels=64, stacked_convs=1,
        # Digits are 32 to 64 px high and about 1.6 times as high as wide: anchors of 24, 30, 38 px on
        # the finer map and 48, 60, 76 on the coarser.
        anchor_generator=dict(octave_base_scale=1.5, ratios=[1.0, 1.6], strides=[16, 32]),
    ),
    test_cfg=dict(max_per_img=30),  # a scene holds at most six digits
)  # fmt: skip
optim_wrapper = dict(clip_grad=dict(max_norm=1))
max_epochs = 6
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=100),  # one epoch
    dict(type='CosineAnnealingLR', begin=1, end=max_epochs, convert_to_iter_based=True),
]
