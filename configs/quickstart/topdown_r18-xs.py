# Top-down pose on stick figures, 96x128: SimpleBaseline head (three deconvolutions), narrow.
_base_ = ['../_base_/datasets/stick_figures.py', '../_base_/runtime.py']
default_scope = 'mmpose'
model = dict(
    type='TopdownPoseEstimator',
    data_preprocessor=dict(
        type='PoseDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True
    ),
    backbone=dict(type='bocb_mm.R-18-XS', out_indices=(3,)),
    head=dict(
        type='HeatmapHead', in_channels=128, out_channels=17,
        deconv_out_channels=(64, 32, 32), deconv_kernel_sizes=(4, 4, 4),
        loss=dict(type='KeypointMSELoss', use_target_weight=True),
        decoder={{_base_.codec}},
    ),
    test_cfg=dict(flip_test=False),
)  # fmt: skip
max_epochs = 5
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=25),  # one epoch
    dict(type='CosineAnnealingLR', begin=1, end=max_epochs, convert_to_iter_based=True),
]
