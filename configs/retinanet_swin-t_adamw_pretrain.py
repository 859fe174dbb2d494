# Table 3, detection, "Swin-T (AdamW)": RetinaNet 1x from OpenMMLab's Swin-T, which AdamW pre-trained.
# AdamW 1e-4 / 0.05 and stochastic depth 0.2 as Swin's authors detect; mmdet's
# retinanet_swin-t-p4-w7_fpn_1x_coco, whose maps these are, takes SGD 0.01.
_base_ = './_base_/retinanet_coco_1x.py'
pretraining = 'AdamW'
pretrained = 'mmpretrain://swin-tiny_16xb64_in1k'
pretrained_command = (
    'bocb dist configs/pretrain/imagenet/swin-t_convnext.py 8 '
    '--cfg-options optim_wrapper.accumulative_counts=4'
)
model = dict(
    backbone=dict(_delete_=True, type='bocb_mm.Swin-T', out_indices=(1, 2, 3), drop_path_rate=0.2),
    neck=dict(in_channels=[192, 384, 768], start_level=0),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='bocb_mm.AdamW', lr=1e-4, weight_decay=0.05)
)
