# Table A3, "ConvNeXt / CIFAR": images of 32 x 32, otherwise as convnext_cifar_224.py.
_base_ = './convnext_cifar_224.py'
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.crop_and_flip_32, *_base_.train_dataloader.dataset.pipeline[2:]])
)
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline_32))
test_dataloader = val_dataloader
