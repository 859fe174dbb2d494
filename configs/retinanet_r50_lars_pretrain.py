# Table 3, detection, "R-50 (LARS)": RetinaNet 1x from a ResNet-50 that LARS pre-trained (100 epochs).
# Nobody published one: the command makes it.
_base_ = './_base_/retinanet_coco_1x.py'
pretraining = 'LARS'
pretrained = 'work_dirs/r-50_pytorch_lars/LARS/lr1_wd0.0001_seed0/epoch_100.pth'
pretrained_command = 'bocb dist configs/pretrain/imagenet/r-50_pytorch_lars.py 8'
model = dict(backbone=dict(type='bocb_mm.R-50', init_cfg=None))
