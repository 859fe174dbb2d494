# topdown_r50_sgd_pretrain.py at 384x288.
_base_ = './_base_/topdown_coco_384x288.py'
pretraining = 'SGD'
pretrained = 'torchvision://resnet50'
pretrained_command = 'bocb dist configs/pretrain/imagenet/r-50_pytorch.py 8'
model = dict(backbone=dict(_delete_=True, type='bocb_mm.R-50', out_indices=(3,)))
