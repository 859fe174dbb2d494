# The pre-training behind Table 3's "R-50 (LARS)": ResNet-50, 100 epochs of the PyTorch recipe, LARS.
_base_ = '../../_base_/recipes/pytorch.py'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='bocb_mm.R-50'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=2048,
        topk=(1, 5),
        loss=dict(type='CrossEntropyLoss'),
    ),
)
# The catalog's default of LARS for this recipe, extrapolated from SGD (docs/optimizers.md).
optim_wrapper = dict(optimizer=dict(type='bocb_mm.LARS', lr=1.0, momentum=0.9, weight_decay=1e-4))
