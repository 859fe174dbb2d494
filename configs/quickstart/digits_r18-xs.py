# Pre-training on scikit-learn's digits, classical network: ResNet-18 at a quarter of its width.
# One cosine cycle after a short warm-up; the rates are in bocb_mm/cli/quickstart.py, one per optimizer.
_base_ = ['../_base_/datasets/digits.py', '../_base_/runtime.py']
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='bocb_mm.R-18-XS'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=128),
)
max_epochs = 10
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=23),  # one epoch
    dict(type='CosineAnnealingLR', begin=1, end=max_epochs, convert_to_iter_based=True),
]
