# Table 3, detection, "R-50 (A2)": RetinaNet 1x from OpenMMLab's ResNet-50 of RSB A2 (300 epochs).
# AdamW 1e-4 / 0.05 is mmdet's setting for ResNets of RSB (retinanet_r50-rsb-pre_fpn_1x_coco).
_base_ = './_base_/retinanet_coco_1x.py'
pretraining = 'A2'
pretrained = 'mmpretrain://resnet50_8xb256-rsb-a2-300e_in1k'
pretrained_command = 'bocb dist configs/pretrain/imagenet/r-50_rsb-a2.py 8'
model = dict(backbone=dict(type='bocb_mm.R-50', init_cfg=None))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='bocb_mm.AdamW', lr=1e-4, weight_decay=0.05)
)
