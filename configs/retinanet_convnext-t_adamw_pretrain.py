# Table 3, detection, "CNX-T (AdamW)": RetinaNet 1x from OpenMMLab's ConvNeXt-T, which AdamW pre-trained.
# AdamW 1e-4 / 0.05 is mmdet's for ConvNeXt (mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco);
# stochastic depth as Swin-T's, since its 0.4 belongs to a schedule three times as long.
_base_ = './_base_/retinanet_coco_1x.py'
pretraining = 'AdamW'
pretrained = 'mmpretrain://convnext-tiny_32xb128_in1k'
pretrained_command = (
    'bocb dist configs/pretrain/imagenet/cnx-t_convnext.py 8 '
    '--cfg-options optim_wrapper.accumulative_counts=4'
)
model = dict(
    backbone=dict(_delete_=True, type='bocb_mm.CNX-T', out_indices=(1, 2, 3), drop_path_rate=0.2),
    neck=dict(in_channels=[192, 384, 768], start_level=0),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='bocb_mm.AdamW', lr=1e-4, weight_decay=0.05)
)
