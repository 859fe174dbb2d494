# topdown_vgg13bn_sgd_pretrain.py at 384x288.
_base_ = './_base_/topdown_coco_384x288.py'
pretraining = 'SGD'
pretrained = 'mmpretrain://vgg13bn_8xb32_in1k'
pretrained_command = 'bocb dist configs/pretrain/imagenet/vgg-13_pytorch.py 8'
model = dict(
    backbone=dict(_delete_=True, type='bocb_mm.VGG-13', out_indices=(4,)),
    head=dict(in_channels=512),
)
