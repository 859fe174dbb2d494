# The validation of the probe (docs/probe.md), ResNet: three stages of ResNet-18 at a quarter of their
# width; the fourth would have maps of one pixel.
# One epoch is 200 iterations of 50 images, the length of all eight: decoding 10,000 images takes 3 s,
# and a network has about as much again, as it is trained some 170 times.
_base_ = '../search_resnet.py'
model = dict(
    backbone=dict(
        _delete_=True, type='mmpretrain.ResNet', depth=18, stem_channels=16, base_channels=16,
        num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,),
    ),
    head=dict(in_channels=64),
)  # fmt: skip
train_dataloader = dict(batch_size=50)
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(run_record=dict(backbone='R-14-XS'))
