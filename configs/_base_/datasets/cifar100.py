# CIFAR-100: batch 100 (Table A3), and what its recipes choose from. Table A1 trains a network on
# images of 32 x 32 or, enlarged by cubic interpolation, of 224 x 224.
_base_ = ['mmpretrain::_base_/datasets/cifar100_bs16.py', './augmentations.py']
gamma = 3  # threshold of eq. 1 on CIFAR-100 (A.1)
data_root_variable = 'BOCB_DATA_ROOT'
data_root = '{{$BOCB_DATA_ROOT:data}}/cifar100'

flip = dict(type='RandomFlip', prob=0.5, direction='horizontal')
# A.1: RandomCrop takes the place of RandomResizedCrop at 32 x 32.
crop_and_flip_32 = [dict(type='RandomCrop', crop_size=32, padding=4), flip]
crop_and_flip_224 = [
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    flip,
]
test_pipeline_32 = [dict(type='PackInputs')]
test_pipeline_224 = [  # crop ratio 1: the whole image
    dict(type='Resize', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]
# Both fill with the data set's mean, in its order of channels, which is RGB.
rand_augment = dict(hparams=dict(pad_val=[129, 124, 112]))
random_erasing = dict(fill_color=[129.304, 124.070, 112.434], fill_std=[68.170, 65.392, 70.418])

loader = dict(
    batch_size=100,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type='default_collate'),  # one copy to the device a batch, not one an image
    dataset=dict(data_root=data_root),
)
train_dataloader = loader
val_dataloader = loader
test_dataloader = val_dataloader
