# EfficientNet: timm's smallest, inverted residuals as in MobileNetV2 in 5 stages. MobileNetV2 itself
# (17 blocks, widen_factor .25) has maps of one pixel and reaches 16 % here, whatever the optimizer.
_base_ = './resnet.py'
model = dict(
    _delete_=True, type='mmpretrain.TimmClassifier', model_name='test_efficientnet', num_classes=10,
    loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0),
)  # fmt: skip
default_hooks = dict(run_record=dict(backbone='Eff-XS'))
