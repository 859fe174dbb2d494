# Pre-training on scikit-learn's digits, modern network: a ConvNeXt of 2-2-4-2 blocks, 24 to 192 wide.
_base_ = './digits_r18-xs.py'
model = dict(
    backbone=dict(_delete_=True, type='bocb_mm.CNX-XS'),
    head=dict(in_channels=192),
)
max_epochs = 12  # 10 are enough for the ResNet, not for this one (AdamW: 88.5 %)
train_cfg = dict(max_epochs=max_epochs, val_interval=6)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=23),  # one epoch
    dict(type='CosineAnnealingLR', begin=1, end=max_epochs, convert_to_iter_based=True),
]
