# Table 3, detection, "R-50 (SGD)": RetinaNet 1x from torchvision's ResNet-50, which SGD pre-trained.
_base_ = './_base_/retinanet_coco_1x.py'
pretraining = 'SGD'
pretrained = 'torchvision://resnet50'
pretrained_command = 'bocb dist configs/pretrain/imagenet/r-50_pytorch.py 8'
model = dict(backbone=dict(type='bocb_mm.R-50', init_cfg=None))
