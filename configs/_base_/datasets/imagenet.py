# ImageNet-1K, and what its recipes choose from. mmpretrain's pipelines: random resized crop and
# flip; shorter side 256 and the middle 224 x 224 to test.
_base_ = ['mmpretrain::_base_/datasets/imagenet_bs32.py', './augmentations.py']
gamma = 1  # threshold of eq. 1 on ImageNet-1K (A.1)
data_root_variable = 'BOCB_DATA_ROOT'
data_root = '{{$BOCB_DATA_ROOT:data}}/imagenet'

bicubic = dict(backend='pillow', interpolation='bicubic')
crop_and_flip = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, **bicubic),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
]
# Both fill with the data set's mean, in the order of channels of a loaded image, which is BGR.
rand_augment = dict(hparams=dict(pad_val=[104, 116, 124]))
random_erasing = dict(fill_color=[103.53, 116.28, 123.675], fill_std=[57.375, 57.12, 58.395])

# Eight processes on a node: 64 workers while they train, 32 that wait for the next evaluation.
loader = dict(
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type='default_collate'),  # one copy to the device a batch, not one an image
    dataset=dict(data_root=data_root),
)
train_dataloader = loader
val_dataloader = dict(**loader)
val_dataloader.update(num_workers=4)
test_dataloader = val_dataloader
