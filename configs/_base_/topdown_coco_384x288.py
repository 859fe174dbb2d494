# The paper's other image size of top-down pose (A.2): 384x288 with heat maps of 96x72, sigma 3 as in
# mmpose. Recorded as a data set of its own, so that no column of a table mixes the two sizes.
# 2.25 times the memory of 256x192: batch 512 as 4 GPUs x 64 x 2 iterations a step, and twice the
# iterations of warm-up.
_base_ = './topdown_coco_256x192.py'
dataset_name = 'coco-384x288'
codec = dict(type='MSRAHeatmap', input_size=(288, 384), heatmap_size=(72, 96), sigma=3)
model = dict(head=dict(decoder=codec))
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='RandomFlip', direction='horizontal'),
    dict(type='RandomHalfBody'),
    dict(type='RandomBBoxTransform'),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
val_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(accumulative_counts=2)
param_scheduler = [
    dict(type='LinearLR', begin=0, end=1000, start_factor=0.001, by_epoch=False),
    dict(type='MultiStepLR', begin=0, end=210, milestones=[170, 200], gamma=0.1, by_epoch=True),
]
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader
