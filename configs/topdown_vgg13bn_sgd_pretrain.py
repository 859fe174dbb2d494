# Table 3, pose, "VGG (SGD)": top-down 256x192 from OpenMMLab's VGG-13-BN, which SGD pre-trained.
_base_ = './_base_/topdown_coco_256x192.py'
pretraining = 'SGD'
pretrained = 'mmpretrain://vgg13bn_8xb32_in1k'
pretrained_command = 'bocb dist configs/pretrain/imagenet/vgg-13_pytorch.py 8'
model = dict(
    backbone=dict(_delete_=True, type='bocb_mm.VGG-13', out_indices=(4,)),
    head=dict(in_channels=512),
)
