# Table 3, pose, "R-50 (SGD)": top-down 256x192 from torchvision's ResNet-50, which SGD pre-trained.
_base_ = './_base_/topdown_coco_256x192.py'
pretraining = 'SGD'
pretrained = 'torchvision://resnet50'
pretrained_command = 'bocb dist configs/pretrain/imagenet/r-50_pytorch.py 8'
model = dict(backbone=dict(_delete_=True, type='bocb_mm.R-50', out_indices=(3,)))
