# Table 1, R-50: ResNet-50 in its CIFAR form (32 x 32), PyTorch recipe.
_base_ = '../../_base_/recipes/pytorch_cifar.py'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='bocb_mm.R-50', cifar=True),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=100,
        in_channels=2048,
        topk=(1, 5),
        loss=dict(type='CrossEntropyLoss'),
    ),
)
