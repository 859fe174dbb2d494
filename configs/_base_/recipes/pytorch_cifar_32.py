# The PyTorch recipe on CIFAR at 32 x 32, for the networks that Table A1 trains at that size.
_base_ = './pytorch_cifar_224.py'
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.crop_and_flip_32, *_base_.train_dataloader.dataset.pipeline[2:]])
)
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline_32))
test_dataloader = val_dataloader
