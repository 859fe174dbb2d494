# Table 3, detection, "R-50 (Adan)": RetinaNet 1x from a ResNet-50 that Adan pre-trained by RSB A2's
# recipe (300 epochs). Nobody published one: the command makes it.
# AdamW 1e-4 / 0.05 is mmdet's setting for ResNets of RSB (retinanet_r50-rsb-pre_fpn_1x_coco).
_base_ = './_base_/retinanet_coco_1x.py'
pretraining = 'Adan'
pretrained = 'work_dirs/r-50_rsb-a2_adan/Adan/lr0.015_wd0.02_seed0/epoch_300.pth'
pretrained_command = 'bocb dist configs/pretrain/imagenet/r-50_rsb-a2_adan.py 8'
model = dict(backbone=dict(type='bocb_mm.R-50', init_cfg=None))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='bocb_mm.AdamW', lr=1e-4, weight_decay=0.05)
)
